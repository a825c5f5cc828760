"""Removes the server's oldest pictures, by age and by the size of all together. Off by default.

Only pictures in the ledger are removed; those that the command line saved in the same folder stay. A reference image is
removed when no remaining picture can have used it. Pictures go in the order in which they were entered.

A clock that is wrong makes everything look old. So where more than half of the pictures are too old, none goes at
first: the log says so, and from `HOLD_SECONDS` later on at most half of them go in that time.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from uso.language import Text, joined
from uso.output import REFERENCES
from uso.web.settings import ServerSettings
from uso.web.store.deletion import finish_removals
from uso.web.store.ledger import Ledger
from uso.web.store.upkeep import now_for_ages, repeat

logger = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
DAY = 24 * 3600.0
SLACK = 60.0
"""Seconds by which a reference may be older than a picture that used it (a slow disk)."""

MIN_AGE = 600.0
"""Seconds for which a picture stays whatever the size: somebody is looking at it. The same into the future, for a clock
that was set back."""

HOLD_SECONDS = 12 * 3600.0
"""Long enough to see the warning and set the clock right, short enough for servers that start anew every day."""

JOB_DAYS = 30
"""How long a job without a picture stays in the ledger."""


@dataclass(frozen=True)
class Stored:
    """A picture, as pruning sees it."""

    id: str
    path: Path
    made: float
    """Seconds since 1970."""
    references: frozenset[str]
    """SHA-256 of each reference image."""


class Hold:
    """Keeps one run from removing more than half of all pictures by their age.

    Args:
        clock: seconds; never set back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    def most(self, due: int, pictures: int) -> int:
        """How many of the pictures that are too old may go now."""
        if 2 * due <= pictures:
            self._since = None
            return due
        if self._since is None or self._clock() - self._since < HOLD_SECONDS:
            if self._since is None:
                self._since = self._clock()
                logger.warning(
                    "%d of %d pictures are too old, which is more than half. None is removed yet: is the clock right "
                    "(%s UTC)? If this stays so, half of them go in %g hours.",
                    due, pictures, datetime.now(UTC).isoformat(" ", "seconds")[:19], HOLD_SECONDS / 3600,
                )  # fmt: skip
            return 0
        self._since = self._clock()
        return max(1, pictures // 2)


def notice(settings: ServerSettings) -> str:
    """How long pictures are kept, as a message for the page; empty if they are kept for good."""
    days, most = settings.prune_days, settings.prune_gb
    if days is None and most is None:
        return ""
    if most is None:
        rule = Text("This server removes pictures after {:g} days.", days)
    elif days is None:
        rule = Text("This server removes pictures oldest first when all together take more than {:g} GB.", most)
    else:
        rule = Text(
            "This server removes pictures after {:g} days and oldest first when all together take more than {:g} GB.",
            days,
            most,
        )
    return joined(rule, Text("Download what you want to keep."))


def prune(settings: ServerSettings, ledger: Ledger, now: float | None = None, hold: Hold | None = None) -> int:
    """Remove pictures that are too old or too much; returns how many.

    Args:
        now: seconds since 1970.
        hold: the same at every run; without it more than half never go by their age.
    """
    if settings.prune_days is None and settings.prune_gb is None:
        return 0
    now = now_for_ages() if now is None else now
    oldest = now - settings.prune_days * DAY if settings.prune_days is not None else float("-inf")
    room = settings.prune_gb * 10**9 if settings.prune_gb is not None else float("inf")
    pictures = _stored(ledger)
    due = [picture.id for picture in pictures if picture.made < oldest]
    too_old = set(due[: (hold or Hold()).most(len(due), len(pictures))])
    if not too_old and settings.prune_gb is None:
        return 0
    stored = _Files(settings.output, pictures)
    removed = 0
    for picture in pictures:
        too_much = stored.bytes > room and abs(now - picture.made) > MIN_AGE
        if picture.id not in too_old and not too_much:
            continue
        try:
            stored.remove(picture)
        except OSError as error:
            logger.warning("%s cannot be removed (%s).", picture.path, error.strerror)
            continue
        with ledger.transaction() as db:
            db.execute("DELETE FROM pictures WHERE id = ?", (picture.id,))
        removed += 1
    if removed:
        logger.info("%d pictures were removed to keep the limits of age and size.", removed)
    return removed


def forget_jobs(ledger: Ledger, before: float) -> None:
    """Remove jobs that ended before a moment (seconds since 1970) and have no picture."""
    with ledger.transaction() as db:
        db.execute(
            "DELETE FROM jobs WHERE ended < ? AND NOT EXISTS (SELECT 1 FROM pictures WHERE job = jobs.id)", (before,)
        )


def keep_pruning(settings: ServerSettings, ledger: Ledger, stop: threading.Event) -> None:
    """Prune regularly, in a thread, until `stop`. Old jobs without pictures, and files of pictures
    that their owners deleted, are removed in any case."""
    hold = Hold()

    def once() -> None:
        prune(settings, ledger, hold=hold)
        forget_jobs(ledger, before=now_for_ages() - JOB_DAYS * DAY)
        finish_removals(ledger)

    repeat(once, EVERY_SECONDS, stop, name="pruning")


def _stored(ledger: Ledger) -> list[Stored]:
    """Every picture in the ledger, in the order of entry."""
    with ledger.transaction() as db:
        rows = db.execute("SELECT rowid, id, file, made, refs FROM pictures").fetchall()
    return [Stored(row[1], ledger.folder / row[2], row[3], frozenset(row[4].split())) for row in sorted(rows)]


class _Files:
    """The files of the server's pictures and of their reference images; other files do not count."""

    def __init__(self, folder: Path, pictures: Sequence[Stored]) -> None:
        self._references = folder / REFERENCES
        self._users = Counter(sha256 for picture in pictures for sha256 in picture.references)
        own = {picture.path for picture in pictures}
        others = [_changed(path) for path in folder.glob("*.png") if path not in own]
        self._first_other = min(others, default=float("inf"))
        used = [self._references / sha256 for sha256 in self._users]
        self.bytes = sum(map(_size, [*own, *used]))

    def remove(self, picture: Stored) -> None:
        """Remove a picture, and those of its references that no other picture can have used."""
        self.bytes -= _size(picture.path)
        picture.path.unlink(missing_ok=True)
        for sha256 in picture.references:
            self._users[sha256] -= 1
            if self._users[sha256] == 0:
                reference = self._references / sha256
                self.bytes -= _size(reference)
                # Saving a picture touches its references, so a later use shows in their time, also by the command line.
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
