"""The queue: admitted jobs wait in a fair queue, and the workers' threads take them from there.

It knows no pages and no routes, and imports no torch. Others read `JobQueue.status` and `Job.status`, which are frozen
snapshots, and find and cancel jobs by their unguessable ids. Everything here may be called from any thread. One lock,
`_changed`, guards the queue; nothing is written to the disk while it is held.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from uso.errors import USOError, WorkerLost
from uso.language import Text, text_of
from uso.request import GenerationRequest
from uso.translation import Translator
from uso.web.access.identity import Asker
from uso.web.jobs.admission import Admission, Place
from uso.web.jobs.errands import Errand, Errands
from uso.web.jobs.fair_queue import FairQueue
from uso.web.jobs.followers import Followers
from uso.web.jobs.job import Job, Load, Pipeline, Records, ServerStatus, State, Turn
from uso.web.jobs.job_index import JobIndex
from uso.web.jobs.safety import Safety
from uso.web.jobs.time_estimate import TimeEstimate
from uso.web.jobs.worker import Worker, status_of
from uso.web.settings import ServerSettings

logger = logging.getLogger(__name__)

SHUTTING_DOWN = Text("The server is shutting down. Send it again in a moment.")
UNFOLLOWED = Text("The page that asked for it was closed.")

LAST_STEP_SECONDS = 10.0
"""How long a job that is stopped at shutdown may take to end its step."""

FORECAST_SECONDS = 1.0
"""How often queued jobs learn how far the running jobs are."""

MAX_LOST = 1
"""How many workers a job may lose before it fails: it might be the job that ends them."""


class JobQueue:
    """Loads the models in the background, and runs the jobs in a fair order."""

    def __init__(
        self,
        loads: Load | Sequence[Load],
        settings: ServerSettings,
        records: Records,
        *,
        safety: Safety | None = None,
        translator: Translator | None = None,
        on_over: Callable[[Job], None] = lambda job: None,
        workers_change: bool = False,
    ) -> None:
        """
        Args:
            loads: one function for each worker, which loads its model; called in the worker's thread.
            safety: checks prompts and pictures.
            translator: translates prompts before requests are made of them.
            on_over: called with every job that is over, however it ended.
            workers_change: workers may be lost, and come back.
        """
        self.settings = settings
        self.workers_change = workers_change
        self.status = ServerStatus()
        self._records = records
        self._safety = safety or Safety()
        self.translator = translator or Translator()
        self._time_estimate = TimeEstimate()
        self._admission = Admission(settings)
        self._on_over = on_over
        self._changed = threading.Condition()
        self._queued: FairQueue[Job] = FairQueue()
        self._errands = Errands()
        self._places: set[Place] = set()
        """Held for requests that are admitted and not queued yet."""
        self._running: list[Job] = []
        self._saving: list[Job] = []
        """Their worker is free again, but their last picture is still on its way to the disk."""
        self._jobs = JobIndex()
        self.followers = Followers(
            settings.orphan_grace if settings.orphans == "cancel" else None,
            lambda job: self.cancel(job.id, UNFOLLOWED),
        )
        self._closing = ""
        """Why no more jobs are admitted; empty while they are."""
        self._closed_at: float | None = None
        self._began = time.monotonic()
        self._settled: float | None = None
        """When the model was ready or had failed."""
        self._forecast_at = 0.0
        self.workers = [
            Worker(
                number,
                load,
                output_folder=settings.output,
                records=records,
                safety=self._safety,
                time_estimate=self._time_estimate,
                on_change=self._worker_changed,
            )
            for number, load in enumerate([loads] if callable(loads) else loads)
        ]

    @property
    def provenance(self) -> dict[str, Any]:
        """The record of the loaded model; empty before it is ready."""
        return next((worker.provenance for worker in self.workers if worker.provenance), {})

    def count_tokens(self, prompt: str) -> int | None:
        """How many tokens the model makes of a prompt, with those that mark its ends; None before it is ready."""
        count = next((worker.count_tokens for worker in self.workers if worker.count_tokens), None)
        return None if count is None else count(prompt)

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
        self.followers.start()
        for worker in self.workers:
            worker.start(self._next_job, self._job_made, self._job_over, self._job_lost)

    def admit(self, asker: Asker, image_bytes: int = 0, num_images: int = 1) -> Place:
        """Reserve a place for a request, before its images are read. Its pictures count for the rate limit.

        The place is held until `submit` has turned it into a job, or `release` gives it up.

        Args:
            asker: whose turn the request takes, and whose history its picture joins.
            image_bytes: size of its images.
            num_images: how many pictures it asks for.

        Raises:
            USOError: not now, in a sentence: a limit, a full disk, a server that closes, a model that failed.
        """
        self._admission.check_disk(sum(map(_bytes_to_come, self._jobs.open())))
        place = Place(asker, image_bytes, num_images)
        with self._changed:
            if self._closing or self.status.state == "failed":
                raise USOError(self._closing or self.status.error)
            waiting = [*self._queued, *self._places]
            self._admission.check_queue(
                waiting=len(waiting),
                waiting_of_person=sum(one.person == asker.person for one in waiting),
                waiting_bytes=image_bytes + sum(one.image_bytes for one in waiting),
                seconds=self._seconds_to_next(),
            )
            self._admission.check_rate(asker.person, num_images)
            self._places.add(place)
        return place

    def ask(self, work: Callable[[Pipeline], Any], asker: Asker) -> "Future[Any]":
        """Have the model do something short in its own thread, between two jobs; returns what will be its result.

        Raises:
            USOError: not now, in a sentence.
        """
        errand = Errand(work, asker.person)
        with self._changed:
            if self._closing or self.status.state == "failed":
                raise USOError(self._closing or self.status.error)
            self._errands.add(errand)
            self._changed.notify()
        return errand.result

    @property
    def projector(self) -> str:
        """Fingerprint of the model's style projector; empty before it is ready."""
        return next((worker.projector for worker in self.workers if worker.projector), "")

    def release(self, place: Place) -> None:
        """Give up a place, unless its request has been submitted."""
        with self._changed:
            self._places.discard(place)

    def submit(self, request: GenerationRequest, place: Place, typed_prompt: str = "", tab: str = "") -> Job:
        """Put an admitted request into the queue, where it may wait for the model as well.

        Args:
            typed_prompt: the prompt as it was typed, if it was translated.
            tab: of the browser, under an unguessable id.

        Raises:
            USOError: the filter blocks it, or the ledger cannot be written.
        """
        self._safety.check_prompt(request.prompt)
        job = Job(request, place.asker, typed_prompt=typed_prompt, tab=tab)
        try:  # writes to the disk, so it does not hold the lock
            self._records.accepted(job)
        except sqlite3.Error as error:
            logger.exception("Job %s could not be entered into the ledger.", job.name)
            raise USOError(
                self._closing or Text("The server cannot write to its disk. Tell the one who runs it.")
            ) from error
        self._jobs.add(job)
        with self._changed:
            self._places.discard(place)
            job.accepted_at = time.monotonic()
            failed = self.status.state == "failed"
            if self._closing or failed:
                job.end_unstarted("failed" if failed else "cancelled", self._closing or self.status.error)
            else:
                self._queued.add(job)
                self._forecast()
                self._changed.notify()
        if job.status.over:
            self._finish(job)
        return job

    def find(self, job_id: str) -> Job | None:
        """A job that is not over, or ended lately."""
        return self._jobs.find(job_id)

    def of_tab(self, owner: str | None, tab: str) -> tuple[Job, ...]:
        """An owner's jobs of a tab, in the order of their requests: those that are not over, and those that ended
        lately."""
        return self._jobs.of_tab(owner, tab)

    def cancel(self, job_id: str, reason: str = "") -> bool:
        """Cancel a job: at once if it is queued, after its current step if it runs. False if there is nothing to do."""
        with self._changed:
            job = self._queued.remove(job_id)
            if job is not None:
                job.end_unstarted("cancelled", reason)
                self._forecast()
            else:
                running = self.find(job_id)
                if running is None or running.status.over:
                    return False
                running.stop_reason = running.stop_reason or reason
                running.stop.set()
        if job is not None:
            self._finish(job)
        return True

    # Shutdown.

    def close(self, reason: str = SHUTTING_DOWN) -> None:
        """Admit no more jobs and cancel the queued ones; running jobs go on. Returns at once."""
        with self._changed:
            self._closing = self._closing or reason
            self.followers.end()
            self._closed_at = self._closed_at or time.monotonic()
            for job in self._running:  # the reason if they are stopped, by `join` or by people
                job.stop_reason = job.stop_reason or self._closing
            cancelled = self._clear("cancelled", self._closing)
            self._errands.refuse(self._closing)
            self._changed.notify_all()
        for job in cancelled:
            self._finish(job)

    def join(self, grace: float) -> bool:
        """Wait for the running jobs; stop them `grace` seconds after `close`. True if all threads have ended."""
        # A thread that still loads its model has nothing to lose: it ends with the process.
        loaded = [worker.thread for worker in self.workers if not worker.loading or worker.status.state == "failed"]
        end = (self._closed_at or time.monotonic()) + grace
        for thread in loaded:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in loaded):
            with self._changed:
                for job in self._running:
                    job.stop.set()
            end = time.monotonic() + LAST_STEP_SECONDS
            for thread in loaded:
                thread.join(max(0.0, end - time.monotonic()))
        return len(loaded) == len(self.workers) and not any(thread.is_alive() for thread in loaded)

    # Called by the workers, in their threads; `_job_over` and `_job_lost` in the thread that saves.

    def _next_job(self, worker: int) -> Job | Errand | None:
        """Wait for the next job or errand, by turns; None when the server shuts down.

        Raises:
            WorkerLost: this worker is not ready any more.
        """

        def gone() -> bool:
            return self.workers[worker].status.state != "ready"

        with self._changed:
            self._changed.wait_for(lambda: len(self._queued) or self._errands or self._closing or gone())
            if gone() and not self._closing:
                self._changed.notify()  # whoever can take what waits
                raise WorkerLost()
            errand = self._errands.take(jobs_wait=len(self._queued) > 0)
            if errand is not None:
                return errand
            job = self._queued.take()
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
        with self._changed:
            self._running.remove(job)
            self._saving.append(job)
            job.ended_at = time.monotonic()
            self._queued.finished(job.person)
            self._forecast()

    def _job_over(self, job: Job) -> None:
        """What it made is saved."""
        try:
            self._finish(job)
        finally:
            with self._changed:
                self._saving.remove(job)

    def _job_lost(self, job: Job, error: WorkerLost) -> None:
        """Its worker was lost. What it had made by then is saved; the rest is made by the next worker that is free."""
        with self._changed:
            self._saving.remove(job)
            assert job.worker is not None and job.started_at is not None and job.ended_at is not None
            stopped = job.stop.is_set() or bool(self._closing)
            if not stopped and len(job.lost) < MAX_LOST and self.status.state != "failed":
                job.lost.append(Turn(job.worker, job.started_at, job.ended_at))
                job.worker = job.started_at = job.ended_at = None
                job.reach(state="queued", stage="", step=0, preview=None, ends_at=None)
                self._queued.put_back(job)
                self._forecast()
                self._changed.notify()
                return
        if stopped:
            job.reach(state="cancelled", error=job.stop_reason or self._closing)
        else:
            logger.error("Job %s has lost its worker again, and is not tried a third time.", job.name)
            job.reach(state="failed", preview=None, error=Text("{} Send it again.", text_of(error)))
        self._finish(job)

    def _worker_changed(self) -> None:
        """A worker has come further with its model or its job, or has failed, or is lost."""
        failed: list[Job] = []
        with self._changed:
            was, self.status = self.status, self._summary()
            if self.status.state in ("ready", "failed") and self._settled is None:
                self._settled = time.monotonic()
                if self.status.state == "ready":
                    logger.info("The model is ready after %.1f s.", self.loading_seconds)
            if self.status.workers_ready < was.workers_ready:
                logger.warning("%d of %d workers are ready.", self.status.workers_ready, self.status.workers)
                self._changed.notify_all()  # it may be waiting for a job
            if self.status.notice and self.status.notice != was.notice:
                logger.warning("%s", self.status.notice)
            if self.status.state == "failed":
                failed = self._clear("failed", self.status.error)
                self._errands.refuse(self.status.error)
            elif len(self._queued) and time.monotonic() - self._forecast_at >= FORECAST_SECONDS:
                self._forecast()
        for job in failed:
            self._finish(job)

    # With `_changed` held.

    def _summary(self) -> ServerStatus:
        return replace(status_of(self.workers), waiting=len(self._queued), running=len(self._running))

    def _forecast(self) -> None:
        """Update the position and expected start of every queued job."""
        self._forecast_at = now = time.monotonic()
        self.status = self._summary()
        running = [(job, job.status.seconds_left) for job in self._running]
        workers = max(1, self.status.workers_ready)
        for position in self._queued.positions(running, lambda job: self._time_estimate.seconds(job.request), workers):
            starts_at = None if position.seconds is None else now + position.seconds
            position.job.reach(ahead=position.ahead, pictures_ahead=position.pictures_ahead, starts_at=starts_at)

    def _seconds_to_next(self) -> float | None:
        """Seconds until the next queued job starts, and leaves room for another, if that is known."""
        waits = [job.status.seconds_to_start for job in self._queued]
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def _clear(self, state: State, error: str) -> list[Job]:
        """End all queued jobs and return them."""
        jobs = self._queued.clear()
        for job in jobs:
            job.end_unstarted(state, error)
        return jobs

    # Without it.

    def _finish(self, job: Job) -> None:
        """Record a job that is over, once, and release its reference images."""
        try:
            self._records.ended(job)
        except sqlite3.Error:
            logger.exception("Job %s could not be closed in the ledger.", job.name)
        job.request = replace(job.request, content_images=(), style_images=(), style_strengths=())
        try:
            self._on_over(job)
        except Exception:
            logger.exception("Job %s is over, but a listener failed.", job.name)
        self._jobs.ended(job)


def _bytes_to_come(job: Job) -> int:
    """What the pictures that a job still makes take on the disk at most: as much as their pixels."""
    return 0 if job.status.over else 3 * job.request.width * job.request.height * job.pictures_left
