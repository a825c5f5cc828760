"""What outlives the process: accepted jobs and finished pictures, in an SQLite file beside the pictures.

From it a browser's history comes back after a restart, and a job that was cut off by one is told as such. Pictures are
files of their own (`uso/output.py`); losing this file loses no picture. Several servers may share a folder.
"""

import fcntl
import hashlib
import io
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from uso import output
from uso.errors import OutputError
from uso.request import GenerationResult
from uso.web.jobs.job import Job, Picture, State

logger = logging.getLogger(__name__)

FOLDER = ".server"
"""In the output folder."""

THUMB_PIXELS = 160
CAPTION_CHARACTERS = 200
"""Of a prompt, that are remembered."""

CUT_OFF = "The server was restarted before the picture was finished. Send it again."

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
"""What SQLite calls a file that is none of its own any more; all else is the disk's fault, or another program's."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT, instance TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
    accepted REAL NOT NULL, ended REAL
);
CREATE TABLE IF NOT EXISTS pictures (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, owner TEXT, file TEXT NOT NULL, made REAL NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, seed INTEGER NOT NULL, steps INTEGER NOT NULL,
    seconds REAL NOT NULL, thumb BLOB, prompt TEXT NOT NULL, refs TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS pictures_of ON pictures (owner, made);
CREATE INDEX IF NOT EXISTS pictures_by_age ON pictures (made);
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (state);
"""


@dataclass(frozen=True)
class Remembered:
    """A finished picture as the ledger knows it."""

    picture: Picture
    job: str
    owner: str | None
    made: float
    """Seconds since 1970."""
    thumb: bytes
    """A small WebP file."""
    prompt: str = ""
    """Its beginning, to tell pictures apart by; the file holds the whole."""


@dataclass(frozen=True)
class Shelved:
    """What pruning wants to know of a picture."""

    id: str
    path: Path
    made: float
    references: frozenset[str]
    """SHA-256 of each."""


def digest(job_id: str) -> str:
    """How a PNG names the job it came from: enough to recognise it, of no use for asking after it."""
    return hashlib.sha256(job_id.encode()).hexdigest()


class Ledger:
    """Open it once per server; may be used from any thread."""

    def __init__(self, pictures: Path) -> None:
        """
        Args:
            pictures: the output folder, which exists.

        Raises:
            OutputError: nothing can be written there, or the file is damaged.
        """
        self._pictures = pictures
        self._lock = threading.Lock()
        self._instance = uuid.uuid4().hex
        try:
            # For this user alone: whoever has a job's id may ask for its picture.
            (pictures / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
            (pictures / FOLDER).chmod(0o700)
            self._alive: int | None = self._sign_in()
            self._db = sqlite3.connect(pictures / FOLDER / "ledger.sqlite3", timeout=30, check_same_thread=False)
            with self._transaction() as db:
                db.executescript(_SCHEMA)
            self._close_accounts()
            output.remove_parts(pictures)
        except (OSError, sqlite3.Error) as error:
            remedy = "Make sure that its disk has room and that this user may write there"
            if getattr(error, "sqlite_errorname", "").startswith(_DAMAGED):
                remedy = "Move that folder away (no picture is in it, but who made which)"
            raise OutputError(
                f"The record of pictures in {pictures / FOLDER} cannot be used ({error}). {remedy}, or choose another "
                "output folder."
            ) from error

    def close(self) -> None:
        """Nothing can be asked or written any more; a second time does nothing."""
        with self._lock:
            self._db.close()
            alive, self._alive = self._alive, None
        if alive is not None:
            self._sign(self._instance).unlink(missing_ok=True)
            os.close(alive)

    # Jobs.

    def accepted(self, job: Job) -> None:
        with self._transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, owner, instance, state, accepted) VALUES (?, ?, ?, 'queued', ?)",
                (job.id, job.asker.owner, self._instance, time.time()),
            )

    def ended(self, job: Job) -> None:
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, error = ?, ended = ? WHERE id = ?",
                (job.status.state, job.status.error, time.time(), job.id),
            )

    def outcome(self, job_id: str) -> tuple[State, str, tuple[Picture, ...]] | None:
        """(state, error, pictures) of a job of this or an earlier server; None if there was none such."""
        with self._transaction() as db:
            row = db.execute("SELECT state, error FROM jobs WHERE id = ?", (job_id,)).fetchone()
            found = db.execute(f"SELECT {_COLUMNS} FROM pictures WHERE job = ? ORDER BY made", (job_id,)).fetchall()
        return None if row is None else (row[0], row[1], tuple(self._remembered(entry).picture for entry in found))

    # Pictures.

    def keep(self, job: Job, picture: Picture, image: Image.Image) -> None:
        """Remember a picture whose file is on the disk."""
        references = {reference.sha256 for reference in (*job.request.content_images, *job.request.style_images)}
        self._insert(picture, job.id, job.asker.owner, _thumb(image), job.request.prompt, references)

    def picture(self, picture_id: str) -> Remembered | None:
        """A picture whose file is still there, by its id."""
        with self._transaction() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM pictures WHERE id = ?", (picture_id,)).fetchone()
        found = None if row is None else self._remembered(row)
        return found if found and found.picture.path.is_file() else None

    def history(self, owner: str | None, most: int) -> list[Remembered]:
        """An owner's pictures whose files are still there, newest first."""
        if owner is None:
            return []
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM pictures WHERE owner = ? ORDER BY made DESC LIMIT ?", (owner, most)
            ).fetchall()
        return [found for found in map(self._remembered, rows) if found.picture.path.is_file()]

    def of_record(self, owner: str | None, job_digest: str) -> Remembered | None:
        """An owner's picture whose file is still there, by the name that a PNG gives its job (see `digest`)."""
        with self._transaction() as db:
            rows = db.execute("SELECT id, job FROM pictures WHERE owner = ?", (owner,)).fetchall()
        found = (self.picture(picture_id) for picture_id, job in rows if digest(job) == job_digest)
        return next(filter(None, found), None)

    def shelf(self) -> list[Shelved]:
        """Every picture, oldest first."""
        with self._transaction() as db:
            rows = db.execute("SELECT id, file, made, refs FROM pictures ORDER BY made").fetchall()
        return [Shelved(row[0], self._pictures / row[1], row[2], frozenset(row[3].split())) for row in rows]

    def forget(self, picture_id: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM pictures WHERE id = ?", (picture_id,))

    def forget_jobs(self, before: float) -> None:
        """Drop jobs that ended before a moment (seconds since 1970) and left no picture."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE ended < ? AND id NOT IN (SELECT job FROM pictures)", (before,))

    # Inside.

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._db as db:
            yield db

    def _insert(
        self, picture: Picture, job_id: str, owner: str | None, thumb: bytes, prompt: str, references: set[str]
    ) -> None:
        row = (
            picture.id, job_id, owner, self._file(picture.path), time.time(), picture.width, picture.height,
            picture.seed, picture.num_inference_steps, picture.seconds, thumb, prompt[:CAPTION_CHARACTERS],
            " ".join(sorted(references)),
        )  # fmt: skip
        with self._transaction() as db:
            db.execute(f"INSERT INTO pictures ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)

    def _file(self, path: Path) -> str:
        """How a picture's file is written down: by name, so that the folder may move; in full if it is elsewhere."""
        return path.name if path.parent == self._pictures else str(path)

    def _remembered(self, row: tuple[object, ...]) -> Remembered:
        values = dict(zip(_COLUMNS.split(", "), row, strict=True))
        picture = Picture(
            id=str(values["id"]),
            path=self._pictures / str(values["file"]),  # an absolute one stays what it is
            width=values["width"],  # type: ignore[arg-type]
            height=values["height"],  # type: ignore[arg-type]
            seed=values["seed"],  # type: ignore[arg-type]
            num_inference_steps=values["steps"],  # type: ignore[arg-type]
            seconds=values["seconds"],  # type: ignore[arg-type]
        )
        owner = None if values["owner"] is None else str(values["owner"])
        thumb, prompt = values["thumb"] or b"", str(values["prompt"])
        return Remembered(picture, str(values["job"]), owner, values["made"], thumb, prompt)  # type: ignore[arg-type]

    # Servers that ended without a word.

    def _sign(self, instance: str) -> Path:
        return self._pictures / FOLDER / f"{instance}.alive"

    def _sign_in(self) -> int:
        """A file that is locked for as long as this process lives, whatever ends it; returns its descriptor."""
        while True:
            descriptor = os.open(self._sign(self._instance), os.O_CREAT | os.O_WRONLY, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self._sign(self._instance).exists():
                return descriptor
            os.close(descriptor)  # another server that starts took it for a dead one's, before it was locked

    def _lives(self, instance: str) -> bool:
        try:
            with self._sign(instance).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        self._sign(instance).unlink(missing_ok=True)
        return False

    def _close_accounts(self) -> None:
        """Jobs of servers that are gone: those whose picture is on the disk are done, the others were cut off."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id, owner, instance, accepted FROM jobs WHERE state IN ('queued', 'running')"
            ).fetchall()
        instances = {row[2] for row in rows} | {path.stem for path in (self._pictures / FOLDER).glob("*.alive")}
        dead = {instance for instance in instances - {self._instance} if not self._lives(instance)}
        lost = {digest(row[0]): row for row in rows if row[2] in dead}
        if not lost:
            return
        since = min(row[3] for row in lost.values()) - 1.0
        made = set()
        for path in sorted(self._pictures.glob("*.png")):
            if path.stat().st_mtime >= since and (row := lost.get(_job_in(path))) is not None:
                made.add(row[0])
                self._recover(path, row[0], row[1])
        with self._transaction() as db:
            for job_id, *_ in lost.values():
                state, error = ("done", "") if job_id in made else ("failed", CUT_OFF)
                db.execute(
                    "UPDATE jobs SET state = ?, error = ?, ended = ? WHERE id = ?", (state, error, time.time(), job_id)
                )
        logger.info(
            "%d jobs were cut off by the end of an earlier server; %d of them had their picture.", len(lost), len(made)
        )

    def _recover(self, path: Path, job_id: str, owner: str | None) -> None:
        """Enter a picture that was saved in the last moment of its server."""
        with self._transaction() as db:
            known = db.execute("SELECT 1 FROM pictures WHERE file = ?", (self._file(path),)).fetchone()
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
        with Image.open(path, formats=["PNG"]) as image:
            references = {entry["sha256"] for kind in output.KINDS for entry in request[kind]}
            self._insert(picture, job_id, owner, _thumb(image), str(request["prompt"]), references)


_COLUMNS = "id, job, owner, file, made, width, height, seed, steps, seconds, thumb, prompt, refs"


def served(job: Job, result: GenerationResult, folder: Path) -> Path:
    """Save a picture so that it can be found again by its job, whatever happens next."""
    return output.save(result, folder, extra={"job": digest(job.id)})


def _job_in(path: Path) -> str:
    try:
        named = output.read(path).record.get("job")
    except OutputError:
        return ""
    return named if isinstance(named, str) else ""


def _thumb(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((THUMB_PIXELS, THUMB_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
