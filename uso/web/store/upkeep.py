"""Repeats a task in a thread."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


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
