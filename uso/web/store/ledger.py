"""The ledger: admitted jobs and finished pictures, in an SQLite file beside the pictures.

From it the history comes back after a restart. Pictures are files of their own (`uso/output.py`); losing the ledger
loses no picture. Several servers may share a folder. Open it with `recovery.open_ledger`.
"""

import io
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from uso.web.jobs.job import Job, Picture
from uso.web.store.instance import Instance

FOLDER = ".server"
"""In the output folder."""

FILE = "ledger.sqlite3"

THUMB_PIXELS = 160
CAPTION_CHARACTERS = 200
"""Characters of a prompt that are kept."""

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

_COLUMNS = "id, job, owner, file, made, width, height, seed, steps, seconds, thumb, prompt, refs"


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
    """Its beginning; the picture's file holds all of it."""


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
        self._lock = threading.Lock()
        self._db = sqlite3.connect(pictures / FOLDER / FILE, timeout=30, check_same_thread=False)
        with self.transaction() as db:
            db.executescript(_SCHEMA)

    def close(self) -> None:
        """Nothing can be read or written any more; a second call does nothing."""
        with self._lock:
            self._db.close()
            self.instance.sign_out()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; commits at the end, rolls back on an error."""
        with self._lock, self._db as db:
            yield db

    def accepted(self, job: Job) -> None:
        """Enter a job that was admitted."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, owner, instance, state, accepted) VALUES (?, ?, ?, 'queued', ?)",
                (job.id, job.asker.owner, self.instance.id, time.time()),
            )

    def ended(self, job: Job) -> None:
        """Enter the end of a job."""
        values = (job.status.state, job.status.error, time.time(), job.id)
        with self.transaction() as db:
            db.execute("UPDATE jobs SET state = ?, error = ?, ended = ? WHERE id = ?", values)

    def keep(self, job: Job, picture: Picture, image: Image.Image) -> None:
        """Enter a picture whose file is on the disk."""
        references = {reference.sha256 for reference in (*job.request.content_images, *job.request.style_images)}
        self.enter(picture, image, job.id, job.asker.owner, job.request.prompt, references)

    def enter(
        self, picture: Picture, image: Image.Image, job_id: str, owner: str | None, prompt: str, references: set[str]
    ) -> None:
        """Enter a picture.

        Args:
            references: SHA-256 of each reference image.
        """
        # By name, so that the folder may move; in full if it was saved elsewhere.
        file = picture.path.name if picture.path.parent == self.folder else str(picture.path)
        row = (
            picture.id, job_id, owner, file, time.time(), picture.width, picture.height, picture.seed,
            picture.num_inference_steps, picture.seconds, _thumb(image), prompt[:CAPTION_CHARACTERS],
            " ".join(sorted(references)),
        )  # fmt: skip
        with self.transaction() as db:
            db.execute(f"INSERT INTO pictures ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)

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
            picture, values["job"], values["owner"], values["made"], values["thumb"] or b"", values["prompt"]
        )


def _thumb(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((THUMB_PIXELS, THUMB_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
