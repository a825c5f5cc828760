"""Behind the door: the demo model as a node runs it, without Ray."""

import os
from typing import Any

import numpy as np
import pytest

from uso.cluster import host, wire
from uso.cluster.host import Host
from uso.config import ModelConfig
from uso.request.request import GenerationRequest, GenerationResult, Progress
from uso.weights import loading


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, demo_config: ModelConfig, demo_pipeline: Any) -> Host:
    """Its pipeline is the tests' own."""
    given: dict[str, Any] = {}

    def load(config: ModelConfig, *, on_progress: Any, **options: Any) -> Any:
        given.update(options, config=config)
        on_progress("Loading vae", 0.5)
        return demo_pipeline

    monkeypatch.setattr(loading, "load_pipeline", load)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that what it sets goes again
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    spec = {"config": demo_config.model_dump(mode="json"), "files": {}, "options": {"device": "cpu"}}
    made = Host(spec | {"previews": False, "threads": None, "share": 1.0})
    assert made.answer("progress", ()) == {"value": ["", 0.0]}
    found = made.answer("load", ())["value"]
    assert given == {"device": "cpu", "config": demo_config}
    assert found["provenance"] == demo_pipeline.provenance and found["projector"] == demo_pipeline.projector
    assert made.answer("progress", ())["value"] == ["Loading vae", 0.5]
    return made


def events(made: Host, request: GenerationRequest) -> list[Any]:
    """All that it answers to a request."""
    images = [reference.data for reference in wire.references_of(request)]
    assert made.answer("begin", (wire.request_out(request), *images)) == {"value": None}
    found = []
    while (event := made.answer("next", ())["value"]) is not None:
        found.append(wire.event_in(event, request, "n"))
    return found


def test_it_makes_the_pipelines_own_pictures(
    loaded: Host, demo_config: ModelConfig, demo_pipeline: Any, image: Any
) -> None:
    """Catches a request that changes on its way, and an event that is left out."""
    request = GenerationRequest.create(
        demo_config, "a fox", style_images=image, width=128, height=128, num_inference_steps=2, seed=3, num_images=2
    )
    here, there = list(demo_pipeline.stream(request)), events(loaded, request)
    assert [type(event) for event in here] == [type(event) for event in there]
    steps = [(event.stage, event.step, event.image_index) for event in here if isinstance(event, Progress)]
    assert steps == [(event.stage, event.step, event.image_index) for event in there if isinstance(event, Progress)]
    pictures = [
        [np.asarray(event.image) for event in found if isinstance(event, GenerationResult)] for found in (here, there)
    ]
    assert len(pictures[0]) == 2 and all(map(np.array_equal, *pictures))


def test_a_request_that_is_given_up_leaves_room_for_the_next(loaded: Host, demo_config: ModelConfig) -> None:
    """Catches a node that goes on with what nobody wants any more."""
    request = GenerationRequest.create(demo_config, "a fox", width=128, height=128, num_inference_steps=2, seed=3)
    loaded.answer("begin", (wire.request_out(request),))
    assert loaded.answer("next", ())["value"]["stage"] == "condition"
    assert loaded.answer("close", ()) == {"value": None}
    assert "error" in loaded.answer("next", ())
    assert sum(isinstance(event, GenerationResult) for event in events(loaded, request)) == 1


def test_what_is_refused_is_an_answer(loaded: Host) -> None:
    """Catches an error that ends the process, and with it a model that took minutes to load."""
    answer = loaded.answer("check_prompt", (" ".join(["word"] * 200),))
    assert answer["error"] == "RequestError" and "this model reads 32" in str(wire.error_in(answer, "n"))
    assert loaded.answer("check_prompt", ("a fox",)) == {"value": None}
    assert loaded.answer("count", ("a fox",))["value"] > 1
    assert loaded.answer("__class__", ())["error"] == "AssertionError"


def test_a_worker_has_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches eight workers of one machine with as many threads as it has processors, each."""
    monkeypatch.setattr(host, "processors", lambda: 16)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that what is set goes again
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    for wanted, share, threads in ((None, 0.25, "4"), (None, 0.01, "1"), (3, 0.25, "3")):
        host._set_threads(wanted, share)
        assert os.environ["OMP_NUM_THREADS"] == threads
