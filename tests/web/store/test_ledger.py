"""The ledger and the history in it: after a restart, in a folder that moved, without a picture's file."""

import io
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from tests.support.kept import kept, made, new_job
from tests.support.scripted import BEN
from uso.web.store.history import own, recent
from uso.web.store.recovery import open_ledger


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
