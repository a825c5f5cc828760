"""Repeats a task in a thread, and tells the time for what goes by age."""

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_BEGAN = time.time() - time.monotonic()


def now_for_ages() -> float:
    """Seconds since 1970, by which nothing gets old because the clock jumps: neither forward, for this process's own
    clock counts then, nor back."""
    return min(time.time(), _BEGAN + time.monotonic())


def repeat(task: Callable[[], object], seconds: float, stop: threading.Event, *, name: str) -> None:
    """Run a task now and every so many seconds, in a daemon thread, until `stop`. An error ends only that run.

    Args:
        name: what the task does, as the log calls it.
    """

    def loop() -> None:
        while True:
            try:
                task()
            except Exception:
                logger.exception("%s failed; the next try is in %g s.", name.capitalize(), seconds)
            if stop.wait(seconds):
                return

    threading.Thread(target=loop, name=name, daemon=True).start()
