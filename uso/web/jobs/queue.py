"""The engine: workers that each own a model, one fair line of jobs before them, and the word on both.

Knows nothing of pages and routes, and imports no torch. What others may look at (`Engine.status`, `Job.status`) are
frozen snapshots; jobs are asked after, and stopped, by their unguessable ids.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from uso.errors import USOError
from uso.request import GenerationRequest
from uso.web.access.identity import Asker
from uso.web.jobs.admission import Admission, Place
from uso.web.jobs.fair_queue import FairQueue
from uso.web.jobs.followers import Orphans
from uso.web.jobs.job import Job, JobStatus, Load, ServerStatus
from uso.web.jobs.roll import Roll
from uso.web.jobs.safety import Safety
from uso.web.jobs.time_estimate import TimeEstimate
from uso.web.jobs.worker import Worker
from uso.web.settings import ServerSettings
from uso.web.store.ledger import Ledger

logger = logging.getLogger(__name__)

SHUTTING_DOWN = "The server is shutting down. Send it again in a moment."
ORPHANED = "The page that asked for it was closed."

LAST_STEP_SECONDS = 10.0
"""How long a stopped job may take to get to the end of its step when the server ends."""

LOOK_SECONDS = 1.0
"""How often those that wait learn how far the jobs in the making have come."""


class JobQueue:
    """Loads the models behind the caller's back, then makes the jobs as their turns come."""

    def __init__(
        self,
        loads: Load | Sequence[Load],
        settings: ServerSettings,
        *,
        safety: Safety | None = None,
        on_over: Callable[[Job], None] = lambda job: None,
    ) -> None:
        """
        Args:
            loads: bring the models, one for each worker; called in the workers' threads.
            safety: is asked about prompts and pictures.
            on_over: told of every job that is over, however it ended.

        Raises:
            OutputError: the output folder cannot be written to.
        """
        self.settings = settings
        self.safety = safety or Safety()
        self.time_estimate = TimeEstimate()
        self.ledger = Ledger(settings.output)
        self.status = ServerStatus()
        self._admission = Admission(settings)
        self._on_over = on_over
        self._changed = threading.Condition()
        self._line: FairQueue[Job] = FairQueue()
        self._places: set[Place] = set()
        """Held for requests that are admitted and not in line yet."""
        self.roll = Roll()
        self._orphans = Orphans(settings.orphan_grace, self._give_up)
        self._closing = ""
        self._closed_at: float | None = None
        self._began = time.monotonic()
        self._settled: float | None = None
        self._looked_at = 0.0
        several = [loads] if callable(loads) else list(loads)
        self.workers = [Worker(load, self, number) for number, load in enumerate(several)]

    # For everybody.

    @property
    def provenance(self) -> dict[str, Any]:
        """What the loaded model says of itself; empty before it is ready."""
        return next((worker.provenance for worker in self.workers if worker.provenance), {})

    @property
    def loading_seconds(self) -> float:
        """Since the start, until the model was ready or had failed."""
        return (self._settled or time.monotonic()) - self._began

    @property
    def busy(self) -> bool:
        """Whether a job is in the making."""
        return any(worker.job is not None for worker in self.workers)

    @property
    def closing_reason(self) -> str:
        """Why no more jobs are taken; empty while they are."""
        return self._closing

    def start(self) -> None:
        self._began = time.monotonic()
        self._orphans.start()
        for worker in self.workers:
            worker.thread.start()

    def admit(self, asker: Asker, image_bytes: int = 0) -> Place:
        """Reserve a place for a request, before its images are read. Counts for the rate limit.

        The place is held until `submit` has turned it into a job, or `release` gives it up.

        Args:
            asker: whose turn the request takes, and whose history its picture joins.
            image_bytes: size of its images.

        Raises:
            USOError: not now, in a sentence: a limit, a full disk, a server that closes, a model that failed.
        """
        self._admission.check_disk()
        place = Place(asker, image_bytes)
        with self._changed:
            if self._closing or self.status.state == "failed":
                raise USOError(self._closing or self.status.error)
            waiting = [*self._line, *self._places]
            self._admission.check_queue(
                waiting=len(waiting),
                waiting_of_person=sum(one.person == asker.person for one in waiting),
                waiting_bytes=image_bytes + sum(one.image_bytes for one in waiting),
                seconds=self._next_turn_in(),
            )
            self._admission.check_rate(asker.person)
            self._places.add(place)
        return place

    def release(self, place: Place) -> None:
        """Give up a place, unless its request has been submitted."""
        with self._changed:
            self._places.discard(place)

    def submit(self, request: GenerationRequest, place: Place) -> Job:
        """Put an admitted request into the queue, where it may wait for the model as well.

        Raises:
            USOError: the filter blocks it, or the ledger cannot be written.
        """
        self.safety.check_prompt(request.prompt)
        job = Job(request, place.asker)
        try:  # writes to the disk, so it does not hold the lock
            self.ledger.accepted(job)
        except sqlite3.Error as error:
            logger.exception("Job %s could not be entered into the ledger.", job.name)
            raise USOError(self._closing or "The server cannot write to its disk. Tell the one who runs it.") from error
        self.roll.enter(job)
        with self._changed:
            self._places.discard(place)
            job.accepted_at = time.monotonic()
            failed = self.status.state == "failed"
            if self._closing or failed:
                job.leave_line(state="failed" if failed else "cancelled", error=self._closing or self.status.error)
            else:
                self._line.add(job)
                self._look_ahead()
                self._changed.notify()
        if job.status.over:
            self._over(job)
        return job

    def find(self, job_id: str) -> Job | None:
        """A job that is not over, or was not long ago."""
        return self.roll.find(job_id)

    def outcome(self, job_id: str) -> JobStatus | None:
        """What a job has reached, of an earlier server too; None if there never was one."""
        job = self.find(job_id)
        if job is not None:
            return job.status
        past = self.ledger.outcome(job_id)
        return None if past is None else JobStatus(state=past[0], error=past[1], pictures=past[2])

    def cancel(self, job_id: str, reason: str = "") -> bool:
        """Stop a job: at once if it waits, after the step it is at if it runs. False if there is none such."""
        with self._changed:
            job = self._line.remove(job_id)
            if job is not None:
                job.leave_line(state="cancelled", error=reason)
                self._look_ahead()
            else:
                running = self.find(job_id)
                if running is None or running.status.over:
                    return False
                running.stopped_because = running.stopped_because or reason
                running.stop.set()
        if job is not None:
            self._over(job)
        return True

    def expect(self, job: Job) -> None:
        """A stream is about to follow a new job; one that never comes leaves an orphan."""
        if self.settings.orphans == "cancel" and not self._closing:
            self._orphans.expect(job)

    def attach(self, job: Job, watcher: str) -> None:
        """A stream follows a job; as long as one does, it is nobody's orphan."""
        self._orphans.attach(job, watcher)

    def detach(self, job: Job, watcher: str) -> None:
        """A stream that followed a job has ended early; a job that nobody follows any more is stopped after a while."""
        if self.settings.orphans == "cancel" and not self._closing:
            self._orphans.detach(job, watcher)

    def _give_up(self, job: Job) -> None:
        logger.info("Job %s is stopped: nobody waits for it any more.", job.name)
        self.cancel(job.id, ORPHANED)

    # The end.

    def close(self, reason: str = SHUTTING_DOWN) -> None:
        """Take no more jobs and tell those that wait; those that run are finished. Returns at once."""
        with self._changed:
            self._closing = self._closing or reason
            self._orphans.end()
            self._closed_at = self._closed_at or time.monotonic()
            told = self._line.clear()
            for job in told:
                job.leave_line(state="cancelled", error=self._closing)
            self._changed.notify_all()
        for job in told:
            self._over(job)

    def join(self, grace: float) -> bool:
        """Wait for the jobs that run, and stop them `grace` seconds after `close`. True if all threads have ended."""
        loaded = [worker.thread for worker in self.workers if worker.status.state in ("ready", "failed")]
        end = (self._closed_at or time.monotonic()) + grace
        for thread in loaded:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in loaded):
            for worker in self.workers:
                if (job := worker.job) is not None:
                    job.stop.set()
            end = time.monotonic() + LAST_STEP_SECONDS
            for thread in loaded:
                thread.join(max(0.0, end - time.monotonic()))
        # A thread that still loads has nothing to lose: it ends with the process.
        return len(loaded) == len(self.workers) and not any(thread.is_alive() for thread in loaded)

    # For the workers.

    def next_job(self, worker: Worker) -> Job | None:
        """The job whose turn it is, as soon as there is one; None when the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._line) or self._closing)
            job = self._line.take()
            if job is None:
                return None
            worker.job, job.worker = job, worker.number
            job.started_at = time.monotonic()
            seconds = self.time_estimate.seconds(job.request)
            job.reach(
                state="running",
                stage="condition",
                starts_at=None,
                ends_at=None if seconds is None else job.started_at + seconds,
            )
            self._look_ahead()
            return job

    def step_done(self) -> None:
        """A job has come further: those that wait learn when their turn will come now, once a second."""
        with self._changed:
            if len(self._line) and time.monotonic() - self._looked_at >= LOOK_SECONDS:
                self._look_ahead()

    def job_over(self, worker: Worker, job: Job) -> None:
        with self._changed:
            worker.job = None
            job.ended_at = time.monotonic()
            self._line.finished(job.person)
            self._look_ahead()
        self._over(job)

    def worker_changed(self) -> None:
        """A worker has come further with its model, or has failed to load it."""
        failed: list[Job] = []
        with self._changed:
            was, self.status = self.status.state, self._summary()
            if self.status.state in ("ready", "failed") and self._settled is None:
                self._settled = time.monotonic()
            if self.status.state == "ready" and was != "ready":
                logger.info("The model is ready after %.1f s.", self.loading_seconds)
            if self.status.state == "failed":
                failed = self._line.clear()
                for job in failed:
                    job.leave_line(state="failed", error=self.status.error)
        for job in failed:
            self._over(job)

    # Inside; `_changed` is held unless it says otherwise.

    def _summary(self) -> ServerStatus:
        """One word for all workers: ready if one is, failed if all are."""
        states = [worker.status for worker in self.workers]
        ready = [status for status in states if status.state == "ready"]
        coming = [status for status in states if status.state in ("starting", "loading")]
        first = (ready or sorted(coming, key=lambda status: -status.share) or states)[0]
        errors = dict.fromkeys(status.error for status in states if status.error)
        return replace(
            first,
            error=" ".join(errors),
            workers=len(states),
            workers_ready=len(ready),
            waiting=len(self._line),
            running=sum(worker.job is not None for worker in self.workers),
        )

    def _look_ahead(self) -> None:
        """Tell every waiting job how many are before it, and when its turn is expected."""
        self._looked_at = now = time.monotonic()
        making = [(job, job.status.seconds_left) for worker in self.workers if (job := worker.job) is not None]
        ready = max(1, sum(worker.status.state == "ready" for worker in self.workers))
        for turn in self._line.turns(making, lambda job: self.time_estimate.seconds(job.request), ready):
            starts_at = None if turn.seconds is None else now + turn.seconds
            turn.job.reach(ahead=turn.ahead, starts_at=starts_at)
        self.status = self._summary()

    def _next_turn_in(self) -> float | None:
        """Seconds until a place in the line is free, if that is known."""
        waits = [job.status.seconds_to_start for job in self._line]
        known = [seconds for seconds in waits if seconds is not None]
        return min(known) if known else None

    def _over(self, job: Job) -> None:
        """What a job came to, once, without `_changed`: in the ledger, in the log, and its references' bytes let go."""
        try:
            self.ledger.ended(job)
        except sqlite3.Error:
            logger.exception("Job %s could not be closed in the ledger.", job.name)
        job.request = replace(job.request, content_images=(), style_images=())
        try:
            self._on_over(job)
        except Exception:
            logger.exception("Job %s is over, but not everybody could be told.", job.name)
        self.roll.close(job)
