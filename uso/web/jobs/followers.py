"""Jobs that nobody waits for any more: their page was closed, or their program has gone. One thread looks after all.

Every stream that follows a job is a watcher of it. When the last one goes, the job has a grace time in which another
may come (a reload), and is then given up.
"""

import threading
import time
from collections.abc import Callable

from uso.web.jobs.job import Job

LOOK_SECONDS = 0.5
"""How often the thread looks while there are orphans; without any it sleeps."""


FOLLOWED_SECONDS = 5.0
"""How much longer than the grace time a new job may wait for the stream that follows it: the server may be busy."""


class Orphans:
    """Who watches which job, and what happens to those that are left.

    Args:
        grace: seconds that a job without watchers is kept.
        give_up: called with each job whose time is up, in the thread.
    """

    def __init__(self, grace: float, give_up: Callable[[Job], None]) -> None:
        self._grace = grace
        self._give_up = give_up
        self._lock = threading.Lock()
        self._left: dict[Job, float] = {}
        """Jobs without watchers, and since when, by `time.monotonic()`."""
        self._some = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._look, name="orphans", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Give up no more jobs; the thread ends."""
        self._ended = True
        self._some.set()

    def expect(self, job: Job) -> None:
        """A stream will follow a new job, at once; a tab that is gone by then leaves an orphan."""
        with self._lock:
            if not job.watchers and not job.status.over:
                self._left[job] = time.monotonic() + FOLLOWED_SECONDS
                self._some.set()

    def attach(self, job: Job, watcher: str) -> None:
        """A stream follows a job."""
        with self._lock:
            job.watchers.add(watcher)
            self._left.pop(job, None)

    def detach(self, job: Job, watcher: str) -> None:
        """A stream has ended before the job was over."""
        with self._lock:
            job.watchers.discard(watcher)
            if not job.watchers and not job.status.over:
                self._left[job] = time.monotonic()
                self._some.set()

    def _look(self) -> None:
        while not self._ended:
            self._some.wait()
            for job in self._due():
                if not self._ended:
                    self._give_up(job)
            time.sleep(min(LOOK_SECONDS, max(self._grace, 0.05)))

    def _due(self) -> list[Job]:
        """Take out the jobs whose time is up, and those that are over."""
        now = time.monotonic()
        with self._lock:
            due = [job for job, since in self._left.items() if now - since >= self._grace]
            for job in [job for job in self._left if job in due or job.status.over]:
                del self._left[job]
            if not self._left and not self._ended:
                self._some.clear()
        return [job for job in due if not job.status.over]
