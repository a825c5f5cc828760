"""The ledger and the history in it: after a restart, in a folder that moved, without a picture's file, of an earlier
version, and in a folder that is wiped while it is in use."""

import io
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from tests.support.kept import kept, made, new_job
from tests.support.scripted import BEN
from uso.web.jobs.job import JobStatus, digest
from uso.web.store.history import ended_status, of_job_digest, own, recent
from uso.web.store.ledger import FILE, FOLDER
from uso.web.store.prune import forget_jobs
from uso.web.store.recovery import open_ledger

FIRST = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, owner TEXT, instance TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
    accepted REAL NOT NULL, ended REAL
);
CREATE TABLE pictures (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, owner TEXT, file TEXT NOT NULL, made REAL NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, seed INTEGER NOT NULL, steps INTEGER NOT NULL,
    seconds REAL NOT NULL, thumb BLOB, prompt TEXT NOT NULL, refs TEXT NOT NULL
);
CREATE INDEX pictures_of ON pictures (owner, made);
CREATE INDEX pictures_by_age ON pictures (made);
CREATE INDEX jobs_open ON jobs (state);
"""
"""The ledger of the first version."""


def test_history_is_the_owners_newest_first_and_outlives_the_server(tmp_path: Path) -> None:
    """Catches a history that is lost with the process, mixes people, or is upside down."""
    ledger = open_ledger(tmp_path)
    pictures = [kept(ledger, new_job(), tmp_path) for _ in range(3)]
    other = kept(ledger, new_job(BEN), tmp_path)
    ledger.close()
    ledger = open_ledger(tmp_path)
    assert [found.picture for found in recent(ledger, "browser:ann", 10)] == pictures[::-1]
    assert [found.picture for found in recent(ledger, "browser:ann", 2)] == pictures[:0:-1]
    assert [found.picture for found in recent(ledger, "browser:ben", 10)] == [other]
    assert recent(ledger, None, 10) == [] and recent(ledger, "browser:nobody", 10) == []
    found = own(ledger, "browser:ben", other.id)
    assert found is not None and (found.owner, found.picture) == ("browser:ben", other)
    with Image.open(io.BytesIO(found.thumb)) as thumb:
        assert thumb.size == (128, 160) and thumb.format == "WEBP"
    ledger.close()


def test_a_picture_whose_file_is_gone_is_not_shown(tmp_path: Path) -> None:
    """Catches a history of broken pictures after somebody tidied up the folder."""
    ledger = open_ledger(tmp_path)
    picture = kept(ledger, new_job(), tmp_path)
    picture.path.unlink()
    assert recent(ledger, "browser:ann", 10) == [] and own(ledger, "browser:ann", picture.id) is None
    ledger.close()


def test_the_folder_may_move(tmp_path: Path) -> None:
    """Catches whole paths in the ledger: a volume that is mounted elsewhere would lose its history."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    ledger = open_ledger(old)
    kept(ledger, new_job(), old)
    ledger.close()
    old.rename(new)
    ledger = open_ledger(new)
    assert recent(ledger, "browser:ann", 1)[0].picture.path.parent == new
    ledger.close()


def test_a_picture_that_had_to_be_saved_elsewhere_is_found(tmp_path: Path) -> None:
    """Catches a picture that is looked for where it could not be written."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    ledger = open_ledger(here)
    assert own(ledger, "browser:ann", kept(ledger, new_job(), elsewhere).id) is not None
    ledger.close()


def test_a_png_names_its_job_in_a_way_that_opens_nothing(tmp_path: Path) -> None:
    """Catches a job's id, which is the key to it, in a file that people pass on."""
    job = new_job()
    picture, _ = made(job, tmp_path)
    assert job.id.encode() not in picture.path.read_bytes()


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    """Catches a ledger that closes twice with an error, or comes back to life."""
    ledger = open_ledger(tmp_path)
    ledger.close()
    ledger.close()
    with pytest.raises(sqlite3.Error):
        ledger.accepted(new_job())


def test_history_goes_on_behind_pictures_that_were_moved_away(tmp_path: Path) -> None:
    """Catches an empty history because the newest files are gone, though older ones are there."""
    ledger = open_ledger(tmp_path)
    pictures = [kept(ledger, new_job(), tmp_path) for _ in range(12)]
    for picture in pictures[3:]:
        picture.path.unlink()
    assert [found.picture for found in recent(ledger, "browser:ann", 2)] == [pictures[2], pictures[1]]
    assert [found.picture for found in recent(ledger, "browser:ann", 9)] == pictures[2::-1]
    ledger.close()


def test_a_ledger_of_the_first_version_opens(tmp_path: Path) -> None:
    """Catches an update that loses everybody's history, or leaves its old pictures without the new lookups."""
    picture, _ = made(new_job(), tmp_path)
    (tmp_path / FOLDER).mkdir()
    old = "INSERT INTO pictures VALUES ('{}', '{}', 'browser:ann', '{}', 5.0, 1, 1, 1, 1, 1.0, x'', 'p', '')"
    job = "7" * 32
    with closing(sqlite3.connect(tmp_path / FOLDER / FILE)) as db, db:
        db.executescript(FIRST)
        db.execute("INSERT INTO jobs VALUES (?, 'browser:ann', 'gone', 'done', '', 4.0, 5.0)", (job,))
        db.execute(old.format("1" * 32, job, picture.path.name))
    for _ in range(2):  # the second time there is nothing to do
        ledger = open_ledger(tmp_path)
        (found,) = recent(ledger, "browser:ann")
        assert found.names == "" and recent(ledger, "browser:ann", words="p") == [found]
        assert found.picture.id == "1" * 32 and of_job_digest(ledger, "browser:ann", digest(job)) == found
        assert of_job_digest(ledger, "browser:ben", digest(job)) is None
        assert ended_status(ledger, job) == JobStatus(state="done", pictures=(found.picture,))
        with ledger.transaction() as db:  # as the first version enters one
            columns = "id, job, owner, file, made, width, height, seed, steps, seconds, thumb, prompt, refs"
            db.execute("DELETE FROM pictures")
            db.execute(old.format("1" * 32, job, picture.path.name).replace("VALUES", f"({columns}) VALUES"))
        ledger.close()


def test_nothing_is_looked_up_by_reading_everything(tmp_path: Path) -> None:
    """Catches a lookup without an index, which takes longer with every picture of every person."""
    ledger = open_ledger(tmp_path)
    job = new_job()
    picture = kept(ledger, job, tmp_path)
    said: list[str] = []
    ledger._db.set_trace_callback(said.append)
    assert len(recent(ledger, "browser:ann")) == 1 and own(ledger, "browser:ann", picture.id) is not None
    assert ended_status(ledger, job.id) is not None
    assert of_job_digest(ledger, "browser:ann", digest(job.id)) is not None
    assert of_job_digest(ledger, None, digest(job.id)) is None
    ledger.started(job)
    ledger.ended(job)
    forget_jobs(ledger, before=0.0)
    ledger._db.set_trace_callback(None)
    asked = [one for one in said if one.startswith(("SELECT", "UPDATE", "DELETE"))]
    assert len(asked) >= 9
    with ledger.transaction() as db:
        for one in asked:
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {one}")]
            assert plan and not [step for step in plan if "SCAN" in step and "SUBQUERY" not in step], (one, plan)
            assert not any("TEMP B-TREE" in step for step in plan), (one, plan)
    ledger.close()


# The folder changes while it is in use.


def test_a_folder_that_is_wiped_is_used_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches pictures that are entered into a file which is gone, and a job that nobody can ask for after it."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    ledger = open_ledger(folder)
    kept(ledger, new_job(), folder)
    running = new_job()
    ledger.accepted(running)
    shutil.rmtree(folder)
    assert recent(ledger, "browser:ann") == [] and "was removed or replaced" in caplog.text
    picture, image = made(running, folder)
    ledger.keep(running, picture, image)
    running.reach(state="done", pictures=(picture,))
    ledger.ended(running)
    assert picture.path.parent == folder
    assert ended_status(ledger, running.id) == JobStatus(state="done", pictures=(picture,))
    assert (folder / FOLDER).stat().st_mode & 0o077 == 0
    ledger.check()
    assert ledger.fault == ""
    other = open_ledger(folder)  # another server sees that this one lives
    waiting = new_job()
    ledger.accepted(waiting)
    assert ended_status(other, waiting.id) == JobStatus(state="queued", elsewhere=True)
    assert [found.picture for found in recent(other, "browser:ann")] == [picture]
    other.close()
    ledger.close()
    assert not list((folder / FOLDER).glob("*.alive"))


def test_a_folder_that_is_mounted_anew_brings_its_history(tmp_path: Path) -> None:
    """Catches a server that goes on in the old file after a disk was away for a moment."""
    folder, away = tmp_path / "outputs", tmp_path / "away"
    folder.mkdir()
    ledger = open_ledger(folder)
    before = kept(ledger, new_job(), folder)
    folder.rename(away)
    folder.mkdir()
    meanwhile = kept(ledger, new_job(), folder)
    assert [found.picture for found in recent(ledger, "browser:ann")] == [meanwhile]
    folder.rename(tmp_path / "empty")
    away.rename(folder)
    assert [found.picture for found in recent(ledger, "browser:ann")] == [before]
    ledger.close()


def test_a_folder_that_cannot_be_used_is_said_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a server that calls itself ready while it can keep no picture, and one that never recovers."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    ledger = open_ledger(folder)
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    for _ in range(3):
        ledger.check()
    assert ledger.fault == "Pictures cannot be saved in the output folder (File exists)."
    assert len([one for one in caplog.records if ledger.fault in one.getMessage()]) == 1
    with pytest.raises(sqlite3.Error):
        ledger.accepted(new_job())
    job = new_job()
    picture, image = made(job, folder)  # which is not lost
    assert picture.path.is_file() and folder not in picture.path.parents
    job.reach(state="done", pictures=(picture,))
    for enter in (lambda: ledger.keep(job, picture, image), lambda: ledger.ended(job)):
        with pytest.raises(sqlite3.Error):
            enter()
    folder.unlink()
    ledger.check()
    assert ledger.fault == "" and "can be saved and recorded again" in caplog.text
    assert [found.picture for found in recent(ledger, "browser:ann")] == [picture]
    assert ended_status(ledger, job.id) == JobStatus(state="done", pictures=(picture,))
    picture.path.unlink()
    ledger.check()
    assert not ledger._missed
    # A record of pictures that is damaged meanwhile.
    (folder / FOLDER / "new").write_bytes(b"no database" * 100)
    os.replace(folder / FOLDER / "new", folder / FOLDER / FILE)
    ledger.check()
    assert ledger.fault == "The record of pictures cannot be used (file is not a database)."
    ledger.close()
