"""One thread that loads the model and then owns it: jobs wait in line and are made one at a time.

Knows nothing of pages and routes, and imports no torch: `load` is called inside the thread and brings the model. What
others may look at (`Engine.status`, `Job.status`) are frozen snapshots, replaced as a whole, so that no lock is needed
to read them. A finished picture is on the disk before anybody hears of it.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from uso import output
from uso.errors import USOError
from uso.request import GenerationRequest, GenerationResult, Progress

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, float], None]
"""Called while the model loads: stage in words, share done from 0 to 1."""


class Pipeline(Protocol):
    """What the engine needs of a model: `uso.USOPipeline`, seen from here."""

    provenance: dict[str, Any]

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]: ...


@dataclass(frozen=True, kw_only=True)
class EngineStatus:
    """Where the model is on its way to being ready."""

    state: Literal["starting", "loading", "ready", "failed"] = "starting"
    stage: str = "starting"
    share: float = 0.0
    """Of the loading, 0 to 1."""
    error: str = ""
    """`failed`: why, and what to do, as a sentence."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture: its file, and what was really used."""

    path: Path
    width: int
    height: int
    seed: int
    num_inference_steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What a job has reached."""

    state: Literal["queued", "running", "done", "cancelled", "failed"] = "queued"
    ahead: int = 0
    """`queued`: how many jobs come first."""
    stage: str = ""
    """`running`: `condition`, `denoise` or `decode`."""
    step: int = 0
    num_steps: int = 0
    seconds_left: float | None = None
    """Of the steps that are left, from the pace of those that are done; None before the second."""
    pictures: tuple[Picture, ...] = ()
    error: str = ""
    """`failed`, or `cancelled` by the server: why, as a sentence."""

    @property
    def over(self) -> bool:
        return self.state in ("done", "cancelled", "failed")


@dataclass(eq=False)
class Job:
    """One request on its way. Read `status`; everything else is the engine's."""

    request: GenerationRequest
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: JobStatus = field(default_factory=JobStatus)
    cancelled: threading.Event = field(default_factory=threading.Event)
    pace: tuple[int, float] | None = None
    """(step, seconds) of the first step of the present picture, to measure from."""

    def reach(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)


class Engine:
    """Loads the model behind the caller's back, then makes the jobs in the order they came."""

    def __init__(self, load: Callable[[OnProgress], Pipeline], folder: Path) -> None:
        """
        Args:
            load: brings the model; called once, in the engine's thread, so that it can import torch there.
            folder: where finished pictures are saved.
        """
        self.status = EngineStatus()
        self.provenance: dict[str, Any] = {}
        """What the loaded model says of itself; empty before it is ready."""
        self._load = load
        self._folder = folder
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closing = ""
        self._closed_at: float | None = None
        self._began = time.monotonic()
        self._settled: float | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def loading_seconds(self) -> float:
        """Since the start, until the model was ready or had failed."""
        return (self._settled or time.monotonic()) - self._began

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Job:
        """Put a request at the end of the line; it may wait for the model as well.

        Raises:
            USOError: the model could not be loaded, or the server is shutting down.
        """
        with self._changed:
            if self._closing or self.status.state == "failed":
                raise USOError(self._closing or self.status.error)
            job = Job(request)
            self._waiting.append(job)
            self._number_the_line()
            self._changed.notify()
            return job

    def cancel(self, job_id: str) -> bool:
        """Stop a job: at once if it waits, after the step it is at if it runs. False if there is none such."""
        with self._changed:
            for job in self._waiting:
                if job.id == job_id:
                    self._waiting.remove(job)
                    job.reach(state="cancelled")
                    self._number_the_line()
                    return True
            if self._running is not None and self._running.id == job_id:
                self._running.cancelled.set()
                return True
            return False

    def close(self, reason: str = "The server is shutting down. Send it again in a moment.") -> None:
        """Take no more jobs and tell those that wait; the one that runs is finished. Returns at once."""
        with self._changed:
            self._closing = self._closing or reason
            self._closed_at = self._closed_at or time.monotonic()
            while self._waiting:
                self._waiting.popleft().reach(state="cancelled", error=reason)
            self._changed.notify()

    def join(self, grace: float) -> bool:
        """Wait for the job that runs, and stop it `grace` seconds after `close`. True if the thread has ended."""
        if self.status.state in ("starting", "loading"):
            return False  # nothing to lose: the thread ends with the process
        closed_at = self._closed_at or time.monotonic()
        self._thread.join(max(0.0, closed_at + grace - time.monotonic()))
        if self._thread.is_alive() and (running := self._running) is not None:
            running.cancelled.set()
            self._thread.join(_LAST_STEP_SECONDS)
        return not self._thread.is_alive()

    # The engine's own thread from here on.

    def _work(self) -> None:
        try:
            pipeline = self._loaded()
        except Exception as error:
            expected = isinstance(error, USOError)
            logger.error("The model could not be loaded: %s", error, exc_info=not expected)
            self._fail(error)
            return
        while (job := self._next()) is not None:
            self._run(pipeline, job)
            with self._changed:
                self._running = None

    def _loaded(self) -> Pipeline:
        def on_progress(stage: str, share: float) -> None:
            self.status = EngineStatus(state="loading", stage=stage, share=share)

        on_progress("importing the program", 0.0)
        pipeline = self._load(on_progress)
        self.provenance = dict(pipeline.provenance)
        self._settled = time.monotonic()
        self.status = EngineStatus(state="ready", stage="ready", share=1.0)
        logger.info("The model is ready after %.1f s.", self.loading_seconds)
        return pipeline

    def _fail(self, error: Exception) -> None:
        sentence = f"The model could not be loaded. {_sentence(error)}"
        with self._changed:
            self._settled = time.monotonic()
            self.status = replace(self.status, state="failed", error=sentence)
            while self._waiting:
                self._waiting.popleft().reach(state="failed", error=sentence)

    def _next(self) -> Job | None:
        """The job whose turn it is, as soon as there is one; None when the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            self._running = self._waiting.popleft()
            self._running.reach(state="running", stage="condition")
            self._number_the_line()
            return self._running

    def _number_the_line(self) -> None:
        first = 0 if self._running is None else 1
        for ahead, job in enumerate(self._waiting, start=first):
            if job.status.ahead != ahead:
                job.reach(ahead=ahead)

    def _run(self, pipeline: Pipeline, job: Job) -> None:
        try:
            with closing(pipeline.stream(job.request)) as events:
                for event in events:
                    if isinstance(event, GenerationResult):
                        self._keep(event, job)
                    else:
                        _note(event, job)
                    if job.cancelled.is_set() and len(job.status.pictures) < job.request.num_images:
                        break
            finished = len(job.status.pictures) == job.request.num_images
            job.reach(state="done" if finished else "cancelled", error="" if finished else self._closing)
        except Exception as error:
            logger.exception("Job %s failed.", job.id)
            job.reach(state="failed", error=_sentence(error))

    def _keep(self, result: GenerationResult, job: Job) -> None:
        path = output.save(result, self._folder)
        picture = Picture(
            path=path,
            width=result.request.width,
            height=result.request.height,
            seed=result.request.seed,
            num_inference_steps=result.request.num_inference_steps,
            seconds=sum(result.timings.values()),
        )
        job.pace = None
        job.reach(pictures=(*job.status.pictures, picture))
        logger.info("Job %s: %s in %.1f s.", job.id, path, picture.seconds)


_LAST_STEP_SECONDS = 10.0
"""How long a stopped job may take to get to the end of its step when the server ends."""


def _note(event: Progress, job: Job) -> None:
    """Put a pipeline's progress into the job's status."""
    seconds_left = None
    if event.stage == "denoise":
        if job.pace is None:
            job.pace = event.step, event.seconds
        first, then = job.pace
        if event.step > first:
            seconds_left = (event.seconds - then) / (event.step - first) * (event.num_steps - event.step)
    job.reach(stage=event.stage, step=event.step, num_steps=event.num_steps, seconds_left=seconds_left)


def _sentence(error: Exception) -> str:
    """What a person is told; the log has the traceback."""
    if isinstance(error, USOError):
        return str(error)
    return f"Something unexpected happened ({type(error).__name__}); the server's log says more."
