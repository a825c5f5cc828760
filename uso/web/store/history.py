"""What a person may see again of what was made: their own pictures, by ids that are verified before a look is taken.

Ids come from browsers and may be anybody's; whoever asks for another's picture learns only that it is not there.
"""

import re
from typing import Any

from uso import output
from uso.errors import OutputError
from uso.web.access.identity import Asker
from uso.web.jobs.job import Job, JobStatus
from uso.web.jobs.queue import JobQueue
from uso.web.store.ledger import Remembered

MOST = 30
"""Pictures shown; all of them are sent to the page each time that one is added."""

_ID = re.compile(r"[0-9a-f]{32}")


def recent(queue: JobQueue, asker: Asker) -> list[Remembered]:
    """An asker's last pictures, newest first."""
    return queue.ledger.history(asker.owner, MOST)


def own(queue: JobQueue, asker: Asker, picture_id: Any) -> Remembered | None:
    """A picture of this asker; None if there is none such, or it is another's."""
    if not is_id(picture_id):
        return None
    found = queue.ledger.picture(picture_id)
    return found if found is not None and found.owner == asker.owner else None


def own_job(queue: JobQueue, asker: Asker, job_id: Any) -> tuple[Job | None, JobStatus] | None:
    """A job of this asker, with what it has reached; of one that an earlier server had, only that is left.

    None if there is none such, or it is another's.
    """
    if not is_id(job_id):
        return None
    job = queue.find(job_id)
    if job is not None:
        return (job, job.status) if job.asker.owner == asker.owner else None
    status = queue.outcome(job_id)
    if status is None or any(own(queue, asker, picture.id) is None for picture in status.pictures):
        return None
    return None, status


def is_id(value: Any) -> bool:
    """Whether a value from a browser has the form of an id at all."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def record_of(remembered: Remembered) -> output.SavedPicture | None:
    """What the picture's own file says; None if it does not say it any more."""
    try:
        return output.read(remembered.picture.path)
    except OutputError:
        return None
