"""Pictures and jobs as their owner sees them again.

Ids come from browsers: their form is checked before they are looked up, and whoever names another person's picture
learns only that there is none. Owners are those of `Asker.owner`; None has no history.
"""

import re
from typing import Any

from uso import output
from uso.errors import OutputError
from uso.web.jobs.job import Job, JobStatus, digest
from uso.web.jobs.queue import JobQueue
from uso.web.store.ledger import Ledger, Remembered

MOST = 30
"""Pictures in a history; the page receives all of them each time that one is added."""

_ID = re.compile(r"[0-9a-f]{32}")


def is_id(value: Any) -> bool:
    """Whether a value from outside has the form of an id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def recent(ledger: Ledger, owner: str | None, most: int = MOST) -> list[Remembered]:
    """An owner's last pictures whose files are still there, newest first."""
    if owner is None:
        return []
    return list(filter(_exists, ledger.select("owner = ? ORDER BY made DESC LIMIT ?", owner, most)))


def own(ledger: Ledger, owner: str | None, picture_id: Any) -> Remembered | None:
    """An owner's picture whose file is still there; None if there is none, or it is another's."""
    found = ledger.select("id = ? AND owner IS ?", picture_id, owner) if is_id(picture_id) else []
    return next(filter(_exists, found), None)


def of_job_digest(ledger: Ledger, owner: str | None, job_digest: str) -> Remembered | None:
    """An owner's picture whose file is still there, by the digest of its job (see `uso.web.jobs.job.digest`)."""
    with ledger.transaction() as db:
        rows = db.execute("SELECT id, job FROM pictures WHERE owner = ?", (owner,)).fetchall()
    found = (own(ledger, owner, picture_id) for picture_id, job in rows if digest(job) == job_digest)
    return next(filter(None, found), None)


def outcome(queue: JobQueue, ledger: Ledger, job_id: Any) -> JobStatus | None:
    """The status of a job, of an earlier server too; None if there never was one."""
    if not is_id(job_id):
        return None
    job = queue.find(job_id)
    return job.status if job is not None else ended_status(ledger, job_id)


def ended_status(ledger: Ledger, job_id: str) -> JobStatus | None:
    """The status of a job as the ledger has it; None if it is not there."""
    with ledger.transaction() as db:
        row = db.execute("SELECT state, error FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        return None
    pictures = tuple(found.picture for found in ledger.select("job = ? ORDER BY made", job_id))
    return JobStatus(state=row[0], error=row[1], pictures=pictures)


def own_job(queue: JobQueue, ledger: Ledger, owner: str | None, job_id: Any) -> tuple[Job | None, JobStatus] | None:
    """An owner's job, and its status; of an earlier server's job only the status is left.

    None if there is none, or it is another's.
    """
    if not is_id(job_id):
        return None
    job = queue.find(job_id)
    if job is not None:
        return (job, job.status) if job.asker.owner == owner else None
    status = ended_status(ledger, job_id)
    if status is None or any(own(ledger, owner, picture.id) is None for picture in status.pictures):
        return None
    return None, status


def record_of(remembered: Remembered) -> output.SavedPicture | None:
    """The record in the picture's own file; None if it cannot be read any more."""
    try:
        return output.read(remembered.picture.path)
    except OutputError:
        return None


def _exists(remembered: Remembered) -> bool:
    return remembered.picture.path.is_file()
