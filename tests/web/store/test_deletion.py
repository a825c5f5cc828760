"""Deleting pictures: what is gone from the disk, what must stay, and a kill in the middle of it."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.kept import kept, made, new_job
from tests.support.scripted import ANN, BEN
from uso import files, output
from uso.config import ROOT
from uso.output import REFERENCES
from uso.request.request import ReferenceImage
from uso.web.access.identity import Asker
from uso.web.jobs.job import JobStatus, Picture
from uso.web.store import deletion
from uso.web.store.deletion import Deleted, delete, delete_some, finish_removals
from uso.web.store.history import ended_status, own, prompts, recent
from uso.web.store.ledger import FILE, FOLDER, Ledger
from uso.web.store.recovery import open_ledger

OWNER, OTHER = "browser:ann", "browser:ben"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def with_style(ledger: Ledger, tmp_path: Path, picture: Callable[..., Image.Image]) -> Callable[..., Picture]:
    """`with_style(1, 2, asker=BEN)`: a kept picture that was made with those of some style images."""

    def make(*styles: int, asker: Asker = ANN, **values: Any) -> Picture:
        given = [ReferenceImage.of(picture(64, 64, seed=seed)) for seed in styles]
        return kept(ledger, new_job(asker, style_images=given, **values), tmp_path)

    return make


def references(folder: Path) -> set[str]:
    return {path.name for path in (folder / REFERENCES).glob("*")}


def of(picture: Picture) -> set[str]:
    return {entry["sha256"] for entry in output.read(picture.path).record["request"]["style_images"]}


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.parent.name != FOLDER}


def test_gone_is_gone(ledger: Ledger, with_style: Any, tmp_path: Path) -> None:
    """Catches a file, a reference, a prompt or a thumbnail that is still somewhere after its owner deleted it."""
    stays = with_style(3, prompt="this one stays")
    before = everything(tmp_path)
    gone = with_style(1, 2, prompt="a secret that is to be forgotten")
    with ledger.transaction() as db:
        db.execute("UPDATE pictures SET thumb = ? WHERE id = ?", (b"what is in it" * 400, gone.id))
    secrets = (b"a secret that is to be forgotten", b"what is in it", gone.id.encode())
    file = tmp_path / FOLDER / FILE
    assert all(secret in file.read_bytes() for secret in secrets)
    assert delete(ledger, OWNER, [gone.id]) == Deleted((gone.id,))
    assert everything(tmp_path) == before and stays.path in before
    assert not any(secret in file.read_bytes() for secret in secrets)
    assert own(ledger, OWNER, gone.id) is None and [one.picture for one in recent(ledger, OWNER)] == [stays]
    assert [prompt for _, prompt in prompts(ledger, OWNER)] == ["this one stays"]
    assert delete(ledger, OWNER, [gone.id]) == Deleted()


def test_references_stay_as_long_as_a_picture_needs_them(ledger: Ledger, with_style: Any, tmp_path: Path) -> None:
    """Catches a picture that cannot be made again because another one was deleted, of the same person or another; and a
    reference that stays for ever because it was used twice."""
    mine, again, theirs = with_style(1, 2), with_style(2), with_style(1, asker=BEN)
    one, two = of(theirs), of(again)
    delete(ledger, OWNER, [mine.id])
    assert references(tmp_path) == one | two
    delete(ledger, OWNER, [again.id])
    assert references(tmp_path) == one
    delete(ledger, OTHER, [theirs.id])
    assert references(tmp_path) == set()


def test_a_picture_of_the_command_line_keeps_its_references(ledger: Ledger, with_style: Any, tmp_path: Path) -> None:
    """Catches a reference that is removed although a picture that no server knows was made with it."""
    mine, theirs = with_style(1), with_style(1)
    with ledger.transaction() as db:
        db.execute("DELETE FROM pictures WHERE id = ?", (theirs.id,))
    (tmp_path / "junk.png").write_bytes(b"no picture")
    delete(ledger, OWNER, [mine.id])
    assert references(tmp_path) == of(theirs)


def test_another_persons_id_deletes_nothing(ledger: Ledger, with_style: Any, tmp_path: Path) -> None:
    """Catches a deletion that does not ask whose the picture is, or takes a word for an id."""
    theirs = with_style(1, asker=BEN)
    before = everything(tmp_path)
    for wrong in (theirs.id, "%", "", None, 5, ["x"], "0" * 32, "../" * 10 + "ab"):
        assert delete(ledger, OWNER, [wrong]) == Deleted() == delete(ledger, None, [wrong])
    while delete_some(ledger, OWNER).ids:
        pass
    assert everything(tmp_path) == before and own(ledger, OTHER, theirs.id) is not None


def test_all_of_mine_are_mine(ledger: Ledger, with_style: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches one that is forgotten, such as one whose file is gone already."""
    monkeypatch.setattr(deletion, "AT_ONCE", 2)
    theirs, mine = with_style(1, asker=BEN), [with_style(2) for _ in range(5)]
    mine[1].path.unlink()
    assert [len(delete_some(ledger, OWNER).ids) for _ in range(4)] == [2, 2, 1, 0]
    assert everything(tmp_path) == {theirs.path, *((tmp_path / REFERENCES / sha) for sha in of(theirs))}
    with ledger.transaction() as db:
        assert db.execute("SELECT count(*) FROM removals").fetchone() == (0,)


def test_a_picture_that_is_being_saved_keeps_its_references(
    ledger: Ledger, with_style: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Any
) -> None:
    """Catches a deletion in the very moment in which another picture with the same reference is written: its references
    are on the disk already, its own file is not."""
    mine, job = with_style(1), new_job(style_images=[ReferenceImage.of(picture(64, 64, seed=1))])
    ledger.accepted(job)
    really = files.write_new

    def meanwhile(*args: Any) -> Path:
        assert delete(ledger, OWNER, [mine.id]).ids
        assert references(tmp_path) == set()
        return really(*args)

    monkeypatch.setattr(files, "write_new", meanwhile)
    new, _ = made(job, tmp_path)
    assert references(tmp_path) == of(new) != set()


def test_a_picture_that_appears_while_another_is_deleted_keeps_its_references(
    ledger: Ledger, with_style: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Any
) -> None:
    """Catches a reference that goes after somebody looked who needs it, and before they did."""
    mine, job = with_style(1), new_job(style_images=[ReferenceImage.of(picture(64, 64, seed=1))])
    really = deletion._needed
    saved: list[Picture] = []

    def looked(*args: Any) -> set[str]:
        needed = really(*args)
        if not saved:
            saved.append(made(job, tmp_path)[0])
        return needed

    monkeypatch.setattr(deletion, "_needed", looked)
    delete(ledger, OWNER, [mine.id])
    assert references(tmp_path) == of(saved[0]) != set()


KILLED = """
import os, pathlib, signal, sys
from tests.support.kept import kept, new_job
from uso.web.store import deletion
from uso.web.store.recovery import open_ledger

folder, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
ledger = open_ledger(folder)
job = new_job(prompt="a secret")
ledger.accepted(job)
picture, image = __import__("tests.support.kept", fromlist=["made"]).made(job, folder)
ledger.keep(job, picture, image)
print(job.id, picture.id, flush=True)

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "before the file":
    deletion._remove = die
elif moment == "after the file":
    deletion._remove_references = die
deletion.delete(ledger, "browser:ann", [picture.id])
die()
"""


@pytest.mark.parametrize("moment", ["before the file", "after the file", "after it all"])
def test_a_kill_resurrects_nothing_and_reports_nothing_lost(tmp_path: Path, moment: str) -> None:
    """Catches a deleted picture that the recovery takes for one that its server could not enter any more, a file that
    nobody's history has, and a job called cut off whose picture was made and deleted."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), moment]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == -9, done.stderr
    job, picture = done.stdout.split()
    assert len(list(tmp_path.glob("*.png"))) == (moment == "before the file")
    ledger = open_ledger(tmp_path)
    assert recent(ledger, OWNER) == [] and own(ledger, OWNER, picture) is None
    assert list(tmp_path.glob("*.png")) == []
    assert ended_status(ledger, job) == JobStatus(state="done", error="", pictures=())
    with ledger.transaction() as db:
        assert db.execute("SELECT count(*) FROM removals").fetchone() == (0,)
    ledger.close()


def test_what_cannot_be_removed_is_said_and_tried_again(ledger: Ledger, with_style: Any, tmp_path: Path) -> None:
    """Catches a deletion that calls a file gone which is there, and one that is never finished."""
    picture = with_style(1)
    shas = of(picture)
    picture.path.unlink()
    (picture.path / "in the way").mkdir(parents=True)
    assert delete(ledger, OWNER, [picture.id]) == Deleted((picture.id,), "Is a directory")
    assert own(ledger, OWNER, picture.id) is None and references(tmp_path) == shas
    (picture.path / "in the way").rmdir()
    picture.path.rmdir()
    finish_removals(ledger)
    assert references(tmp_path) == set()


def test_a_new_picture_under_the_name_of_a_deleted_one_stays(ledger: Ledger, tmp_path: Path) -> None:
    """Catches a deletion that is finished after a restart and takes what was saved under that name since."""
    picture = kept(ledger, new_job(), tmp_path)
    with ledger.transaction() as db:
        db.execute("INSERT INTO removals VALUES (?, '')", (picture.path.name,))
    finish_removals(ledger)
    assert own(ledger, OWNER, picture.id) is not None


def test_a_ledger_that_cannot_be_written_deletes_nothing(tmp_path: Path, with_style: Any, ledger: Ledger) -> None:
    """Catches a file that goes although its entry stays."""
    picture = with_style(1)
    with ledger.transaction() as db:
        db.execute("CREATE TRIGGER no BEFORE DELETE ON pictures BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.Error):
        delete(ledger, OWNER, [picture.id])
    assert picture.path.is_file() and own(ledger, OWNER, picture.id) is not None and references(tmp_path) == of(picture)
