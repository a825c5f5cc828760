"""Threads that people take turns at: one person has one of them at a time, and waits behind nobody but themselves."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Turns:
    """A few threads for work that takes memory or time, whoever causes it.

    Args:
        threads: how much is done at the same time.
        name: of the threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()
        self._work: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        """Of each person, what is done or waits; the first is with the pool."""

    def submit(self, person: str, function: Callable[..., T], *args: Any) -> "Future[T]":
        """Call a function when it is this person's turn, in the caller's context: its language."""
        future: Future[T] = Future()
        with self._lock:
            work = self._work.setdefault(person, deque())
            work.append((future, partial(copy_context().run, function, *args)))
            if len(work) == 1:
                self._pool.submit(self._next, person)
        return future

    def _next(self, person: str) -> None:
        """Do the first of a person's work, then go to the end of the line with the rest of it."""
        with self._lock:
            future, function = self._work[person][0]
        if future.set_running_or_notify_cancel():
            try:
                result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        with self._lock:
            work = self._work[person]
            work.popleft()
            if work:
                self._pool.submit(self._next, person)
            else:
                del self._work[person]
