"""The ledger: admitted jobs and finished pictures, in an SQLite file beside the pictures.

From it the history comes back after a restart. Pictures are files of their own (`uso/output.py`); losing the ledger
loses no picture. Several servers may share a folder. Open it with `recovery.open_ledger`.

The folder may be wiped, replaced or mounted anew while the server runs: from then on the ledger that lies there now is
used, or a new one. Order is that of entry (`rowid`), because a clock may be set back.
"""

import io
import logging
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from uso import output
from uso.errors import OutputError
from uso.files import private_folder
from uso.language import Text
from uso.web.jobs.job import Job, Picture, digest
from uso.web.store.instance import Instance
from uso.web.store.schema import bring_up_to_date
from uso.web.store.upkeep import repeat

logger = logging.getLogger(__name__)

FOLDER = ".server"
"""In the output folder."""

FILE = "ledger.sqlite3"

THUMB_PIXELS = 160

Row = tuple[object, ...]

MISSED = 1000
"""What is kept in memory while the ledger cannot be written."""

CHECK_SECONDS = 5.0
"""How often `Ledger.check` is called."""

_COLUMNS = (
    "id, job, owner, file, made, width, height, seed, steps, seconds, thumb, prompt, refs, digest, favourite, names"
)


_ID = re.compile(r"[0-9a-f]{32}")


def is_id(value: Any) -> bool:
    """Whether a value from outside has the form of an id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


@dataclass(frozen=True)
class Remembered:
    """A picture's entry in the ledger."""

    picture: Picture
    job: str
    owner: str | None
    made: float
    """Seconds since 1970."""
    thumb: bytes
    """A small WebP file."""
    prompt: str = ""
    """Its beginning alone, if an earlier version entered it; the picture's file holds all of it."""
    favourite: bool = False
    names: str = ""
    """Of its references, one a line; empty if an earlier version entered it."""


class Ledger:
    """One per server, for any thread.

    Args:
        pictures: the output folder, with `FOLDER` in it.
        instance: this server, under whose id jobs are entered.

    Raises:
        sqlite3.Error: the file cannot be used. Every method raises it as well.
    """

    def __init__(self, pictures: Path, instance: Instance) -> None:
        self.folder = pictures
        self.instance = instance
        self.fault = ""
        """Why pictures cannot be saved or recorded now, as a sentence without paths."""
        self._lock = threading.Lock()
        self._closed = False
        self._missed: deque[tuple[str, Row]] = deque(maxlen=MISSED)
        """Statements that failed, to be repeated: pictures and ends of jobs."""
        self._db, self._which = self._opened()

    def close(self) -> None:
        """Nothing can be read or written any more; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._db.close()
            self.instance.sign_out()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; commits at the end, rolls back on an error."""
        with self._lock:
            if not self._closed and (self._which is None or self._which != _identity(self._file)):
                self._reopen()
            with self._db as db:
                yield db

    def check(self) -> None:
        """Find out whether pictures can be saved and recorded, and set `fault`."""
        try:
            output.check_folder(self.folder)
            with self.transaction() as db:
                db.execute("SELECT 1 FROM jobs LIMIT 1")
                self.instance.renew()
                missed = list(self._missed)
                for statement, row in missed:
                    db.execute(statement, row)
            for _ in missed:  # which are committed
                self._missed.popleft()
            fault = ""
        except OutputError as error:
            fault = Text(
                "Pictures cannot be saved in the output folder ({}).", getattr(error.__cause__, "strerror", error)
            )
        except (OSError, sqlite3.Error) as error:
            fault = Text("The record of pictures cannot be used ({}).", getattr(error, "strerror", error))
        if fault != self.fault and not self._closed:
            logger.error("%s: %s", self.folder, fault or "Pictures can be saved and recorded again.")
        self.fault = fault

    @property
    def _file(self) -> Path:
        return self.folder / FOLDER / FILE

    def _opened(self) -> tuple[sqlite3.Connection, tuple[int, int] | None]:
        """(the connection, which file it is); the tables are those of this version."""
        db = sqlite3.connect(self._file, timeout=30, check_same_thread=False)
        try:
            db.execute("PRAGMA schema_version")  # touches the file
            db.execute("PRAGMA secure_delete = ON")  # what is deleted is gone from the file too
            which = _identity(self._file)
            bring_up_to_date(db)
        except BaseException:
            db.close()
            raise
        return db, which

    def _reopen(self) -> None:
        """Go on with the file that lies there now, because it is another one or none."""
        self._db.close()
        self._which = None
        try:
            private_folder(self._file.parent)
            self._db, self._which = self._opened()
            self.instance.renew()
        except OSError as error:
            raise sqlite3.OperationalError(f"the folder cannot be used ({error.strerror})") from error
        logger.error("%s was removed or replaced. The one that is there now is used from here on.", self._file)

    def accepted(self, job: Job) -> None:
        """Enter a job that was admitted."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, owner, instance, state, accepted, tab, num_images) "
                "VALUES (?, ?, ?, 'queued', ?, ?, ?)",
                (job.id, job.asker.owner, self.instance.id, time.time(), job.tab, job.request.num_images),
            )

    def started(self, job: Job) -> None:
        """Enter that a job runs, unless it is over."""
        with self.transaction() as db:
            db.execute("UPDATE jobs SET state = 'running' WHERE id = ? AND state = 'queued'", (job.id,))

    def ended(self, job: Job) -> None:
        """Enter the end of a job; the job too, where the folder has been replaced since it was accepted. It is entered
        later where that fails now."""
        row = (
            job.id, job.asker.owner, self.instance.id, job.status.state, job.status.error, time.time(), time.time(),
            job.tab, job.request.num_images,
        )  # fmt: skip
        self._surely(
            "INSERT INTO jobs (id, owner, instance, state, error, accepted, ended, tab, num_images) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET state = excluded.state, error = excluded.error, ended = excluded.ended",
            row,
        )

    def _surely(self, statement: str, row: Row) -> None:
        """Write something now, or else as soon as `check` finds that it can be written."""
        try:
            with self.transaction() as db:
                db.execute(statement, row)
        except sqlite3.Error:
            self._missed.append((statement, row))
            raise

    def keep(self, job: Job, picture: Picture, image: Image.Image) -> None:
        """Enter a picture whose file is on the disk."""
        references = [*job.request.content_images, *job.request.style_images]
        named = [(reference.sha256, reference.name) for reference in references]
        self.enter(picture, image, job.id, job.asker.owner, job.prompt, named)

    def enter(
        self,
        picture: Picture,
        image: Image.Image,
        job_id: str,
        owner: str | None,
        prompt: str,
        references: Sequence[tuple[str, str]],
    ) -> None:
        """Enter a picture; later, where that fails now.

        Args:
            references: SHA-256 and name of each reference image.
        """
        # By name, so that the folder may move; in full if it was saved elsewhere.
        file = picture.path.name if picture.path.parent == self.folder else str(picture.path)
        # A name that is not UTF-8, which file systems allow, must not fail the entry.
        names = "\n".join(name for _, name in references).encode("utf-8", "replace").decode()
        row = (
            picture.id, job_id, owner, file, time.time(), picture.width, picture.height, picture.seed,
            picture.num_inference_steps, picture.seconds, _thumb(image), prompt,
            " ".join(sorted({sha256 for sha256, _ in references})), digest(job_id), False, names,
        )  # fmt: skip
        self._surely(f"INSERT OR IGNORE INTO pictures ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)

    def select(self, condition: str, *values: object) -> list[Remembered]:
        """Pictures by what follows WHERE in a query; their files may be gone."""
        with self.transaction() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM pictures WHERE {condition}", values).fetchall()
        return [self._remembered(dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]

    def _remembered(self, values: dict[str, Any]) -> Remembered:
        picture = Picture(
            id=values["id"],
            path=self.folder / values["file"],  # an absolute path stays as it is
            width=values["width"],
            height=values["height"],
            seed=values["seed"],
            num_inference_steps=values["steps"],
            seconds=values["seconds"],
        )
        return Remembered(
            picture,
            values["job"],
            values["owner"],
            values["made"],
            values["thumb"] or b"",
            values["prompt"],
            bool(values["favourite"]),
            values["names"],
        )


def keep_checking(ledger: Ledger, stop: threading.Event) -> None:
    """Check the ledger and its folder regularly, in a thread, until `stop`."""
    repeat(ledger.check, CHECK_SECONDS, stop, name="checking the output folder")


def _identity(file: Path) -> tuple[int, int] | None:
    """Tells one file from another of the same name; None without one."""
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _thumb(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((THUMB_PIXELS, THUMB_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
