"""Deletes pictures for good: the file, the reference images that no other picture needs, the entry in the ledger.

A picture is gone from one moment on: a transaction takes its entry out and notes its file in `removals`. Then the files
go, then the note. If the server is killed in between, the next one at the folder finishes it (`finish_removals`), and
the recovery of cut-off jobs takes no file that is noted. A file that cannot be removed stays noted, and is tried again.

Pictures that are being saved at this moment, by this or any other process, keep their references: `output.save` stores
them before and after the picture's file appears, and here they are set aside, looked for once more, and only then
removed.
"""

import functools
import json
import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uso.files import open_regular
from uso.images.formats.png import text_before_pixels
from uso.output import CHUNK, KINDS, REFERENCES
from uso.web.store.ledger import Ledger, is_id

logger = logging.getLogger(__name__)

AT_ONCE = 200
"""Pictures that are deleted at a time: others get their turn in between."""

REMEMBERED = 100_000
"""Pictures of the command line whose references are remembered."""


@dataclass(frozen=True)
class Deleted:
    """What became of a deletion."""

    ids: tuple[str, ...] = ()
    """The pictures that are gone."""
    fault: str = ""
    """Why a file is still on the disk; the server goes on trying."""


def delete(ledger: Ledger, owner: str | None, ids: Sequence[Any]) -> Deleted:
    """Delete those of some pictures that are an owner's.

    Args:
        owner: None for a browser without cookies, which can name the pictures that it has just made.

    Raises:
        sqlite3.Error: nothing was deleted.
    """
    chosen = [(one, owner) for one in dict.fromkeys(filter(is_id, ids))]
    with ledger.transaction() as db:
        db.execute("BEGIN IMMEDIATE")
        rows = [
            row
            for key in chosen
            for row in db.execute("SELECT id, job, file, refs FROM pictures WHERE id = ? AND owner IS ?", key)
        ]
        db.executemany("INSERT OR REPLACE INTO removals (file, refs) VALUES (?, ?)", [row[2:] for row in rows])
        db.executemany("UPDATE jobs SET deleted = deleted + 1 WHERE id = ?", [(row[1],) for row in rows])
        db.executemany("DELETE FROM pictures WHERE id = ?", [row[:1] for row in rows])
    return Deleted(tuple(row[0] for row in rows), _remove(ledger, [row[2:] for row in rows]))


def delete_some(ledger: Ledger, owner: str) -> Deleted:
    """Delete some of an owner's pictures, those whose files are gone too. Call it until there are none."""
    with ledger.transaction() as db:
        rows = db.execute("SELECT id FROM pictures WHERE owner = ? LIMIT ?", (owner, AT_ONCE)).fetchall()
    return delete(ledger, owner, [row[0] for row in rows])


def finish_removals(ledger: Ledger) -> None:
    """Remove the files of deleted pictures that are still there, after a kill or an error of the disk."""
    with ledger.transaction() as db:
        rows = db.execute("SELECT file, refs FROM removals").fetchall()
        # A file of that name that was entered since is another picture.
        taken = {file for (file,) in db.execute("SELECT file FROM pictures")} & {row[0] for row in rows} if rows else ()
        db.executemany("DELETE FROM removals WHERE file = ?", [(file,) for file in taken])
    _remove(ledger, [row for row in rows if row[0] not in taken])


_removing = threading.Lock()


def _remove(ledger: Ledger, rows: Sequence[tuple[str, str]]) -> str:
    """Remove the files of deleted pictures, then their notes; returns why one could not be removed, if any.

    Args:
        rows: (file, references), as `removals` has them.
    """
    gone, faults = defaultdict[Path, dict[str, str]](dict), []
    with _removing:
        for file, references in rows:
            path = ledger.folder / file
            try:
                path.unlink(missing_ok=True)
                gone[path.parent][file] = references
            except OSError as error:
                faults.append((path, error))
        for folder, removed in gone.items():
            try:
                _remove_references(ledger, folder, set(" ".join(removed.values()).split()))
            except OSError as error:
                faults.append((folder / REFERENCES, error))
                continue
            with ledger.transaction() as db:
                db.executemany("DELETE FROM removals WHERE file = ?", [(file,) for file in removed])
    for path, failure in faults:
        logger.warning("%s cannot be removed (%s), though its owner has deleted it.", path, failure.strerror)
    return faults[0][1].strerror or "unknown" if faults else ""


def _remove_references(ledger: Ledger, folder: Path, hashes: set[str]) -> None:
    """Remove reference images of a folder of pictures that none of its pictures needs any more."""
    aside: dict[str, Path] = {}
    for sha256 in hashes - _needed(ledger, folder, hashes):
        hidden = folder / REFERENCES / f".{secrets.token_hex(8)}.part"
        with suppress(FileNotFoundError):
            (folder / REFERENCES / sha256).rename(hidden)
            aside[sha256] = hidden
    for sha256 in _needed(ledger, folder, aside):
        aside.pop(sha256).rename(folder / REFERENCES / sha256)
    for hidden in aside.values():
        hidden.unlink(missing_ok=True)


def _needed(ledger: Ledger, folder: Path, hashes: Iterable[str]) -> set[str]:
    """Those of some references that a picture in the ledger or in the folder was made with."""
    doomed, used = set(hashes), set[str]()
    if not doomed:
        return used
    with ledger.transaction() as db:
        rows = db.execute("SELECT file, refs FROM pictures").fetchall()
    entered = set()
    for file, references in rows:
        entered.add(file)
        if references:
            used |= doomed & set(references.split())
    for path in folder.glob("*.png"):  # of the command line, or not yet entered
        if path.name not in entered and str(path) not in entered:
            used |= doomed & _references_of(path)
    return used


def _references_of(path: Path) -> frozenset[str]:
    try:
        about = path.stat()
        return _read_references(path, about.st_mtime_ns, about.st_size)
    except OSError:
        return frozenset()


@functools.lru_cache(REMEMBERED)
def _read_references(path: Path, changed: int, size: int) -> frozenset[str]:
    """SHA-256 of each reference image that a picture's file names; none if it is no picture of this program."""
    with open_regular(path) as file:
        text = text_before_pixels(file, CHUNK)
    try:
        request = json.loads(text or "")["request"]
        return frozenset(str(entry["sha256"]) for kind in KINDS for entry in request[kind])
    except (ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
