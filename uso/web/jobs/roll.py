"""Every job that can be looked at in full: those that are not closed yet, and the last ones that are."""

import threading
from collections import OrderedDict

from uso.web.jobs.job import Job

REMEMBERED_JOBS = 500
"""Closed jobs that are kept; older ones are asked of the ledger."""


class Roll:
    """By id; may be used from any thread."""

    def __init__(self) -> None:
        self._open: dict[str, Job] = {}
        self._closed: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, job: Job) -> None:
        with self._lock:
            self._open[job.id] = job

    def close(self, job: Job) -> None:
        """All is done about a job that is over; the oldest of those may be forgotten."""
        with self._lock:
            self._open.pop(job.id, None)
            self._closed[job.id] = job
            while len(self._closed) > REMEMBERED_JOBS:
                self._closed.popitem(last=False)

    def find(self, job_id: str) -> Job | None:
        with self._lock:
            return self._open.get(job_id) or self._closed.get(job_id)
