"""Pruning: pictures that are too old or too much go, nothing else does, and a notice says so."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.kept import kept
from tests.support.scripted import ANN
from uso.config import ModelConfig, load_model_config
from uso.output import REFERENCES
from uso.request.request import GenerationRequest, ReferenceImage
from uso.web.jobs.job import Job
from uso.web.settings import ServerSettings
from uso.web.store.history import ended_status, recent
from uso.web.store.prune import DAY, HOLD_SECONDS, Hold, forget_jobs, notice, prune
from uso.web.store.recovery import open_ledger
from uso.web.store.upkeep import now_for_ages
from uso.web.store.uploads import sweep


@pytest.fixture
def stored(tmp_path: Path, demo_config: ModelConfig, picture: Callable[..., Image.Image]) -> Any:
    """(ledger, pictures): five pictures, made 4, 3, 2, 1 and 0 days ago, each with a reference; 0 and 3 share one."""
    ledger, pictures, now = open_ledger(tmp_path), [], time.time()
    for index, age in enumerate((4, 3, 2, 1, 0)):
        reference = ReferenceImage.of(picture(64, 64, seed=index % 3))
        request = GenerationRequest.create(demo_config, width=128, height=160, style_images=[reference], seed=index)
        pictures.append(kept(ledger, Job(request, ANN), tmp_path))
        for path in (pictures[-1].path, tmp_path / REFERENCES / reference.sha256):
            os.utime(path, (now - age * DAY, now - age * DAY))
        with ledger.transaction() as db:
            db.execute("UPDATE pictures SET made = ? WHERE id = ?", (now - age * DAY, pictures[-1].id))
    yield ledger, pictures
    ledger.close()


class Eager(Hold):
    """Lets everything go at once."""

    def most(self, due: int, pictures: int) -> int:
        return due


def left(pictures: Any) -> list[int]:
    return [index for index, picture in enumerate(pictures) if picture.path.exists()]


def test_off_unless_asked_for(stored: Any, tmp_path: Path) -> None:
    """Catches a default that removes people's pictures."""
    ledger, pictures = stored
    assert prune(ServerSettings(output=tmp_path), ledger) == 0 and left(pictures) == [0, 1, 2, 3, 4]
    assert notice(ServerSettings(output=tmp_path)) == ""


def test_by_age(stored: Any, tmp_path: Path) -> None:
    """Catches an age in other units, and a reference that goes although a picture that is left was made with it."""
    ledger, pictures = stored
    settings = ServerSettings(output=tmp_path, prune_days=1.5)
    references = sorted((tmp_path / REFERENCES).glob("*"), key=lambda path: path.stat().st_mtime)
    assert len(references) == 3
    assert prune(ServerSettings(output=tmp_path, prune_days=2.5), ledger) == 2 and left(pictures) == [2, 3, 4]
    assert prune(settings, ledger) == 1 and left(pictures) == [3, 4]
    assert [found.picture for found in recent(ledger, "browser:ann", 9)] == [pictures[4], pictures[3]]
    # Picture 2's reference was last used 2 days ago; those of 0 and 1 were used again for 3 and 4.
    assert [path.exists() for path in references] == [False, True, True]
    assert prune(settings, ledger) == 0


def test_by_size(stored: Any, tmp_path: Path) -> None:
    """Catches the newest going first, more going than must, and one going that somebody is looking at."""
    ledger, pictures = stored
    files = [*tmp_path.glob("*.png"), *(tmp_path / REFERENCES).glob("*")]
    everything = sum(path.stat().st_size for path in files)
    assert prune(ServerSettings(output=tmp_path, prune_gb=everything / 10**9), ledger) == 0
    assert prune(ServerSettings(output=tmp_path, prune_gb=(everything - 1) / 10**9), ledger) == 1
    assert left(pictures) == [1, 2, 3, 4]
    assert prune(ServerSettings(output=tmp_path, prune_gb=0.0), ledger) == 3 and left(pictures) == [4]


def test_other_files_stay_and_do_not_count(stored: Any, tmp_path: Path) -> None:
    """Catches a folder that is emptied, and a large picture of the command line that pushes the server's out."""
    ledger, pictures = stored
    everything = sum(picture.path.stat().st_size for picture in pictures) + 10**6
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"x" * 10 * 10**6)
    os.utime(mine, (0, 0))
    assert prune(ServerSettings(output=tmp_path, prune_gb=everything / 10**9), ledger) == 0
    prune(ServerSettings(output=tmp_path, prune_days=0.0), ledger, hold=Eager())
    assert mine.exists() and left(pictures) == []
    assert len(list((tmp_path / REFERENCES).glob("*"))) == 3  # it may have been made with any of them


def test_a_wrong_clock_takes_nothing_at_once(stored: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a server whose clock is years ahead, after a flat battery, and which removes everybody's pictures."""
    ledger, pictures = stored
    settings, seconds = ServerSettings(output=tmp_path, prune_days=30), [0.0]
    hold = Hold(lambda: seconds[0])
    wrong = time.time() + 10 * 365 * DAY
    assert [prune(settings, ledger, wrong) for _ in range(3)] == [0, 0, 0]
    assert [prune(settings, ledger, wrong, hold) for _ in range(3)] == [0, 0, 0] and len(left(pictures)) == 5
    (said, *_) = [record.getMessage() for record in caplog.records]
    assert said.startswith("5 of 5 pictures are too old, which is more than half. None is removed yet: is the clock ")
    seconds[0] = HOLD_SECONDS  # nobody has set it right
    assert prune(settings, ledger, wrong, hold) == 2 and left(pictures) == [2, 3, 4]
    assert prune(settings, ledger, wrong, hold) == 0
    assert prune(settings, ledger, hold=hold) == 0  # now it is right
    seconds[0] = 2 * HOLD_SECONDS
    assert prune(settings, ledger, wrong, hold) == 0 and len(left(pictures)) == 3  # wrong once more: from the start


def test_the_last_picture_goes_too(stored: Any, tmp_path: Path) -> None:
    """Catches a picture that stays for good because it is always more than half of all."""
    ledger, pictures = stored
    settings, hours = ServerSettings(output=tmp_path, prune_days=0.0), iter(range(0, 1000, 12))
    hold = Hold(lambda: next(hours) * 3600.0)
    gone = [prune(settings, ledger, hold=hold) for _ in range(6)]
    assert sum(gone) == 5 and max(gone) == 2 and left(pictures) == []


def test_a_clock_that_jumps_makes_nothing_older(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches ages by a wall clock that is set while the server runs, forward or back, for pictures and uploads."""
    right = time.time
    upload = tmp_path / "a" / "image.png"
    upload.parent.mkdir()
    Image.new("RGB", (8, 8)).save(upload)
    for jump in (30 * DAY, -30 * DAY):
        monkeypatch.setattr(time, "time", lambda jump=jump: right() + jump)
        assert now_for_ages() <= right() + 1 and sweep(tmp_path) == 0 and upload.exists()


def test_the_order_is_that_of_entry(stored: Any, tmp_path: Path) -> None:
    """Catches the newest picture that goes first, because the clock was set back after the others."""
    ledger, pictures = stored
    with ledger.transaction() as db:
        for number, picture in enumerate(pictures):
            made = time.time() + (5 - number) * DAY
            db.execute("UPDATE pictures SET made = ? WHERE id = ?", (made, picture.id))
    assert [found.picture for found in recent(ledger, "browser:ann")] == pictures[::-1]
    room = sum(path.stat().st_size for path in [*tmp_path.glob("*.png"), *(tmp_path / REFERENCES).glob("*")]) - 1
    assert prune(ServerSettings(output=tmp_path, prune_gb=room / 10**9), ledger) == 1
    assert left(pictures) == [1, 2, 3, 4]


def test_one_that_cannot_be_removed_keeps_no_other(stored: Any, tmp_path: Path) -> None:
    """Catches pruning that ends for good at a folder of a picture's name."""
    ledger, pictures = stored
    pictures[0].path.unlink()
    pictures[0].path.mkdir()
    assert prune(ServerSettings(output=tmp_path, prune_days=2.5), ledger) == 1
    assert pictures[0].path.is_dir() and not pictures[1].path.exists()


def test_jobs_without_pictures_are_forgotten(stored: Any, tmp_path: Path) -> None:
    """Catches a ledger that grows for ever with every job that was stopped."""
    ledger, pictures = stored
    job = Job(GenerationRequest.create(load_model_config("demo"), seed=1), ANN)
    ledger.accepted(job)
    job.reach(state="cancelled")
    ledger.ended(job)
    forget_jobs(ledger, before=time.time() - 60)
    assert ended_status(ledger, job.id) is not None
    forget_jobs(ledger, before=time.time() + 60)
    assert ended_status(ledger, job.id) is None and len(recent(ledger, "browser:ann", 9)) == len(pictures)


def test_the_notice_says_what_is_removed(tmp_path: Path) -> None:
    """Catches rules that nobody knows of."""
    text = notice(ServerSettings(output=tmp_path, prune_days=7, prune_gb=20))
    assert text == (
        "This server removes pictures after 7 days and oldest first when all together take more than 20 GB. "
        "Download what you want to keep."
    )
