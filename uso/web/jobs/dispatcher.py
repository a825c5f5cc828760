"""The workers' side of the queue: what they take next, what becomes of it, and when queued jobs are expected to start.

`JobQueue` admits the jobs. The condition `changed` holds the queue's lock, and both take it; nothing is written to the
disk while it is held.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uso.errors import USOError, WorkerLost
from uso.language import Text, text_of
from uso.web.jobs.errands import Errand, Errands
from uso.web.jobs.fair_queue import FairQueue
from uso.web.jobs.job import Job, Load, Pipeline, Records, ServerStatus, State, Turn
from uso.web.jobs.safety import Safety
from uso.web.jobs.time_estimate import TimeEstimate
from uso.web.jobs.worker import Worker, status_of

logger = logging.getLogger(__name__)

LAST_STEP_SECONDS = 10.0
"""How long a job that is stopped at shutdown may take to end its step."""

FORECAST_SECONDS = 1.0
"""How often queued jobs learn how far the running jobs are."""

MAX_LOST = 1
"""How many workers a job may lose before it fails: it might be the job that ends them."""


class Dispatcher:
    """Hands queued jobs and errands to the workers, by turns. Others read `status`, a frozen snapshot."""

    def __init__(
        self,
        loads: Load | Sequence[Load],
        *,
        output_folder: Path,
        records: Records,
        safety: Safety,
        on_over: Callable[[Job], None],
    ) -> None:
        """
        Args:
            loads: one function for each worker, which loads its model; called in the worker's thread.
            output_folder: where pictures are saved.
            on_over: called, without the lock, with every job that has run, or cannot run any more.
        """
        self.status = ServerStatus()
        self.changed = threading.Condition()
        self.queued: FairQueue[Job] = FairQueue()
        """Read it with `changed` held."""
        self.closing = ""
        """Why no more jobs are admitted; empty while they are."""
        self._closed_at: float | None = None
        self._on_over = on_over
        self._errands = Errands()
        self._running: list[Job] = []
        self._saving: list[Job] = []
        """Their worker is free again, but their last picture is still on its way to the disk."""
        self._time_estimate = TimeEstimate()
        self._forecast_at = 0.0
        self._began = time.monotonic()
        self._settled: float | None = None
        """When the model was ready or had failed."""
        self.workers = [
            Worker(
                number,
                load,
                output_folder=output_folder,
                records=records,
                safety=safety,
                time_estimate=self._time_estimate,
                on_change=self._worker_changed,
            )
            for number, load in enumerate([loads] if callable(loads) else loads)
        ]

    @property
    def loading_seconds(self) -> float:
        """From the start until the model was ready or had failed, or until now."""
        return (self._settled or time.monotonic()) - self._began

    @property
    def busy(self) -> bool:
        """Whether a job is running, or its pictures are being saved."""
        return bool(self._running or self._saving)

    def start(self) -> None:
        self._began = time.monotonic()
        for worker in self.workers:
            worker.start(self._next_job, self._job_made, self._job_over, self._job_lost)

    def join(self, grace: float) -> bool:
        """Wait for the running jobs; stop them `grace` seconds after `close`. True if all threads have ended."""
        # A thread that still loads its model has nothing to lose: it ends with the process.
        loaded = [worker.thread for worker in self.workers if not worker.loading or worker.status.state == "failed"]
        end = (self._closed_at or time.monotonic()) + grace
        for thread in loaded:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in loaded):
            with self.changed:
                for job in self._running:
                    job.stop.set()
            end = time.monotonic() + LAST_STEP_SECONDS
            for thread in loaded:
                thread.join(max(0.0, end - time.monotonic()))
        return len(loaded) == len(self.workers) and not any(thread.is_alive() for thread in loaded)

    # Called by the queue, with `changed` held.

    def check_open(self) -> None:
        """
        Raises:
            USOError: the server closes, or the model has failed.
        """
        if self.closing or self.status.state == "failed":
            raise USOError(self.closing or self.status.error)

    def ask(self, work: Callable[[Pipeline], Any], person: str) -> Errand:
        """Have a worker's model do something short, between two jobs.

        Raises:
            USOError: not now, in a sentence.
        """
        self.check_open()
        errand = Errand(work, person)
        self._errands.add(errand)
        self.changed.notify()
        return errand

    def add(self, job: Job) -> None:
        """Queue a job, or end it at once if the server closes or the model has failed."""
        failed = self.status.state == "failed"
        if self.closing or failed:
            job.end_unstarted("failed" if failed else "cancelled", self.closing or self.status.error)
        else:
            self.queued.add(job)
            self._forecast()
            self.changed.notify()

    def remove(self, job_id: str, reason: str) -> Job | None:
        """Cancel a queued job; None if it is not queued."""
        job = self.queued.remove(job_id)
        if job is not None:
            job.end_unstarted("cancelled", reason)
            self._forecast()
        return job

    def seconds_to_next(self) -> float | None:
        """Seconds until the next queued job starts, and leaves room for another, if that is known."""
        waits = [job.status.seconds_to_start for job in self.queued]
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def close(self, reason: str) -> list[Job]:
        """Take no more jobs and errands, and cancel the queued jobs, which are returned; running jobs go on."""
        self.closing = self.closing or reason
        self._closed_at = self._closed_at or time.monotonic()
        for job in self._running:  # the reason if they are stopped, by `join` or by people
            job.stop_reason = job.stop_reason or self.closing
        cancelled = self._clear("cancelled", self.closing)
        self._errands.refuse(self.closing)
        self.changed.notify_all()
        return cancelled

    # Called by the workers, in their threads; `_job_over` and `_job_lost` in the thread that saves.

    def _next_job(self, worker: int) -> Job | Errand | None:
        """Wait for the next job or errand, by turns; None when the server shuts down.

        Raises:
            WorkerLost: this worker is not ready any more.
        """

        def gone() -> bool:
            return self.workers[worker].status.state != "ready"

        with self.changed:
            self.changed.wait_for(lambda: len(self.queued) or self._errands or self.closing or gone())
            if gone() and not self.closing:
                self.changed.notify()  # whoever can take what waits
                raise WorkerLost()
            errand = self._errands.take(jobs_wait=len(self.queued) > 0)
            if errand is not None:
                return errand
            job = self.queued.take()
            if job is None:
                return None
            self._running.append(job)
            job.worker = worker
            job.started_at = time.monotonic()
            seconds = self._time_estimate.seconds(job.request)
            job.reach(
                state="running",
                stage="condition",
                starts_at=None,
                ends_at=None if seconds is None else job.started_at + seconds,
            )
            self._forecast()
            return job

    def _job_made(self, job: Job) -> None:
        """Its worker has nothing more to do for it."""
        with self.changed:
            self._running.remove(job)
            self._saving.append(job)
            job.ended_at = time.monotonic()
            self.queued.finished(job.person)
            self._forecast()

    def _job_over(self, job: Job) -> None:
        """What it made is saved."""
        try:
            self._on_over(job)
        finally:
            with self.changed:
                self._saving.remove(job)

    def _job_lost(self, job: Job, error: WorkerLost) -> None:
        """Its worker was lost. What it had made by then is saved; the rest is made by the next worker that is free."""
        with self.changed:
            self._saving.remove(job)
            assert job.worker is not None and job.started_at is not None and job.ended_at is not None
            stopped = job.stop.is_set() or bool(self.closing)
            if not stopped and len(job.lost) < MAX_LOST and self.status.state != "failed":
                job.lost.append(Turn(job.worker, job.started_at, job.ended_at))
                job.worker = job.started_at = job.ended_at = None
                job.reach(state="queued", stage="", step=0, preview=None, ends_at=None)
                self.queued.put_back(job)
                self._forecast()
                self.changed.notify()
                return
        if stopped:
            job.reach(state="cancelled", error=job.stop_reason or self.closing)
        else:
            logger.error("Job %s has lost its worker again, and is not tried a third time.", job.name)
            job.reach(state="failed", preview=None, error=Text("{} Send it again.", text_of(error)))
        self._on_over(job)

    def _worker_changed(self) -> None:
        """A worker has come further with its model or its job, or has failed, or is lost."""
        failed: list[Job] = []
        with self.changed:
            was, self.status = self.status, self._summary()
            if self.status.state in ("ready", "failed") and self._settled is None:
                self._settled = time.monotonic()
                if self.status.state == "ready":
                    logger.info("The model is ready after %.1f s.", self.loading_seconds)
            if self.status.workers_ready < was.workers_ready:
                logger.warning("%d of %d workers are ready.", self.status.workers_ready, self.status.workers)
                self.changed.notify_all()  # it may be waiting for a job
            if self.status.notice and self.status.notice != was.notice:
                logger.warning("%s", self.status.notice)
            if self.status.state == "failed":
                failed = self._clear("failed", self.status.error)
                self._errands.refuse(self.status.error)
            elif len(self.queued) and time.monotonic() - self._forecast_at >= FORECAST_SECONDS:
                self._forecast()
        for job in failed:
            self._on_over(job)

    # With `changed` held.

    def _summary(self) -> ServerStatus:
        return replace(status_of(self.workers), waiting=len(self.queued), running=len(self._running))

    def _forecast(self) -> None:
        """Update the position and expected start of every queued job."""
        self._forecast_at = now = time.monotonic()
        self.status = self._summary()
        running = [(job, job.status.seconds_left) for job in self._running]
        workers = max(1, self.status.workers_ready)
        for position in self.queued.positions(running, lambda job: self._time_estimate.seconds(job.request), workers):
            starts_at = None if position.seconds is None else now + position.seconds
            position.job.reach(ahead=position.ahead, pictures_ahead=position.pictures_ahead, starts_at=starts_at)

    def _clear(self, state: State, error: str) -> list[Job]:
        """End all queued jobs and return them."""
        jobs = self.queued.clear()
        for job in jobs:
            job.end_unstarted(state, error)
        return jobs
