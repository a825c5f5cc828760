"""Workers whose model works elsewhere and is lost: their jobs are made by others, once, and nothing twice."""

import json
import logging
import threading
from typing import Any

import pytest

from tests.support.scripted import ANN, BEN, PATIENCE, Script, states, submit, until
from uso import output
from uso.config import ModelConfig
from uso.errors import USOError, WorkerLost
from uso.request.request import GenerationRequest
from uso.web.jobs.job import Job, OnProgress
from uso.web.server.metrics import Metrics

LOST = "The worker on node-7 was lost: its process or its machine has ended."


class Elsewhere:
    """Loads scripts that can be lost, in so many places."""

    def __init__(self, places: int = 1, card: str = "cpu") -> None:
        self.places = threading.Semaphore(places)
        self.scripts: list[Script] = []
        self._card = card
        self._on_progress: OnProgress

    def __call__(self, on_progress: OnProgress) -> Script:
        on_progress("waiting for a GPU", 0.0)
        assert self.places.acquire(timeout=PATIENCE)
        script = Script(free=False)
        script.provenance = Script.provenance | {"device": self._card}
        self.scripts.append(script)
        self._on_progress = on_progress
        return script

    @property
    def script(self) -> Script:
        return self.scripts[-1]

    def lose(self) -> None:
        """As `uso.cluster` does: the worker is told, then whoever waits for a step."""
        self.script.error = WorkerLost(LOST)
        self._on_progress("starting another worker", 0.0)
        self.script.steps.release(1)

    def end(self) -> None:
        self.places.release(100)
        for script in self.scripts:
            script.steps.release(1000)


@pytest.fixture
def elsewhere() -> Any:
    """Makes loads that end with the test."""
    made: list[Elsewhere] = []

    def make(*values: Any) -> Elsewhere:
        made.append(Elsewhere(*values))
        return made[-1]

    yield make
    for one in made:
        one.end()


def several(config: ModelConfig, number: int, steps: int = 2) -> GenerationRequest:
    return GenerationRequest.create(
        config, "a fox", width=128, height=128, num_inference_steps=steps, seed=7, num_images=number
    )


def seeds(job: Job) -> list[int]:
    """Of its pictures, as the files have it."""
    return [output.read(picture.path).values()["seed"] for picture in job.status.pictures]


def test_a_job_whose_worker_is_lost_goes_on_elsewhere(run: Any, demo_config: ModelConfig, elsewhere: Any) -> None:
    """Catches a picture that is made twice, one that is left out, and a job that begins at the end of the queue."""
    first = elsewhere()
    queue = run(first)
    until(lambda: queue.status.workers_ready == 1)
    job, other = (submit(queue, several(demo_config, 3), asker) for asker in (ANN, BEN))
    first.script.steps.release(3)  # one picture, and a step of the second
    until(lambda: job.status.making == 2 and job.status.step == 1)
    first.lose()
    until(lambda: states(job) == ["queued"])
    assert seeds(job) == [7] and (job.status.ahead, other.status.ahead) == (0, 1)
    assert (queue.status.state, queue.status.workers_ready, queue.status.workers) == ("loading", 0, 1)
    first.places.release(1)
    until(lambda: states(job) == ["running"])
    until(lambda: (first.script.steps.release(1), job.status.step == 1)[1])
    assert job.status.making == 2
    first.script.steps.release(100)
    until(lambda: job.status.over and other.status.over)
    assert states(job, other) == ["done", "done"] and seeds(job) == seeds(other) == [7, 8, 9]
    (turn,) = job.lost
    line = Metrics().line(job)
    assert turn.worker == 0 and json.loads(json.dumps(line))["lost"][0]["worker"] == 0
    assert "lost" not in Metrics().line(other)


def test_a_job_that_loses_two_workers_fails_in_a_sentence(run: Any, request_for: Any, elsewhere: Any) -> None:
    """Catches a job that ends one worker after the other, for ever."""
    first = elsewhere(2)
    queue = run(first)
    job = submit(queue, request_for(), ANN)
    until(lambda: states(job) == ["running"])
    first.lose()
    until(lambda: len(job.lost) == 1 and len(first.scripts) == 2 and states(job) == ["running"])
    first.lose()
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and job.status.error == f"{LOST} Send it again."
    first.places.release(1)
    following = submit(queue, request_for(), BEN)
    until(lambda: len(first.scripts) == 3)
    first.script.steps.release(100)
    until(lambda: following.status.over)
    assert states(following) == ["done"]


def test_a_job_that_was_stopped_does_not_come_back(run: Any, request_for: Any, elsewhere: Any) -> None:
    """Catches a Stop that is forgotten because the worker was lost before it could obey."""
    first = elsewhere()
    queue = run(first)
    job = submit(queue, request_for(), ANN)
    until(lambda: states(job) == ["running"])
    assert queue.cancel(job.id, "No more.")
    first.lose()
    until(lambda: job.status.over)
    assert states(job) == ["cancelled"] and job.status.error == "No more." and queue.status.waiting == 0


def test_a_worker_that_is_lost_while_it_has_nothing_to_do_is_seen(
    run: Any, request_for: Any, elsewhere: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a dead worker that takes a job before anybody notices, and "2 workers" while one of them is gone."""
    first, second = elsewhere(), elsewhere()
    queue = run(first, second)
    until(lambda: queue.status.workers_ready == 2)
    first.lose()
    until(lambda: queue.status.workers_ready == 1)
    assert queue.status.state == "ready"
    until(lambda: "1 of 2 workers are ready" in caplog.text)
    job = submit(queue, request_for(), ANN)
    second.script.steps.release(100)
    until(lambda: job.status.over)
    assert states(job) == ["done"] and not job.lost
    first.places.release(1)
    until(lambda: queue.status.workers_ready == 2)


def test_jobs_wait_while_all_workers_are_gone(
    run: Any, request_for: Any, elsewhere: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a server that fails for good because its cluster was away for a minute."""
    caplog.set_level(logging.INFO, logger="uso.web.jobs.dispatcher")
    first = elsewhere()
    queue = run(first)
    until(lambda: queue.status.state == "ready")
    first.lose()
    until(lambda: queue.status.state == "loading")
    job = submit(queue, request_for(), ANN)
    assert states(job) == ["queued"] and queue.count_tokens("a fox") is None
    first.places.release(1)
    until(lambda: states(job) == ["running"])
    first.script.steps.release(100)
    until(lambda: job.status.over)
    assert states(job) == ["done"] and queue.count_tokens("a fox") == 3
    until(lambda: caplog.text.count("The model is ready after") == 1)


def test_an_errand_fails_in_the_sentence_of_what_was_lost(run: Any, elsewhere: Any) -> None:
    """Catches a worker that ends with its errand."""
    first = elsewhere()
    queue = run(first)
    until(lambda: queue.status.state == "ready")

    def work(pipeline: Any) -> None:
        first.lose()
        raise WorkerLost(LOST)

    with pytest.raises(USOError, match="node-7 was lost"):
        queue.ask(work, ANN).result(timeout=PATIENCE)
    first.places.release(1)
    until(lambda: queue.status.state == "ready")
    assert queue.ask(lambda pipeline: 5, ANN).result(timeout=PATIENCE) == 5


def test_a_server_that_shuts_down_cancels_what_came_back(run: Any, request_for: Any, elsewhere: Any) -> None:
    """Catches a job that goes back into a queue that nobody serves, and a shutdown that waits for a worker."""
    first = elsewhere()
    queue = run(first)
    job = submit(queue, request_for(), ANN)
    until(lambda: states(job) == ["running"])
    queue.close("The end.")
    first.lose()
    until(lambda: job.status.over)
    assert states(job) == ["cancelled"] and job.status.error == "The end."
    queue.join(0.0)
    assert not queue.busy


def test_different_cards_are_told(run: Any, elsewhere: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a cluster of two kinds of cards where nobody knows why a seed gives two pictures."""
    loads = [elsewhere(1, "cuda (NVIDIA L40S)"), elsewhere(1, "cuda (NVIDIA H200)")]
    queue = run(*loads)
    until(lambda: queue.status.workers_ready == 2)
    said = (
        "The workers run on different cards (cuda (NVIDIA H200), cuda (NVIDIA L40S)). The same seed may give different "
        "pictures on them."
    )
    assert queue.status.notice == said
    until(lambda: said in caplog.text)
    loads[0].lose()
    until(lambda: queue.status.workers_ready == 1)
    assert queue.status.notice == ""
