"""One worker: loads a model in a thread of its own, then runs one job at a time.

It imports no torch itself (`load` brings the model) and does not choose its jobs. Others read its results in the job's
status. A finished picture is on the disk, and in the records, before its job's status names it. Pictures are saved in a
thread beside it (`saving.py`): the next picture, or the next job, does not wait for the disk.

A model that works elsewhere may be lost (`WorkerLost`). Its worker then gives its job back, and loads again.
"""

import io
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from uso.errors import DeviceError, USOError, WorkerLost
from uso.language import Text, joined, text_of
from uso.request.request import GenerationResult, Progress
from uso.system.packages import import_problem
from uso.web.jobs.errands import Errand
from uso.web.jobs.job import Job, Load, Pipeline, Records, ServerStatus
from uso.web.jobs.safety import Safety
from uso.web.jobs.saving import OnJob, OnLost, Outcome, Saving, sentence
from uso.web.jobs.time_estimate import TimeEstimate

logger = logging.getLogger(__name__)

NextJob = Callable[[int], Job | Errand | None]

PREVIEWS = 8
"""The most previews that a picture has, spread evenly over its steps."""

PREVIEW_QUALITY = 80


class Worker:
    """Others read `status` and `provenance`; the rest belongs to the worker's thread.

    Args:
        number: its number among all workers.
        output_folder: where its pictures are saved.
        on_change: called after every change of its status and every step of its job.
    """

    def __init__(
        self,
        number: int,
        load: Load,
        *,
        output_folder: Path,
        records: Records,
        safety: Safety,
        time_estimate: TimeEstimate,
        on_change: Callable[[], None],
    ) -> None:
        self.number = number
        self.status = ServerStatus()
        self.provenance: dict[str, Any] = {}
        self.count_tokens: Callable[[str], int | None] | None = None
        """The model's count of a prompt's tokens, for any thread; None before it is loaded, or if it has none."""
        self.loading = True
        """Its thread has nothing to lose: it has no job, and nothing to save."""
        self.projector = ""
        """Fingerprint of the model's style projector."""
        self.thread: threading.Thread
        """Once started."""
        self._load = load
        self._saved_to = output_folder
        self._records = records
        self._safety = safety
        self._time_estimate = time_estimate
        self._on_change = on_change
        self._last: Progress | None = None
        self._made_before = 0
        """Pictures of the job that another worker made."""
        self._reporting = threading.Lock()

    def start(self, next_job: NextJob, job_made: OnJob, job_over: OnJob, job_lost: OnLost) -> None:
        """In a thread, load the model, then run jobs until there are no more. The thread ends when all is saved.

        Args:
            next_job: waits for a job or errand for the worker of this number; returns None when the server shuts down.
                Raises `WorkerLost` if the worker is not ready any more.
            job_made: called with each job that was run, when the worker is free again.
            job_over: called with each of them after that, when what it made is saved.
            job_lost: called instead if the worker was lost before the job was done.
        """
        self.thread = threading.Thread(
            target=self._work, args=(next_job, job_made, job_over, job_lost), name=f"worker-{self.number}", daemon=True
        )
        self.thread.start()

    def _work(self, next_job: NextJob, job_made: OnJob, job_over: OnJob, job_lost: OnLost) -> None:
        """The thread. However it ends before the server does, its status says so, and so does the log."""
        again = True
        while again:
            try:
                pipeline = self._loaded()
            except BaseException as error:
                problem = import_problem(error)
                expected = isinstance(error, USOError) or problem is not None
                logger.error("The model could not be loaded: %s", problem or error, exc_info=not expected)
                told = Text("The model could not be loaded. {}", problem or sentence(error))
                self._report(state="failed", error=told)
                return
            saving = Saving(self._saved_to, self._records, self._safety, f"saving-{self.number}", self._report_end)
            again = False
            try:
                again = self._serve(pipeline, saving, next_job, job_made, job_over, job_lost)
            except BaseException as error:
                self._report_end(error)
            finally:
                saving.end()

    def _report_end(self, error: BaseException) -> None:
        logger.critical("Worker %d has ended and takes no more jobs.", self.number, exc_info=error)
        self._report(state="failed", error=Text("Worker {} has ended. Start the server again.", self.number))

    def _serve(
        self,
        pipeline: Pipeline,
        saving: Saving,
        next_job: NextJob,
        job_made: OnJob,
        job_over: OnJob,
        job_lost: OnLost,
    ) -> bool:
        """Run jobs until there are no more. True if the model was lost, and is to be loaded again."""
        while self.status.state == "ready":
            try:
                try:
                    job = next_job(self.number)
                except WorkerLost:
                    break
                if job is None:
                    return False
                if isinstance(job, Errand):
                    job.run(pipeline)
                    continue
                outcome = Outcome()
                try:
                    self._run(pipeline, saving, job, outcome)
                finally:
                    try:
                        job_made(job)
                    finally:
                        saving.close(job, outcome, job_over, job_lost)
            except Exception:  # without its thread the worker would look ready and take no jobs
                logger.exception("Worker %d goes on after an unexpected error.", self.number)
                time.sleep(1.0)
        return self.status.state == "loading"

    def _loaded(self) -> Pipeline:
        def on_progress(stage: str, share: float) -> None:
            self.count_tokens = None  # first: a lost model is told from another thread, while this one waits for a job
            self._report(state="loading", stage=stage, share=share)

        self.loading = True
        on_progress(Text("importing the program"), 0.0)
        pipeline = self._load(on_progress)
        self.provenance = dict(pipeline.provenance)
        self.count_tokens = pipeline.prompt_counter()
        self.projector = pipeline.projector
        self.loading = False
        self._report(state="ready", stage="ready", share=1.0)
        return pipeline

    def _report(self, **changes: Any) -> None:
        with self._reporting:  # that a model is lost may be seen in another thread
            self.status = replace(self.status, **changes)
        self._on_change()

    # One job.

    def _run(self, pipeline: Pipeline, saving: Saving, job: Job, outcome: Outcome) -> None:
        self._last, self._made_before, request = None, len(job.status.pictures), job.rest
        # In a thread of its own: a slow disk must not hold up the job.
        threading.Thread(target=self._record_start, args=(job,), name="record", daemon=True).start()
        try:
            with closing(pipeline.stream(request)) as events:
                for event in events:
                    if isinstance(event, GenerationResult):
                        self._made(event, job)
                        outcome.made += 1
                        saving.keep(event, job, outcome)
                    else:
                        self._note(pipeline, event, job)
                    if outcome.error or (job.stop.is_set() and outcome.made < request.num_images):
                        break
        except WorkerLost as error:
            logger.warning("Worker %d was lost while it ran job %s: %s", self.number, job.name, error)
            outcome.lost = error
        except BaseException as error:  # SystemExit of a library too: it is this job's failure, not the worker's
            outcome.error = outcome.error or error
            if isinstance(error, DeviceError):  # a dead device fails at once: it would take, and fail, every queued job
                self._report(state="failed", error=text_of(error))

    def _record_start(self, job: Job) -> None:
        try:
            self._records.started(job)
        except sqlite3.Error as error:
            logger.warning("The ledger could not be told that job %s runs (%s).", job.name, error)

    def _note(self, pipeline: Pipeline, event: Progress, job: Job) -> None:
        """Report a pipeline's progress in the job's status."""
        changes: dict[str, Any] = {
            "stage": event.stage,
            "step": event.step,
            "num_steps": event.num_steps,
            "making": self._made_before + event.image_index + 1,
        }
        if event.stage == "denoise":
            self._measure(event, job)
            every = -(-event.num_steps // PREVIEWS)
            # No previews with a filter: it checks finished pictures only.
            if event.step % every == 0 and event.step < event.num_steps and not self._safety.active:
                changes["preview"] = self._preview(pipeline, event, job)
        changes["ends_at"] = self._ends_at(event, job)
        job.reach(**changes)
        self._on_change()

    def _measure(self, event: Progress, job: Job) -> None:
        """Measure the step that just ended; a picture's first step includes preparations and does not count."""
        last, self._last = self._last, event
        if last is None or (last.image_index, last.step + 1) != (event.image_index, event.step):
            return
        job.step_seconds.append(event.seconds - last.seconds)
        if self._time_estimate.step(job.request) is None:
            self._time_estimate.note(job.request, step=job.step_seconds[-1])

    def _ends_at(self, event: Progress, job: Job) -> float | None:
        """When the job will end, by its own measured steps, or by those of earlier jobs before it has any."""
        time_estimate, request = self._time_estimate, job.request
        step = median(job.step_seconds) if job.step_seconds else time_estimate.step(request)
        if step is None:
            return None
        more = request.num_images - 1 - self._made_before - event.image_index
        steps = more * request.num_inference_steps
        if event.stage != "decode":
            steps += request.num_inference_steps - (event.step if event.stage == "denoise" else 0)
        return time.monotonic() + steps * step + (1 + more) * time_estimate.after(request)

    def _preview(self, pipeline: Pipeline, event: Progress, job: Job) -> bytes | None:
        """The picture as predicted now, as WebP; None if it cannot be made. A failure does not fail the job."""
        try:
            image = pipeline.preview(event)
            if image is None:
                return None
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=PREVIEW_QUALITY)
        except WorkerLost:
            raise
        except Exception:
            logger.warning("Job %s has no preview.", job.name, exc_info=True)
            return None
        return buffer.getvalue()

    def _made(self, result: GenerationResult, job: Job) -> None:
        """Note what a picture took, and that the next one begins."""
        self._last = None
        for stage, seconds in result.timings.items():
            job.timings[stage] = job.timings.get(stage, 0.0) + seconds
        self._learn(result, job)
        if job.status.making < job.request.num_images:
            job.reach(stage="denoise", step=0, preview=None, making=job.status.making + 1)

    def _learn(self, result: GenerationResult, job: Job) -> None:
        if not job.step_seconds:
            return
        step, timings = median(job.step_seconds), result.timings
        steps = result.request.num_inference_steps * step
        self._time_estimate.note(
            job.request,
            before=timings.get("condition", 0.0) + max(0.0, timings.get("denoise", 0.0) - steps),
            step=step,
            after=timings.get("decode", 0.0),
        )


def status_of(workers: Sequence[Worker]) -> ServerStatus:
    """One status for all workers: ready if one is ready, failed if all have failed."""
    statuses = [worker.status for worker in workers]
    ready = [status for status in statuses if status.state == "ready"]
    coming = [status for status in statuses if status.state in ("starting", "loading")]
    first = (ready or sorted(coming, key=lambda status: -status.share) or statuses)[0]
    errors = dict.fromkeys(status.error for status in statuses if status.error)
    return replace(
        first, error=joined(*errors), notice=_notice(workers), workers=len(statuses), workers_ready=len(ready)
    )


def _notice(workers: Sequence[Worker]) -> str:
    ready = [worker.provenance for worker in workers if worker.status.state == "ready"]
    cards = {str(each["device"]) for each in ready if "device" in each}
    if len(cards) < 2:
        return ""
    return Text(
        "The workers run on different cards ({}). The same seed may give different pictures on them.",
        ", ".join(sorted(cards)),
    )
