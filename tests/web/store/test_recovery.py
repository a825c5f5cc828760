"""Opening the ledger: after a kill, beside another server, on a full disk, with a damaged file."""

import errno
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import ImageFile

from tests.support.kept import kept, made, new_job
from uso import output
from uso.config import ROOT
from uso.errors import OutputError
from uso.web.jobs.job import Job, JobStatus
from uso.web.store.history import ended_status, recent
from uso.web.store.ledger import FOLDER
from uso.web.store.recovery import CUT_OFF, NAMED, open_ledger

KILLED = """
import os, pathlib, signal, sys
from tests.support.kept import made, new_job
from uso.web.store.recovery import open_ledger

folder = pathlib.Path(sys.argv[1])
ledger = open_ledger(folder)
saved, waiting = new_job(), new_job()
for job in (saved, waiting):
    ledger.accepted(job)
made(saved, folder)
print(saved.id, waiting.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_saved_pictures_are_found_and_lost_jobs_are_told(tmp_path: Path) -> None:
    """Catches a picture that was finished in the last moment and is in nobody's history, and a job without an end."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == -9, done.stderr
    saved, waiting = done.stdout.split()
    ledger = open_ledger(tmp_path)
    (found,) = recent(ledger, "browser:ann", 10)
    assert (found.job, found.picture.seed, found.picture.width, found.picture.seconds) == (saved, 5, 128, 1.5)
    assert ended_status(ledger, saved) == JobStatus(state="done", error="", pictures=(found.picture,))
    assert ended_status(ledger, waiting) == JobStatus(state="failed", error=CUT_OFF, pictures=())
    assert not list((tmp_path / FOLDER).glob("*.alive"))[1:]  # the dead server's sign is gone
    ledger.close()


def test_another_server_at_the_same_folder_is_left_alone(tmp_path: Path) -> None:
    """Catches a start that calls the jobs of a server that still runs cut off."""
    first = open_ledger(tmp_path)
    job = new_job()
    first.accepted(job)
    second = open_ledger(tmp_path)
    assert ended_status(second, job.id) == JobStatus(state="queued", elsewhere=True)
    first.started(job)
    assert ended_status(second, job.id) == JobStatus(state="running", elsewhere=True)
    second.close()
    first.close()
    third = open_ledger(tmp_path)
    assert ended_status(third, job.id) == JobStatus(state="failed", error=CUT_OFF, pictures=())
    third.close()


def test_a_job_of_a_server_that_ends_is_cut_off_where_another_runs_on(tmp_path: Path) -> None:
    """Catches a job that is queued elsewhere for ever, and a finished picture of it that nobody finds."""
    first, second = open_ledger(tmp_path), open_ledger(tmp_path)
    saved, waiting = new_job(), new_job()
    for job in (saved, waiting):
        first.accepted(job)
    made(saved, tmp_path)
    first.close()
    assert ended_status(second, waiting.id) == JobStatus(state="failed", error=CUT_OFF)
    (found,) = recent(second, "browser:ann")
    assert ended_status(second, saved.id) == JobStatus(state="done", pictures=(found.picture,))
    second.close()


def test_a_job_that_started_late_in_the_records_stays_over(tmp_path: Path) -> None:
    """Catches a job that runs again in the ledger, because the word of its start came after that of its end."""
    ledger = open_ledger(tmp_path)
    job = new_job()
    kept(ledger, job, tmp_path)
    ledger.started(job)
    status = ended_status(ledger, job.id)
    assert status is not None and status.state == "done"
    ledger.close()


def test_an_end_that_could_not_be_entered_is_told(tmp_path: Path) -> None:
    """Catches a job of this server that is queued for ever, because the disk was full when it ended."""
    ledger = open_ledger(tmp_path)
    job = new_job()
    ledger.accepted(job)
    assert ended_status(ledger, job.id) == JobStatus(state="failed", error=CUT_OFF)
    ledger.close()


def crashed(folder: Path, *jobs: Job) -> None:
    """Jobs of a server that has ended without a word."""
    ledger = open_ledger(folder)
    for job in jobs:
        ledger.accepted(job)
    ledger.close()


def strange(folder: Path) -> list[str]:
    """Names in a folder that end like pictures and are none."""
    (folder / "a-link.png").symlink_to(folder / "nothing")
    (folder / "a-ring.png").symlink_to(folder / "a-ring.png")
    (folder / "b-folder.png").mkdir()
    os.mkfifo(folder / "c-pipe.png")
    (folder / "d-device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "e-socket.png"))
    (folder / "f-empty.png").touch()
    (folder / "g-text.png").write_text("no picture")
    return sorted(path.name for path in folder.glob("*.png"))


def test_strange_files_are_no_reason_not_to_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a start that a dangling link refuses, a pipe that it waits at for ever, and silence about them."""
    folder = tmp_path / "o"  # a socket's whole path must be short
    folder.mkdir()
    job = new_job()
    crashed(folder, job)
    names = strange(folder)
    picture, _ = made(job, folder)
    (folder / FOLDER / "wrong.alive").mkdir()
    os.mkfifo(folder / FOLDER / "pipe.alive")
    ledger = open_ledger(folder)
    assert [found.picture.path for found in recent(ledger, "browser:ann")] == [picture.path]
    (said,) = [record.getMessage() for record in caplog.records if "Skipped" in record.getMessage()]
    assert all(name in said for name in names[:NAMED]) and said.endswith(f"And {len(names) - NAMED} more.")
    ledger.close()


def test_a_picture_that_may_not_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a start that one unreadable file refuses."""
    job = new_job()
    crashed(tmp_path, job)
    picture, _ = made(job, tmp_path)
    (tmp_path / "locked.png").write_bytes(picture.path.read_bytes())
    really = os.open

    def refusing(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).endswith("locked.png"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, *rest, **named)

    monkeypatch.setattr(os, "open", refusing)
    ledger = open_ledger(tmp_path)
    assert [found.picture.path for found in recent(ledger, "browser:ann")] == [picture.path]
    ledger.close()


@pytest.mark.parametrize("change", [b"IDAT", b"IHDR"])
def test_a_picture_that_is_damaged_does_not_stop_the_start(tmp_path: Path, change: bytes) -> None:
    """Catches a start that fails at the thumbnail of a picture whose record can be read."""
    job = new_job()
    crashed(tmp_path, job)
    picture, _ = made(job, tmp_path)
    data = picture.path.read_bytes()
    picture.path.write_bytes(data.replace(change, b"IDxT"))
    ledger = open_ledger(tmp_path)
    status = ended_status(ledger, job.id)
    assert status is not None and status.state == "failed" and recent(ledger, "browser:ann") == []
    ledger.close()


def test_after_a_crash_only_what_may_be_lost_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a start that reads every picture of the folder, and one that decodes them to read their record."""
    ledger = open_ledger(tmp_path)
    entered = [kept(ledger, new_job(), tmp_path).path for _ in range(4)]
    ledger.close()
    lost, foreign = new_job(), new_job()
    crashed(tmp_path, lost)
    old, new = made(foreign, tmp_path)[0].path, made(foreign, tmp_path)[0].path
    os.utime(old, (0, 0))
    mine = made(lost, tmp_path)[0].path
    opened: list[Path] = []
    decoded: set[str] = set()
    read, load = output.read, ImageFile.ImageFile.load

    def reading(path: Any) -> Any:
        opened.append(path)
        return read(path)

    def decoding(image: Any) -> Any:
        decoded.add(str(image.filename))
        return load(image)

    monkeypatch.setattr(output, "read", reading)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    ledger = open_ledger(tmp_path)
    assert sorted(opened) == sorted([new, mine]) and entered[0] not in opened
    assert decoded == {str(mine)}  # for its thumbnail
    ledger.close()


def test_a_damaged_ledger_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Catches a traceback at the start, and a ledger that is silently thrown away."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "ledger.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match=r"cannot be used .* Move that folder away \(no picture is in it, but who"):
        open_ledger(tmp_path)


def test_a_full_disk_costs_no_history(tmp_path: Path) -> None:
    """Catches the advice to throw everybody's history away where its file is sound, and only cannot be written to."""
    ledger = open_ledger(tmp_path)
    ledger.accepted(new_job())  # is closed by the next server, which has to write for it
    ledger.close()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(OutputError, match="Make sure that its disk has room and that this user may write there, "):
            open_ledger(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_signs_of_dead_servers_go(tmp_path: Path) -> None:
    """Catches a file for every server that was ever killed."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "dead.alive").touch()
    first = open_ledger(tmp_path)
    second = open_ledger(tmp_path)
    assert len(list((tmp_path / FOLDER).glob("*.alive"))) == 2
    second.close()
    first.close()


def test_the_ledger_is_for_its_server_alone(tmp_path: Path) -> None:
    """Catches ids of jobs, which are secrets, and beginnings of prompts, that every user of the machine can read."""
    ledger = open_ledger(tmp_path)
    assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0
    ledger.close()
