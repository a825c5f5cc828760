"""Who follows which job, and the end of jobs that nobody follows: the page was closed, or the program has gone.

Every stream that reports a job's status is a follower. When the last one ends, the job has a grace time in which
another may come (a reload); then it is given up. One thread watches all jobs.
"""

import logging
import threading
import time
from collections.abc import Callable

from uso.web.jobs.job import Job

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often the thread checks while some jobs have no follower; otherwise it sleeps."""

FOLLOWED_SECONDS = 5.0
"""Time for the first follower of a new job, beyond the grace time: the server may be busy."""


class Followers:
    """Followers of all jobs. May be used from any thread.

    Args:
        grace: seconds that a job without followers is kept; None keeps it to its end.
        give_up: called with each job whose time is up, in the thread of this object.
    """

    def __init__(self, grace: float | None, give_up: Callable[[Job], object]) -> None:
        self._grace = grace
        self._give_up = give_up
        self._lock = threading.Lock()
        self._left: dict[Job, float] = {}
        """Jobs without followers, and since when, by `time.monotonic()`."""
        self._some = threading.Event()
        self._ended = False

    def start(self) -> None:
        if self._grace is not None:
            threading.Thread(target=self._watch, args=[self._grace], name="followers", daemon=True).start()

    def end(self) -> None:
        """Give up no more jobs and end the thread."""
        self._ended = True
        self._some.set()

    def expect(self, job: Job) -> None:
        """A new job: its first follower is expected now, and the job is given up if none comes."""
        with self._lock:
            self._check(job, since=time.monotonic() + FOLLOWED_SECONDS)

    def attach(self, job: Job, follower: str) -> None:
        """A stream follows a job from now on."""
        with self._lock:
            job.followers.add(follower)
            self._left.pop(job, None)

    def detach(self, job: Job, follower: str) -> None:
        """A stream has ended, perhaps before its job."""
        with self._lock:
            job.followers.discard(follower)
            self._check(job, since=time.monotonic())

    def _check(self, job: Job, since: float) -> None:
        """Note a job that nobody follows. Call it with the lock held."""
        if self._grace is not None and not self._ended and not job.followers and not job.status.over:
            self._left[job] = since
            self._some.set()

    def _watch(self, grace: float) -> None:
        while not self._ended:
            self._some.wait()
            for job in self._due(grace):
                if not self._ended:
                    logger.info("Job %s is cancelled: nobody follows it any more.", job.name)
                    self._give_up(job)
            time.sleep(min(LOOK_SECONDS, max(grace, 0.05)))

    def _due(self, grace: float) -> list[Job]:
        """Remove and return the jobs whose time is up; remove those that are over."""
        now = time.monotonic()
        with self._lock:
            due = [job for job, since in self._left.items() if now - since >= grace]
            for job in [job for job in self._left if job in due or job.status.over]:
                del self._left[job]
            if not self._left and not self._ended:
                self._some.clear()
        return [job for job in due if not job.status.over]
