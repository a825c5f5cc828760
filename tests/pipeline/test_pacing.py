"""The host is never more than one step ahead of the device, and never waits for the newest step but at the end."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.pipeline.test_pipeline import SMALL
from uso import USOPipeline
from uso.pipeline.pacing import Pacer, Wait, marks_of
from uso.request.request import GenerationRequest, GenerationResult, Progress


class Device:
    """A queue that writes down what is marked and what is waited for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.marked = 0

    def mark(self) -> Wait:
        self.marked += 1
        number = self.marked
        self.log.append(f"mark {number}")
        return lambda: self.log.append(f"wait {number}")


def test_one_step_ahead_and_no_more() -> None:
    """Catches a pacer that waits for the step just queued (the device runs dry), for an older one, or not at all."""
    device = Device()
    pacer = Pacer(device.mark)
    for step in (1, 2, 3):
        pacer.step()
        device.log.append(f"tell {step}")
    pacer.finish()
    pacer.finish()
    assert device.log == [
        *("mark 1", "tell 1"),
        *("mark 2", "wait 1", "tell 2"),
        *("mark 3", "wait 2", "tell 3"),
        "wait 3",
    ]


def test_nothing_queued_is_nothing_to_wait_for() -> None:
    """Catches a `finish` that marks, and so waits for what others queued."""
    device = Device()
    Pacer(device.mark).finish()
    assert device.log == []


def test_a_cpu_waits_for_nothing() -> None:
    """Catches an event of CUDA's made where there is no CUDA."""
    pacer = Pacer(marks_of(torch.device("cpu")))
    pacer.step()
    pacer.step()
    pacer.finish()


def test_stream_paces_every_picture(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches progress told before the step before it is done, a result timed before its last step is, and a stop that
    queues another step."""
    device = Device()
    monkeypatch.setattr("uso.pipeline.pipeline.marks_of", lambda _: device.mark)
    request = GenerationRequest.create(demo_pipeline.model_config, **SMALL | {"num_inference_steps": 3}, num_images=2)
    for event in demo_pipeline.stream(request):
        if isinstance(event, GenerationResult):
            device.log.append("result")
        elif event.stage == "denoise":
            device.log.append(f"tell {event.step}")
    first = ["mark 1", "tell 1", "mark 2", "wait 1", "tell 2", "mark 3", "wait 2", "tell 3", "wait 3", "result"]
    second = ["mark 4", "tell 1", "mark 5", "wait 4", "tell 2", "mark 6", "wait 5", "tell 3", "wait 6", "result"]
    assert device.log == first + second

    device.log.clear()
    stream = demo_pipeline.stream(request)
    while not (isinstance(event := next(stream), Progress) and event.stage == "denoise"):
        pass
    stream.close()
    assert device.log == ["mark 7"]


@pytest.mark.parametrize("ahead", [True, False])
def test_previews_are_of_what_is_done(ahead: bool, demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a preview that waits for the step that was just queued, while the device has nothing to do after it, or
    reads it before it is computed; and one that is late where nothing is queued."""
    device, made = Device(), []
    monkeypatch.setattr("uso.pipeline.pipeline.marks_of", lambda _: device.mark if ahead else None)
    denoise = USOPipeline.denoise

    def noted(*args: Any, **options: Any) -> Iterator[Any]:
        for step in denoise(*args, **options):
            made.append(step.denoised)
            yield step

    monkeypatch.setattr(USOPipeline, "denoise", noted)
    request = GenerationRequest.create(demo_pipeline.model_config, **SMALL | {"num_inference_steps": 3})
    told = [event for event in demo_pipeline.stream(request) if isinstance(event, Progress)]
    shown = [event.denoised for event in told if event.stage == "denoise"]
    expected = [None, *made[:2]] if ahead else made
    assert [id(each) for each in shown] == [id(each) for each in expected]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_done_the_step_before() -> None:
    """Catches events recorded on another stream or device than the one that computes."""
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    pacer = Pacer(marks_of(device))
    assert pacer.ahead
    matrix = torch.randn(8192, 8192, device=device)
    done = []
    for _ in range(3):
        matrix = matrix @ matrix / 90
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        done.append(event)
        pacer.step()
        assert all(event.query() for event in done[:-1])
    began = time.perf_counter()
    pacer.finish()
    assert all(event.query() for event in done), time.perf_counter() - began
