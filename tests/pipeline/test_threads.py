"""Pipelines that share a process: in two threads at once each makes the bits that it makes alone."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from tests.golden import MODES
from tests.pipeline.test_pipeline import SMALL, references
from uso import USOPipeline
from uso.pipeline import encoders
from uso.pipeline.encoders import exact_convolutions
from uso.weights.loading import load_pipeline

WAIT_SECONDS = 120
"""Longer than any of this takes: a thread that is stuck fails the test and does not hang it."""


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Threads take turns a hundred times as often as usual, so that what they share is seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


Flags = tuple[bool, bool, bool]


def flags() -> Flags:
    """cuDNN's, which are the whole process's: enabled, benchmark, deterministic."""
    cudnn: Any = torch.backends.cudnn
    return cudnn.enabled, cudnn.benchmark, cudnn.deterministic


def interleave(convolutions: Callable[[], Any]) -> tuple[Flags, Flags]:
    """Two enter, the first leaves, then the second: the flags in between, and at the end."""
    with ExitStack() as second:
        with ExitStack() as first:
            first.enter_context(convolutions())
            second.enter_context(convolutions())
        between = flags()
    return between, flags()


def test_flags_stay_until_the_last_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches flags that are taken from the one who is still inside, and that are left behind at the end."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)  # a user's own setting
    before = flags()
    assert interleave(exact_convolutions) == ((True, False, True), before)

    # The bug, once: each restores what it found.
    plain = interleave(lambda: torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
    torch.backends.cudnn.deterministic = before[2]
    assert plain == (before, (True, False, True))


def test_flags_in_threads() -> None:
    """Catches a count without a lock, and flags that an error leaves behind."""
    before, meet = flags(), threading.Barrier(8, timeout=WAIT_SECONDS)

    def work(number: int) -> bool:
        meet.wait()
        kept = True
        for _ in range(300):
            try:
                with exact_convolutions():
                    kept &= flags() == (True, False, True)
                    if number % 2:
                        raise KeyError
            except KeyError:
                pass
        return kept

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert flags() == before


def pictures(pipeline: USOPipeline, prompt: str, width: int = 128) -> dict[str, bytes]:
    """One in each mode, and a tiled one."""
    pipeline.remembered.clear()
    values = SMALL | {"width": width}
    made = {mode: pipeline(prompt, **values, **references(mode)).images[0].tobytes() for mode in MODES}
    return made | {"tiled": pipeline(prompt, **values, tiled_decode=True).images[0].tobytes()}


@pytest.mark.slow
def test_two_pipelines_at_once_make_what_each_makes_alone(demo_pipeline: USOPipeline) -> None:
    """Catches state that belongs to the process or to a class and not to one pipeline: rows, tables, slots, flags."""
    other = load_pipeline("demo", device="cpu", memory="cpu")
    work_of = ((demo_pipeline, "A fox.", 128), (other, "A hound in the snow.", 176))
    alone = [pictures(*work) for work in work_of]
    meet = threading.Barrier(2, timeout=WAIT_SECONDS)

    def work(number: int) -> dict[str, bytes]:
        meet.wait()
        return pictures(*work_of[number])

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, (0, 1)))
    assert together == alone


@pytest.mark.slow
def test_pipelines_load_beside_one_that_works(demo_pipeline: USOPipeline) -> None:
    """Catches two loads whose patches of `nn.Module` are undone in the wrong order (parameters end on the meta device,
    or modules stay broken for good), and a load that changes the bits of one who works."""
    expected = pictures(demo_pipeline, "A fox.")
    meet, loaded = threading.Barrier(3, timeout=WAIT_SECONDS), threading.Event()
    stages: list[str] = []

    def load(_: int) -> USOPipeline:
        meet.wait()
        return load_pipeline("demo", device="cpu", on_progress=lambda stage, _: stages.append(stage))

    def work() -> list[dict[str, bytes]]:
        meet.wait()
        made = [pictures(demo_pipeline, "A fox.")]
        while not loaded.is_set():
            made.append(pictures(demo_pipeline, "A fox."))
        return made

    register = torch.nn.Module.register_parameter
    with ThreadPoolExecutor(3) as pool:
        working = pool.submit(work)
        try:
            pipelines = list(pool.map(load, range(2)))
        finally:
            loaded.set()
        assert all(made == expected for made in working.result(WAIT_SECONDS))
    assert torch.nn.Module.register_parameter is register
    assert "Waiting for another model to load" in stages
    assert all(pictures(pipeline, "A fox.") == expected for pipeline in pipelines)


def test_every_convolution_is_exact(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a convolution outside `exact_convolutions`: its kernel would depend on what other threads do."""
    outside: list[str] = []
    convolve = torch.nn.Conv2d.forward

    def watched(layer: torch.nn.Conv2d, values: torch.Tensor) -> torch.Tensor:
        if encoders.exact_convolutions._inside != 1:
            outside.append(repr(layer))
        return convolve(layer, values)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    demo_pipeline.remembered.clear()
    demo_pipeline("A fox.", **SMALL, **references("multi_style_subject"))
    assert outside == []
