"""Pictures and jobs as their owner sees them again.

Ids come from browsers: their form is checked before they are looked up, and whoever names another person's picture
learns only that there is none. Owners are those of `Asker.owner`; None has no history.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from uso import output
from uso.errors import OutputError
from uso.web.jobs.job import JobStatus
from uso.web.jobs.queue import JobQueue
from uso.web.store.ledger import Ledger, Remembered, is_id
from uso.web.store.recovery import CUT_OFF, CUT_SHORT, close_accounts

MOST = 30
"""Pictures that a page shows at first, and more of at each "Show more"."""

MOST_ROWS = 500
"""Read from the ledger at a time: nobody waits long for its lock behind a search."""

MOST_PROMPTS = 20
"""Earlier prompts that are offered, from the last `MOST_ROWS` pictures."""

LAST_JOBS = 9
"""Of a tab: as many as one person may have in the queue, and one that runs, unless the server is set otherwise."""


def recent(
    ledger: Ledger,
    owner: str | None,
    most: int = MOST,
    *,
    words: str = "",
    favourites: bool = False,
    after: Sequence[str] = (),
    newer: Sequence[str] = (),
) -> list[Remembered]:
    """An owner's last pictures whose files are still there, newest first, however many were moved away since.

    Args:
        words: each must occur in the prompt or the name of a reference, in upper or lower case.
        favourites: only those.
        after: go on behind the oldest of these pictures.
        newer: only those made since the newest of these.
    """
    found: list[Remembered] = []
    place = _rows(ledger, owner, after), _rows(ledger, owner, newer)
    for row in _matching(ledger, owner, words, favourites, *place, most):
        found += ledger.select("rowid = ?", row)
        if len(found) == most:
            break
    return found


def count(ledger: Ledger, owner: str | None, *, words: str = "", favourites: bool = False) -> int:
    """How many pictures `recent` finds, page after page."""
    return sum(1 for _ in _matching(ledger, owner, words, favourites))


def matches(one: Remembered, words: str, favourites: bool) -> bool:
    """Whether `recent` finds a picture by these words and that filter."""
    return (one.favourite or not favourites) and _has(_wanted(words), one.prompt, one.names)


def _matching(
    ledger: Ledger,
    owner: str | None,
    words: str,
    favourites: bool,
    after: Sequence[int] = (),
    newer: Sequence[int] = (),
    rows_at_once: int = MOST_ROWS,
) -> Iterator[int]:
    """Rows of an owner's pictures that match, whose files are still there, newest first; see `recent`."""
    wanted, only = _wanted(words), "AND favourite" if favourites else ""
    before, since = min(after, default=2**63 - 1), max(newer, default=0)
    while owner is not None:
        with ledger.transaction() as db:
            rows = db.execute(
                f"SELECT rowid, file, prompt, names FROM pictures WHERE owner = ? {only} AND rowid < ? AND rowid > ? "
                "ORDER BY rowid DESC LIMIT ?",
                (owner, before, since, rows_at_once),
            ).fetchall()
        if not rows:
            break
        for before, file, prompt, names in rows:
            if _has(wanted, prompt, names) and os.path.isfile(ledger.folder / file):
                yield before
        rows_at_once = min(4 * rows_at_once, MOST_ROWS)


def _wanted(words: str) -> list[str]:
    return [_folded(word) for word in words.split()]


def _has(wanted: list[str], prompt: str, names: str) -> bool:
    """Whether a prompt and the names of references have all words between them."""
    text = _folded(f"{prompt}\n{names}") if wanted else ""
    return all(word in text for word in wanted)


def _rows(ledger: Ledger, owner: str | None, ids: Sequence[str]) -> list[int]:
    """The rows of those of some pictures that are still there."""
    with ledger.transaction() as db:
        rows = [
            db.execute("SELECT rowid FROM pictures WHERE id = ? AND owner = ?", (one, owner)).fetchone()
            for one in ids
            if is_id(one)
        ]
    return [row[0] for row in rows if row]


def _folded(text: str) -> str:
    """A text in which upper and lower case, and wide and narrow letters, are the same."""
    return unicodedata.normalize("NFKC", text).casefold()


def prompts(ledger: Ledger, owner: str | None) -> list[tuple[str, str]]:
    """(id of the last picture with it, prompt) of an owner's last prompts, each once, newest first."""
    with ledger.transaction() as db:
        rows = db.execute(
            "SELECT id, prompt FROM pictures WHERE owner = ? ORDER BY rowid DESC LIMIT ?", (owner, MOST_ROWS)
        ).fetchall()
    last: dict[str, str] = {}
    for picture_id, prompt in rows:
        if prompt.strip():
            last.setdefault(prompt, picture_id)
    return [(picture_id, prompt) for prompt, picture_id in last.items()][:MOST_PROMPTS]


def set_favourite(ledger: Ledger, owner: str | None, picture_id: Any, on: bool) -> bool:
    """Mark an owner's picture as a favourite, or no longer; False if there is none."""
    if not is_id(picture_id):
        return False
    with ledger.transaction() as db:
        row = db.execute("UPDATE pictures SET favourite = ? WHERE id = ? AND owner IS ?", (bool(on), picture_id, owner))
    return row.rowcount > 0


def own(ledger: Ledger, owner: str | None, picture_id: Any) -> Remembered | None:
    """An owner's picture whose file is still there; None if there is none, or it is another's."""
    found = ledger.select("id = ? AND owner IS ?", picture_id, owner) if is_id(picture_id) else []
    return next(filter(_exists, found), None)


def of_job_digest(ledger: Ledger, owner: str | None, job_digest: str) -> Remembered | None:
    """An owner's picture whose file is still there, by the digest of its job (see `uso.web.jobs.job.digest`)."""
    return next(filter(_exists, ledger.select("digest = ? AND +owner = ?", job_digest, owner)), None)


def outcome(queue: JobQueue, ledger: Ledger, job_id: Any) -> JobStatus | None:
    """The status of a job, of an earlier server too; None if there never was one."""
    if not is_id(job_id):
        return None
    job = queue.find(job_id)
    return job.status if job is not None else ended_status(ledger, job_id)


def ended_status(ledger: Ledger, job_id: str) -> JobStatus | None:
    """The status of a job that is not in this server's queue, as the ledger has it; None if it is not there."""
    row = _entry(ledger, job_id)
    if row is not None and row[0] in ("queued", "running"):
        state, _, instance, num_images = row
        if instance == ledger.instance.id:  # its end could not be entered: a full disk, a folder that was gone
            row = ("failed", CUT_OFF if num_images == 1 else CUT_SHORT, instance, num_images)
        elif ledger.instance.lives(instance):
            return JobStatus(state=state, elsewhere=True, num_images=num_images)
        else:
            close_accounts(ledger)
            row = _entry(ledger, job_id)
    if row is None:
        return None
    pictures = tuple(found.picture for found in sorted(ledger.select("job = ?", job_id), key=_seed))
    return JobStatus(state=row[0], error=row[1], pictures=pictures, num_images=row[3])


def _entry(ledger: Ledger, job_id: str) -> Any:
    """(state, error, id of its server, how many pictures) of a job in the ledger, or None."""
    with ledger.transaction() as db:
        return db.execute("SELECT state, error, instance, num_images FROM jobs WHERE id = ?", (job_id,)).fetchone()


def of_tab(queue: JobQueue, ledger: Ledger, owner: str | None, tab: str) -> list[JobStatus]:
    """The statuses of an owner's last jobs of a tab, of earlier servers too, in the order of their requests."""
    with ledger.transaction() as db:
        rows = db.execute(
            "SELECT id FROM jobs WHERE tab = ? AND owner IS ? ORDER BY rowid DESC LIMIT ?", (tab, owner, LAST_JOBS)
        ).fetchall()
    found = (outcome(queue, ledger, job_id) for (job_id,) in reversed(rows))
    return [status for status in found if status is not None]


def siblings(ledger: Ledger, remembered: Remembered) -> list[Remembered]:
    """All pictures of a picture's job whose files are still there, in the order of their seeds."""
    owner, job = remembered.owner, remembered.job
    found = filter(_exists, ledger.select("job = ? AND +owner IS ?", job, owner))
    return sorted(found, key=_seed)


def record_of(remembered: Remembered) -> output.SavedPicture | None:
    """The record in the picture's own file; None if it cannot be read any more."""
    try:
        return output.read(remembered.picture.path)
    except OutputError:
        return None


def _seed(remembered: Remembered) -> int:
    return remembered.picture.seed


def _exists(remembered: Remembered) -> bool:
    return os.path.isfile(remembered.picture.path)  # False, not an error, where it may not be looked at
