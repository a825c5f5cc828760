"""Room on the disk: removes the oldest pictures of this server, by age and by the folder's size. Off unless asked for.

Only what the ledger knows is removed: pictures that the command line put into the same folder stay. A reference image
goes when no picture that is left can have used it.
"""

import logging
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from uso.output import REFERENCES
from uso.web.ledger import Ledger
from uso.web.settings import ServerSettings

logger = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
DAY = 24 * 3600.0
SLACK = 60.0
"""Seconds by which a reference may be older than the first picture that used it (a slow disk)."""


def words(settings: ServerSettings) -> str:
    """What people are told about how long pictures are kept; empty if they are kept for good."""
    rules = []
    if settings.prune_days is not None:
        rules.append(f"after {settings.prune_days:g} days")
    if settings.prune_gb is not None:
        rules.append(f"oldest first when all together take more than {settings.prune_gb:g} GB")
    if not rules:
        return ""
    return f"This server removes pictures {' and '.join(rules)}. Download what you want to keep."


def prune(settings: ServerSettings, ledger: Ledger, now: float | None = None) -> int:
    """Remove what is too old or too much; returns the number of pictures removed."""
    if settings.prune_days is None and settings.prune_gb is None:
        return 0
    now = time.time() if now is None else now
    oldest = now - settings.prune_days * DAY if settings.prune_days is not None else float("-inf")
    room = settings.prune_gb * 10**9 if settings.prune_gb is not None else float("inf")
    shelf = _Shelf(settings.output)
    removed = 0
    for known in ledger.oldest_first():
        if known.made >= oldest and shelf.bytes <= room:
            break
        shelf.remove(known.picture.path)
        ledger.forget(known.picture.id)
        removed += 1
    if removed:
        logger.info("%d pictures were removed to keep the limits of age and size.", removed)
    ledger.forget_jobs(before=oldest)
    return removed


def keep_pruning(settings: ServerSettings, ledger: Ledger, stop: threading.Event) -> threading.Thread | None:
    """Prune now and again, in a thread of its own, until `stop`; None where nothing is to be pruned."""
    if not words(settings):
        return None
    thread = threading.Thread(target=_loop, args=[lambda: prune(settings, ledger), stop], name="prune", daemon=True)
    thread.start()
    return thread


def _loop(once: Callable[[], object], stop: threading.Event) -> None:
    while True:
        try:
            once()
        except Exception:
            logger.exception("Old pictures could not be removed; the next try is in %g minutes.", EVERY_SECONDS / 60)
        if stop.wait(EVERY_SECONDS):
            return


class _Shelf:
    """What lies in the output folder: pictures and the references that they may have used, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._pictures = deque(_by_age(folder.glob("*.png")))
        self._references = deque(_by_age((folder / REFERENCES).glob("*")))
        self._gone: set[Path] = set()
        self.bytes = sum(size for _, size, _ in (*self._pictures, *self._references))

    def remove(self, picture: Path) -> None:
        """Remove a picture, and the references that only it and others that are gone can have used."""
        self._gone.add(picture)
        self.bytes -= _unlink(picture)
        while self._pictures and self._pictures[0][2] in self._gone:
            self._pictures.popleft()
        first = self._pictures[0][0] if self._pictures else time.time()
        # Saving a picture touches its references, so they are never older than it.
        while self._references and self._references[0][0] < first - SLACK:
            self.bytes -= _unlink(self._references.popleft()[2])


def _by_age(paths: Iterable[Path]) -> list[tuple[float, int, Path]]:
    """(time of change, bytes, path) of each file, oldest first."""
    found = []
    for path in paths:
        with suppress(OSError):  # it went in this moment
            about = path.stat()
            if stat.S_ISREG(about.st_mode):
                found.append((about.st_mtime, about.st_size, path))
    return sorted(found)


def _unlink(path: Path) -> int:
    """Remove a file; returns the bytes that are free now."""
    try:
        size = path.stat().st_size
        path.unlink()
    except OSError:
        return 0
    return size
