"""One worker: a thread that loads a model and then owns it, making one job at a time.

It imports no torch itself (`load` brings the model), decides nothing about who is next, and speaks to nobody: what it
does is seen in the job's status. A finished picture is on the disk, and in the ledger, before anybody hears of it.
"""

import io
import logging
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from dataclasses import replace
from statistics import median
from typing import Any, Protocol

from uso.errors import DeviceError, USOError
from uso.request import GenerationResult, Progress
from uso.web.jobs.job import Job, Load, Picture, Pipeline, ServerStatus
from uso.web.jobs.safety import Safety
from uso.web.jobs.time_estimate import TimeEstimate
from uso.web.settings import ServerSettings
from uso.web.store.ledger import Ledger, served

logger = logging.getLogger(__name__)

PREVIEWS = 8
"""How many previews a picture has at the most, evenly over its steps."""

PREVIEW_QUALITY = 80


class Foreman(Protocol):
    """What a worker asks for: the engine, seen from here."""

    settings: ServerSettings
    ledger: Ledger
    time_estimate: TimeEstimate
    safety: Safety

    def next_job(self, worker: "Worker") -> Job | None: ...

    def step_done(self) -> None: ...

    def job_over(self, worker: "Worker", job: Job) -> None: ...

    def worker_changed(self) -> None: ...

    @property
    def closing_reason(self) -> str: ...


class Worker:
    """Read `status`, `provenance` and `job`; everything else is its own."""

    def __init__(self, load: Load, foreman: Foreman, number: int) -> None:
        self.number = number
        self.status = ServerStatus()
        self.provenance: dict[str, Any] = {}
        self.job: Job | None = None
        self._last: Progress | None = None
        self._load = load
        self._foreman = foreman
        self.thread = threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)

    def _work(self) -> None:
        try:
            pipeline = self._loaded()
        except Exception as error:
            expected = isinstance(error, USOError)
            logger.error("The model could not be loaded: %s", error, exc_info=not expected)
            self._reach(state="failed", error=f"The model could not be loaded. {sentence(error)}")
            return
        while self.status.state == "ready" and self._make_next(pipeline):
            pass

    def _make_next(self, pipeline: Pipeline) -> bool:
        """Make the job whose turn it is; False when there will be none any more."""
        try:
            job = self._foreman.next_job(self)
            if job is None:
                return False
            self._run(pipeline, job)
            self._foreman.job_over(self, job)
        except Exception:  # a worker that is gone would be missed by nobody but those who wait
            logger.exception("Worker %d goes on after something unexpected.", self.number)
            time.sleep(1.0)
        return True

    def _loaded(self) -> Pipeline:
        def on_progress(stage: str, share: float) -> None:
            self._reach(state="loading", stage=stage, share=share)

        on_progress("importing the program", 0.0)
        pipeline = self._load(on_progress)
        self.provenance = dict(pipeline.provenance)
        self._reach(state="ready", stage="ready", share=1.0)
        return pipeline

    def _reach(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        self._foreman.worker_changed()

    # One job.

    def _run(self, pipeline: Pipeline, job: Job) -> None:
        wanted, self._last = job.request.num_images, None
        try:
            with closing(pipeline.stream(job.request)) as events:
                for event in events:
                    if isinstance(event, GenerationResult):
                        self._keep(event, job)
                    else:
                        self._note(pipeline, event, job)
                    if job.stop.is_set() and len(job.status.pictures) < wanted:
                        break
            if len(job.status.pictures) == wanted:
                job.reach(state="done", preview=None)
            else:
                job.reach(state="cancelled", preview=None, error=job.stopped_because or self._foreman.closing_reason)
        except Exception as error:
            logger.exception("Job %s failed.", job.name)
            job.reach(state="failed", preview=None, error=sentence(error, job.name))
            if isinstance(error, DeviceError):  # else this worker, always free at once, would take all that wait
                self._reach(state="failed", error=str(error))

    def _note(self, pipeline: Pipeline, event: Progress, job: Job) -> None:
        """Put a pipeline's progress into the job's status."""
        changes: dict[str, Any] = {"stage": event.stage, "step": event.step, "num_steps": event.num_steps}
        if event.stage == "denoise":
            self._measure(event, job)
            every = -(-event.num_steps // PREVIEWS)
            # With a filter there are none: it is asked about finished pictures.
            if event.step % every == 0 and event.step < event.num_steps and not self._foreman.safety.asks:
                changes["preview"] = self._preview(pipeline, event, job)
        changes["ends_at"] = self._ends_at(event, job)
        job.reach(**changes)
        self._foreman.step_done()

    def _measure(self, event: Progress, job: Job) -> None:
        """Seconds of the step that just ended; a picture's first one is mixed with preparations and not counted."""
        last, self._last = self._last, event
        if last is None or (last.image_index, last.step + 1) != (event.image_index, event.step):
            return
        job.step_seconds.append(event.seconds - last.seconds)
        if self._foreman.time_estimate.step(job.request) is None:
            self._foreman.time_estimate.note(job.request, step=job.step_seconds[-1])

    def _ends_at(self, event: Progress, job: Job) -> float | None:
        """When the job will be over, by its own steps, or by those of earlier ones before it has any."""
        time_estimate, request = self._foreman.time_estimate, job.request
        step = median(job.step_seconds) if job.step_seconds else time_estimate.step(request)
        if step is None:
            return None
        more = request.num_images - 1 - event.image_index
        steps = more * request.num_inference_steps
        if event.stage != "decode":
            steps += request.num_inference_steps - (event.step if event.stage == "denoise" else 0)
        return time.monotonic() + steps * step + (1 + more) * time_estimate.after(request)

    def _preview(self, pipeline: Pipeline, event: Progress, job: Job) -> bytes | None:
        """The picture as it is predicted now. One that cannot be made costs nothing but itself."""
        try:
            image = pipeline.preview(event)
            if image is None:
                return None
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=PREVIEW_QUALITY)
        except Exception:
            logger.warning("Job %s has no preview.", job.name, exc_info=True)
            return None
        return buffer.getvalue()

    def _keep(self, result: GenerationResult, job: Job) -> None:
        """Save a finished picture, enter it into the ledger, then tell."""
        self._foreman.safety.check_picture(result.request.prompt, result.image)
        self._last = None
        path = served(job, result, self._foreman.settings.output)
        picture = Picture(
            id=uuid.uuid4().hex,
            path=path,
            width=result.request.width,
            height=result.request.height,
            seed=result.request.seed,
            num_inference_steps=result.request.num_inference_steps,
            seconds=sum(result.timings.values()),
        )
        try:
            self._foreman.ledger.keep(job, picture, result.image)
        except sqlite3.Error:
            logger.exception("Picture %s is saved, but could not be entered into the ledger.", path.name)
        for stage, seconds in result.timings.items():
            job.timings[stage] = job.timings.get(stage, 0.0) + seconds
        self._learn(result, job)
        job.reach(pictures=(*job.status.pictures, picture))

    def _learn(self, result: GenerationResult, job: Job) -> None:
        if not job.step_seconds:
            return
        step, timings = median(job.step_seconds), result.timings
        steps = result.request.num_inference_steps * step
        self._foreman.time_estimate.note(
            job.request,
            before=timings.get("condition", 0.0) + max(0.0, timings.get("denoise", 0.0) - steps),
            step=step,
            after=timings.get("decode", 0.0),
        )


def sentence(error: Exception, job: str = "") -> str:
    """What a person is told; the log has the traceback."""
    if isinstance(error, USOError):
        return str(error)
    where = f" under {job}" if job else ""
    return f"Something unexpected happened ({type(error).__name__}); the server's log says more{where}."
