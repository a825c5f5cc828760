"""Errands: what a model is asked to do between two jobs, such as making a style's tokens.

They wait beside the fair queue and take turns with its jobs.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from uso.errors import USOError
from uso.language import Text
from uso.web.jobs.job import Pipeline

MAX_ERRANDS = 16
"""That wait."""


class Errand:
    """Something short that a model does between two jobs.

    Args:
        person: who asked for it.
    """

    def __init__(self, work: Callable[[Pipeline], Any], person: str) -> None:
        self.person = person
        self.result: Future[Any] = Future()
        self._work = work

    def run(self, pipeline: Pipeline) -> None:
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            self.result.set_result(self._work(pipeline))
        except BaseException as error:  # SystemExit of a library too: it is this errand's failure, not the worker's
            self.result.set_exception(error)


class Errands:
    """Those that wait, in the order of their requests. Not thread-safe: the queue's lock is held."""

    def __init__(self) -> None:
        self._waiting: deque[Errand] = deque()
        self._after_errand = False
        """The last turn was an errand's."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, errand: Errand) -> None:
        """
        Raises:
            USOError: its person has one waiting, or too many wait.
        """
        if any(one.person == errand.person for one in self._waiting) or len(self._waiting) >= MAX_ERRANDS:
            raise USOError(Text("A style is being saved. Try again in a moment."))
        self._waiting.append(errand)

    def take(self, *, jobs_wait: bool) -> Errand | None:
        """Give out the next errand; None if there is none, or if it is a job's turn."""
        self._after_errand = bool(self._waiting) and not (self._after_errand and jobs_wait)
        return self._waiting.popleft() if self._after_errand else None

    def refuse(self, reason: str) -> None:
        """End all that wait."""
        while self._waiting:
            self._waiting.popleft().result.set_exception(USOError(reason))
