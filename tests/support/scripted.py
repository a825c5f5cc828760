"""A pipeline that takes its steps when a test says so: real events and real pictures without a model.

For tests of the queue and the page, which must not depend on how fast a model is. With it: the queue over it, two
people, and waiting for an event.
"""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

from PIL import Image

from uso.request.references import ReferenceImage, SavedStyle
from uso.request.request import GenerationRequest, GenerationResult, Progress
from uso.web.access.identity import Asker
from uso.web.jobs.job import Job, Load
from uso.web.jobs.queue import JobQueue
from uso.web.settings import ServerSettings
from uso.web.store.ledger import Ledger
from uso.web.store.recovery import open_ledger

PATIENCE = 120.0
"""Seconds until a test gives up on an event: long, for a loaded machine delays what comes at once on an idle one."""

ANN, BEN = Asker("at:1", "browser:ann", None), Asker("at:2", "browser:ben", None)


class Script:
    """A pipeline that takes a step whenever `steps` is released, and notes its requests."""

    provenance: dict[str, Any] = {"name": "script", "device": "cpu"}  # noqa: RUF012

    def __init__(self, free: bool = True) -> None:
        self.steps = threading.Semaphore(10**6 if free else 0)
        self.seen: list[str] = []
        self.at_work = 0
        self.closed_early: list[str] = []
        self.error: BaseException | None = None
        self.previewed: list[int] = []

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]:
        self.seen.append(request.prompt)
        self.at_work += 1
        assert self.at_work == 1, "two jobs at once"
        try:
            yield self._progress(request, "condition", 1, 1, 0.0)
            for index in range(request.num_images):
                for step in range(1, request.num_inference_steps + 1):
                    assert self.steps.acquire(timeout=PATIENCE)
                    if self.error is not None:
                        raise self.error
                    yield self._progress(request, "denoise", step, request.num_inference_steps, 2.0 * step, index)
                yield GenerationResult(
                    image=Image.new("RGB", (request.width, request.height)),
                    request=request.single(index),
                    model=self.provenance,
                    timings={"condition": 0.0, "denoise": 1.5, "decode": 0.5},
                    peak_memory_gib=None,
                )
        except GeneratorExit:
            self.closed_early.append(request.prompt)
            raise
        finally:
            self.at_work -= 1

    def prompt_counter(self) -> Callable[[str], int] | None:
        return lambda prompt: len(prompt.split()) + 1

    projector = "ab" * 32

    def save_style(
        self, images: Sequence[ReferenceImage], title: str, *, strength: float, weights: Sequence[float] | None
    ) -> SavedStyle:
        assert self.at_work == 0, "in the middle of a job"
        return SavedStyle.build(
            b"\0" * 24 * len(images),
            "F32",
            (len(images), 2, 3),
            title=title,
            thumbnail=ReferenceImage.from_pil(images[0].image.resize((8, 8))).data,
            strength=strength,
            weights=weights or [1.0],
            projector=self.projector,
        )

    def preview(self, progress: Progress, side: int = 256) -> Image.Image | None:
        self.previewed.append(progress.step)
        return Image.new("RGB", (16, 16), (progress.step, 0, 0))

    def _progress(
        self, request: GenerationRequest, stage: str, step: int, num_steps: int, seconds: float, index: int = 0
    ) -> Progress:
        return Progress(
            stage=stage,
            step=step,
            num_steps=num_steps,
            image_index=index,
            num_images=request.num_images,
            width=request.width,
            height=request.height,
            seconds=seconds,
        )


def queue_of(loads: Load | Sequence[Load], settings: ServerSettings, **options: Any) -> JobQueue:
    """A queue over the ledger of its output folder; not started."""
    return JobQueue(loads, settings, open_ledger(settings.output), **options)


def submit(queue: JobQueue, request: GenerationRequest, asker: Asker, tab: str = "") -> Job:
    """Admit and submit a request at once, as `Calls` does around the reading of its images."""
    place = queue.admit(asker)
    try:
        return queue.submit(request, place, tab=tab)
    finally:
        queue.release(place)


def ledger_of(queue: JobQueue) -> Ledger:
    """The ledger of a queue that `queue_of` made."""
    return cast(Ledger, queue._records)


def states(*jobs: Job) -> list[str]:
    return [job.status.state for job in jobs]


def until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
