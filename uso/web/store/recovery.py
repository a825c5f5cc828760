"""Opens the ledger, and settles jobs that a killed server left open.

Such a job is done if its picture is on disk (the picture joins the history); otherwise it failed.
"""

import logging
import sqlite3
import time
import uuid
from pathlib import Path

from PIL import Image

from uso import output
from uso.errors import OutputError
from uso.files import private_folder
from uso.web.jobs.job import Picture, digest
from uso.web.store.instance import Instance
from uso.web.store.ledger import FOLDER, Ledger

logger = logging.getLogger(__name__)

CUT_OFF = "The server was restarted before the picture was finished. Send it again."

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
"""SQLite's names for a damaged file; any other error is the disk's, or another program's."""


def open_ledger(pictures: Path) -> Ledger:
    """The ledger of an output folder that exists.

    Raises:
        OutputError: nothing can be written there, or the ledger's file is damaged.
    """
    folder = pictures / FOLDER
    try:
        # For this user alone: the ids of jobs are secrets.
        ledger = Ledger(pictures, Instance(private_folder(folder)))
        _close_accounts(ledger)
        output.remove_parts(pictures)
    except (OSError, sqlite3.Error) as error:
        remedy = "Make sure that its disk has room and that this user may write there"
        if getattr(error, "sqlite_errorname", "").startswith(_DAMAGED):
            remedy = "Move that folder away (no picture is in it, but who made which)"
        raise OutputError(
            f"The record of pictures in {folder} cannot be used ({error}). {remedy}, or choose another output folder."
        ) from error
    return ledger


def _close_accounts(ledger: Ledger) -> None:
    """End the open jobs of servers that have ended."""
    with ledger.transaction() as db:
        rows = db.execute(
            "SELECT id, owner, instance, accepted FROM jobs WHERE state IN ('queued', 'running')"
        ).fetchall()
    dead = ledger.instance.dead({row[2] for row in rows})
    lost = {digest(row[0]): row for row in rows if row[2] in dead}
    if not lost:
        return
    since = min(row[3] for row in lost.values()) - 1.0
    made = set()
    for path in sorted(ledger.folder.glob("*.png")):
        if path.stat().st_mtime >= since and (row := lost.get(_job_digest(path))) is not None:
            made.add(row[0])
            _recover(ledger, path, row[0], row[1])
    with ledger.transaction() as db:
        for job_id, *_ in lost.values():
            ends = ("done", "") if job_id in made else ("failed", CUT_OFF)
            db.execute("UPDATE jobs SET state = ?, error = ?, ended = ? WHERE id = ?", (*ends, time.time(), job_id))
    logger.info(
        "%d jobs were cut off by the end of an earlier server; %d of them had their picture.", len(lost), len(made)
    )


def _recover(ledger: Ledger, path: Path, job_id: str, owner: str | None) -> None:
    """Enter a picture that was saved, but not entered, when its server ended."""
    with ledger.transaction() as db:
        known = db.execute("SELECT 1 FROM pictures WHERE file = ?", (path.name,)).fetchone()
    if known:
        return
    record = output.read(path).record
    request, timings = record["request"], record.get("timings") or {}
    picture = Picture(
        id=uuid.uuid4().hex,
        path=path,
        width=int(request["width"]),
        height=int(request["height"]),
        seed=int(request["seed"]),
        num_inference_steps=int(request["num_inference_steps"]),
        seconds=float(sum(timings.values())),
    )
    references = {entry["sha256"] for kind in output.KINDS for entry in request[kind]}
    with Image.open(path, formats=["PNG"]) as image:
        ledger.enter(picture, image, job_id, owner, str(request["prompt"]), references)


def _job_digest(path: Path) -> str:
    """The digest of the job that a PNG names; empty if it names none."""
    try:
        named = output.read(path).record.get("job")
    except OutputError:
        return ""
    return named if isinstance(named, str) else ""
