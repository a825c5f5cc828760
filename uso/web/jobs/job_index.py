"""Jobs by their ids and by their tabs: those that are not over, and those that ended lately."""

import threading
from collections import OrderedDict

from uso.web.jobs.job import Job

RECENT_JOBS = 500
"""Jobs that are over and still found here; older ones are only in the records."""


class JobIndex:
    """May be used from any thread. Looking up takes no lock: an ended job is among the recent ones before it leaves the
    open ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Job] = {}
        """Jobs whose end is not recorded yet."""
        self._recent: OrderedDict[str, Job] = OrderedDict()
        """The last jobs whose end is recorded."""
        self._of_tab: dict[tuple[str | None, str], tuple[Job, ...]] = {}
        """The jobs of both by (owner, tab), in the order of their requests."""

    def add(self, job: Job) -> None:
        with self._lock:
            self._open[job.id] = job
            if job.tab:
                key = (job.asker.owner, job.tab)
                self._of_tab[key] = (*self._of_tab.get(key, ()), job)

    def ended(self, job: Job) -> None:
        """Move a job to the recent ones; the oldest of those may be forgotten for it."""
        with self._lock:
            self._recent[job.id] = job
            self._open.pop(job.id, None)
            while len(self._recent) > RECENT_JOBS:
                _, forgotten = self._recent.popitem(last=False)
                self._forget_in_tab(forgotten)

    def find(self, job_id: str) -> Job | None:
        return self._open.get(job_id) or self._recent.get(job_id)

    def of_tab(self, owner: str | None, tab: str) -> tuple[Job, ...]:
        """An owner's jobs of a tab, in the order of their requests."""
        return self._of_tab.get((owner, tab), ())

    def open(self) -> list[Job]:
        """Jobs whose end is not recorded yet."""
        with self._lock:
            return list(self._open.values())

    def _forget_in_tab(self, job: Job) -> None:
        key = (job.asker.owner, job.tab)
        left = tuple(one for one in self._of_tab.get(key, ()) if one is not job)
        if left:
            self._of_tab[key] = left
        else:
            self._of_tab.pop(key, None)
