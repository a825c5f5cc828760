"""Opens the ledger, and settles jobs and deletions that a killed server left open.

Pictures of such a job that are on disk join the history. The job is done if all are there, or were and have been
deleted; otherwise it failed. Files of deleted pictures that are still there go first. Whatever else lies in the folder,
under whatever name, does not stop the start.
"""

import logging
import sqlite3
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from uso import output
from uso.errors import OutputError
from uso.files import private_folder
from uso.language import Text
from uso.web.jobs.job import Picture, digest
from uso.web.store.deletion import finish_removals
from uso.web.store.instance import Instance
from uso.web.store.ledger import FOLDER, Ledger

logger = logging.getLogger(__name__)

CUT_OFF = Text("The server was restarted before the picture was finished. Send it again.")

CUT_SHORT = Text("The server was restarted before all pictures were finished. Send it again for the others.")

_MADE = "SELECT COUNT(*) + (SELECT deleted FROM jobs WHERE id = :id) FROM pictures WHERE job = :id"
"""How many pictures of a job there are or were."""

SLACK = 24 * 3600.0
"""Seconds by which a picture's file may be older than its job: clocks are set back, and a share has its own."""

NAMED = 5
"""Files that are skipped and named in the log; the others are counted."""

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
        finish_removals(ledger)
        close_accounts(ledger)
        output.remove_parts(pictures)
    except (OSError, sqlite3.Error) as error:
        remedy = "Make sure that its disk has room and that this user may write there"
        if getattr(error, "sqlite_errorname", "").startswith(_DAMAGED):
            remedy = "Move that folder away (no picture is in it, but who made which)"
        raise OutputError(
            f"The record of pictures in {folder} cannot be used ({error}). {remedy}, or choose another output folder."
        ) from error
    return ledger


_closing = threading.Lock()


def close_accounts(ledger: Ledger) -> None:
    """End the open jobs of servers that have ended."""
    with _closing:
        _close_accounts(ledger)


def _close_accounts(ledger: Ledger) -> None:
    with ledger.transaction() as db:
        rows = db.execute(
            "SELECT id, owner, instance, accepted, num_images FROM jobs WHERE state IN ('queued', 'running')"
        ).fetchall()
    dead = ledger.instance.dead({row[2] for row in rows})
    lost = {digest(row[0]): row for row in rows if row[2] in dead}
    if not lost:
        return
    skipped: list[str] = []
    for path in _candidates(ledger, min(row[3] for row in lost.values()) - SLACK, skipped):
        try:
            saved = output.read(path)
        except OutputError as error:
            skipped.append(str(error))
            continue
        row = lost.get(str(saved.record.get("job")))
        if row is not None:
            _recover(ledger, saved, row[0], row[1])
    if skipped:
        more = f" And {len(skipped) - NAMED} more." if len(skipped) > NAMED else ""
        logger.warning("Skipped after the end of an earlier server: %s%s", " ".join(skipped[:NAMED]), more)
    done = 0
    with ledger.transaction() as db:
        for job_id, _, _, _, num_images in lost.values():
            made = db.execute(_MADE, {"id": job_id}).fetchone()[0]
            ends = ("done", "") if made >= num_images else ("failed", CUT_OFF if num_images == 1 else CUT_SHORT)
            done += made >= num_images
            db.execute("UPDATE jobs SET state = ?, error = ?, ended = ? WHERE id = ?", (*ends, time.time(), job_id))
    logger.info("%d jobs were cut off by the end of an earlier server; %d of them had their pictures.", len(lost), done)


def _candidates(ledger: Ledger, since: float, skipped: list[str]) -> Iterator[Path]:
    """Files that may be pictures which their server could not enter any more: not older than a moment, not entered.

    Args:
        skipped: gets a sentence for each that cannot be one.
    """
    with ledger.transaction() as db:
        entered = {row[0] for row in db.execute("SELECT file FROM pictures UNION ALL SELECT file FROM removals")}
    for path in sorted(ledger.folder.glob("*.png")):
        if path.name in entered:
            continue
        try:
            about = path.stat()
        except OSError as error:
            skipped.append(f"{path} cannot be looked at ({error.strerror}).")
            continue
        if not stat.S_ISREG(about.st_mode):
            skipped.append(f"{path} is no regular file.")
        elif about.st_mtime >= since:
            yield path


def _recover(ledger: Ledger, saved: output.SavedPicture, job_id: str, owner: str | None) -> None:
    """Enter a picture that was saved, but not entered, when its server ended, unless it cannot be shown."""
    path, request = saved.path, saved.record["request"]
    try:
        timings = saved.record.get("timings") or {}
        picture = Picture(
            id=uuid.uuid4().hex,
            path=path,
            width=int(request["width"]),
            height=int(request["height"]),
            seed=int(request["seed"]),
            num_inference_steps=int(request["num_inference_steps"]),
            seconds=float(sum(timings.values())),
        )
        prompt = str(saved.record.get("typed_prompt") or request["prompt"])
        references = [(str(entry["sha256"]), str(entry["name"])) for kind in output.KINDS for entry in request[kind]]
        with Image.open(path, formats=("PNG",)) as image:
            ledger.enter(picture, image, job_id, owner, prompt, references)
    except sqlite3.Error:
        raise
    except Exception:  # a file that somebody changed; Pillow raises errors of many kinds
        logger.warning("%s could not be taken into the history.", path, exc_info=True)
