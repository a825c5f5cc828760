"""The queue: requests are admitted and wait in a fair queue, from which the dispatcher hands them to the workers.

It knows no pages and no routes, and imports no torch. Others read `JobQueue.status` and `Job.status`, which are frozen
snapshots, and find and cancel jobs by their unguessable ids. Everything here may be called from any thread. One lock,
`_changed`, guards the queue and its dispatcher; nothing is written to the disk while it is held.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from uso.errors import USOError
from uso.language import Text
from uso.request.request import GenerationRequest
from uso.request.translation import Translator
from uso.web.access.identity import Asker
from uso.web.jobs.admission import Admission, Place
from uso.web.jobs.dispatcher import Dispatcher
from uso.web.jobs.followers import Followers
from uso.web.jobs.job import Job, Load, Pipeline, Records, ServerStatus
from uso.web.jobs.job_index import JobIndex
from uso.web.jobs.safety import Safety
from uso.web.jobs.worker import Worker
from uso.web.settings import ServerSettings

logger = logging.getLogger(__name__)

SHUTTING_DOWN = Text("The server is shutting down. Send it again in a moment.")
UNFOLLOWED = Text("The page that asked for it was closed.")


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
        self._records = records
        self._safety = safety or Safety()
        self.translator = translator or Translator()
        self._admission = Admission(settings)
        self._on_over = on_over
        self._places: set[Place] = set()
        """Held for requests that are admitted and not queued yet."""
        self._jobs = JobIndex()
        self.followers = Followers(
            settings.orphan_grace if settings.orphans == "cancel" else None,
            lambda job: self.cancel(job.id, UNFOLLOWED),
        )
        self._dispatcher = Dispatcher(
            loads, output_folder=settings.output, records=records, safety=self._safety, on_over=self._finish
        )
        self._changed = self._dispatcher.changed

    @property
    def status(self) -> ServerStatus:
        return self._dispatcher.status

    @property
    def workers(self) -> Sequence[Worker]:
        return self._dispatcher.workers

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
        return self._dispatcher.loading_seconds

    @property
    def busy(self) -> bool:
        """Whether a job is running, or its pictures are being saved."""
        return self._dispatcher.busy

    def start(self) -> None:
        self.followers.start()
        self._dispatcher.start()

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
            self._dispatcher.check_open()
            waiting = [*self._dispatcher.queued, *self._places]
            self._admission.check_queue(
                waiting=len(waiting),
                waiting_of_person=sum(one.person == asker.person for one in waiting),
                waiting_bytes=image_bytes + sum(one.image_bytes for one in waiting),
                seconds=self._dispatcher.seconds_to_next(),
            )
            self._admission.check_rate(asker.person, num_images)
            self._places.add(place)
        return place

    def ask(self, work: Callable[[Pipeline], Any], asker: Asker) -> "Future[Any]":
        """Have the model do something short in its own thread, between two jobs; returns what will be its result.

        Raises:
            USOError: not now, in a sentence.
        """
        with self._changed:
            return self._dispatcher.ask(work, asker.person).result

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
                self._dispatcher.closing or Text("The server cannot write to its disk. Tell the one who runs it.")
            ) from error
        self._jobs.add(job)
        with self._changed:
            self._places.discard(place)
            job.accepted_at = time.monotonic()
            self._dispatcher.add(job)
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
            job = self._dispatcher.remove(job_id, reason)
            if job is None:
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
            self.followers.end()
            cancelled = self._dispatcher.close(reason)
        for job in cancelled:
            self._finish(job)

    def join(self, grace: float) -> bool:
        """Wait for the running jobs; stop them `grace` seconds after `close`. True if all threads have ended."""
        return self._dispatcher.join(grace)

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
