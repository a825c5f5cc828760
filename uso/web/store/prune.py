"""Room on the disk: removes the oldest pictures of this server, by age and by the folder's size. Off unless asked for.

Only what the ledger knows is removed: pictures that the command line put into the same folder stay. A reference image
goes when no picture that is left can have used it.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from uso.output import REFERENCES
from uso.web.settings import ServerSettings
from uso.web.store.ledger import Ledger, Shelved

logger = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
DAY = 24 * 3600.0
SLACK = 60.0
"""Seconds by which a reference may be older than a picture that used it (a slow disk)."""

MIN_AGE = 600.0
"""Seconds for which a picture stays however much there is: somebody is looking at it."""

JOB_DAYS = 30
"""How long a job that left no picture can be asked for."""


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
    pictures = ledger.shelf()
    shelf = _Shelf(settings.output, pictures)
    removed = 0
    for picture in pictures:
        too_much = shelf.bytes > room and picture.made < now - MIN_AGE
        if picture.made >= oldest and not too_much:
            break
        shelf.remove(picture)
        ledger.forget(picture.id)
        removed += 1
    if removed:
        logger.info("%d pictures were removed to keep the limits of age and size.", removed)
    return removed


def keep_pruning(settings: ServerSettings, ledger: Ledger, stop: threading.Event) -> None:
    """Prune now and again, in a thread of its own, until `stop`; jobs without pictures are forgotten in any case."""

    def once() -> None:
        prune(settings, ledger)
        ledger.forget_jobs(before=time.time() - JOB_DAYS * DAY)

    threading.Thread(target=_loop, args=[once, stop], name="prune", daemon=True).start()


def _loop(once: Callable[[], object], stop: threading.Event) -> None:
    while True:
        try:
            once()
        except Exception:
            logger.exception("Old pictures could not be removed; the next try is in %g minutes.", EVERY_SECONDS / 60)
        if stop.wait(EVERY_SECONDS):
            return


class _Shelf:
    """The server's pictures and the references that they were made with; what else is in the folder does not count."""

    def __init__(self, folder: Path, pictures: Sequence[Shelved]) -> None:
        self._references = folder / REFERENCES
        self._users = Counter(sha256 for picture in pictures for sha256 in picture.references)
        own = {picture.path for picture in pictures}
        others = [_changed(path) for path in folder.glob("*.png") if path not in own]
        self._first_other = min(others, default=float("inf"))
        used = [self._references / sha256 for sha256 in self._users]
        self.bytes = sum(map(_size, [*own, *used]))

    def remove(self, picture: Shelved) -> None:
        """Remove a picture, and its references where no other picture can have been made with them."""
        self.bytes -= _size(picture.path)
        picture.path.unlink(missing_ok=True)
        for sha256 in picture.references:
            self._users[sha256] -= 1
            if self._users[sha256] == 0:
                reference = self._references / sha256
                self.bytes -= _size(reference)
                # A picture's references are touched when it is saved: later ones, and those of others, can be seen.
                last_used = _changed(reference)
                if last_used <= picture.made + SLACK and self._first_other > last_used + SLACK:
                    reference.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
