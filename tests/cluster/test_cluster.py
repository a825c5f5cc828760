"""The connection and a lost pipeline, without a cluster: what is said, and what is done once only."""

from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any

import pytest

from uso.cluster.address import Workers
from uso.config import ModelConfig
from uso.errors import ConfigError, DeviceError, RequestError, WorkerLost
from uso.request.request import GenerationRequest

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)")

HEAD = Workers("head", 10001, 2)

MISMATCH = """Version mismatch: The Ray Client was started with:
    Ray: 2.50.0
    Python: 3.11.7
This process was started with:
    Ray: 2.58.0
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """It is connected; how often it was closed is in `closed`."""
    from uso.cluster import cluster as module

    made: Any = module.Cluster(HEAD, "cuda")
    made._connected, made.closed = True, 0

    def disconnect() -> None:
        made.closed += 1

    monkeypatch.setattr(module, "_disconnect", disconnect)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    return made


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError(MISMATCH), "runs another version of Ray or Python (Ray: 2.50.0 Python: 3.11.7 Ray: 2.58.0)"),
        (ConnectionError("ray client connection timeout"), "is no head of a Ray cluster, or does not let clients in"),
        (ConnectionAbortedError("Initialization failure:\nTraceback\nKeyError: 5"), "at ray://head:10001: KeyError: 5"),
    ],
)
def test_why_a_head_does_not_let_us_in_is_a_sentence(error: Exception, sentence: str) -> None:
    from uso.cluster.reasons import refusal

    assert sentence in refusal(HEAD, error)


def test_a_connection_is_closed_once_and_made_again(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches eight workers that see one connection break, and close the next one, and the next."""
    for _ in range(8):
        cluster.lost(0, ConnectionError("gone"))
    assert (cluster.generation, cluster.closed) == (1, 1)
    tries, told = [], []

    def open_again() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConfigError("Nothing answers.")
        cluster._connected = True

    monkeypatch.setattr(cluster, "_open", open_again)
    assert cluster.ready(lambda stage, share: told.append(stage)) == 1 and len(tries) == 3
    assert set(told) == {"connecting to ray://head:10001"}
    cluster.lost(0, ConnectionError("an old one"))
    assert cluster.generation == 1 and cluster._connected


def test_an_actor_that_ended_is_no_broken_connection(cluster: Any) -> None:
    """Catches a page that drops all its workers because one of them died."""
    from ray.exceptions import ActorDiedError

    from uso.cluster.reasons import reason

    cluster.lost(0, ActorDiedError())
    assert cluster.closed == 0 and reason(ActorDiedError()) == "its process or its machine has ended"


class Method:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def remote(self, *values: Any) -> "Method":
        return self

    def future(self) -> "Future[Any]":
        made: Future[Any] = Future()
        if isinstance(self._answer, Exception):
            made.set_exception(self._answer)
        elif self._answer is not None:
            made.set_result(self._answer)
        return made


class Door:
    """An actor that always answers the same."""

    def __init__(self, answer: Any) -> None:
        self.call = self.ask = Method(answer)
        self.stay = Method(None)


@pytest.fixture
def remote(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`remote(answer)`: a pipeline over such an actor; `told` and `killed` note what is done."""
    from uso.cluster import pipeline as module

    def make(answer: Any) -> Any:
        loaded = {"provenance": {"device": "cuda (X)"}, "projector": "", "counts": True}
        told: list[str] = []
        killed: list[Any] = []
        monkeypatch.setattr(module, "kill", killed.append)
        made: Any = module.RemotePipeline(
            cluster, 0, Door(answer), "node-7", loaded, lambda stage, share: told.append(stage)
        )
        made.told, made.killed = told, killed
        return made

    return make


def test_a_lost_worker_is_told_once(remote: Any, cluster: Any) -> None:
    """Catches a worker that is loaded again while it loads, and one whose GPU stays taken."""
    from ray.exceptions import ActorUnavailableError

    pipeline = remote(ActorUnavailableError("", None))
    for _ in range(3):
        with pytest.raises(WorkerLost, match="The worker on node-7 was lost: it cannot be reached"):
            pipeline.check_prompt("a fox")
    assert pipeline.told == ["starting another worker"] and len(pipeline.killed) == 1 and cluster.closed == 0
    assert pipeline.prompt_counter()("a fox") is None  # whoever counts can do without


def test_a_gpu_that_failed_is_a_lost_worker(remote: Any, demo_config: ModelConfig) -> None:
    """Catches a worker that is gone for good though its machine could start another process."""
    answer = {"error": "DeviceError", "text": "The device cuda:0 has failed.", "field": "", "traceback": ""}
    pipeline = remote(answer)
    with pytest.raises(WorkerLost, match=r"The worker on node-7 was lost: The device cuda:0 has failed\."):
        list(pipeline.stream(GenerationRequest.create(demo_config, "a fox")))
    assert len(pipeline.told) == len(pipeline.killed) == 1
    assert not issubclass(WorkerLost, DeviceError)


def test_a_refusal_loses_nothing(remote: Any) -> None:
    """Catches a prompt that is too long and costs a model that took minutes to load."""
    pipeline = remote({"error": "RequestError", "text": "Shorten it.", "field": "prompt", "traceback": ""})
    with pytest.raises(RequestError, match="Shorten it") as refused:
        pipeline.check_prompt("a fox")
    assert refused.value.field == "prompt" and pipeline.told == [] == pipeline.killed
