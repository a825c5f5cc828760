"""Opening the ledger: after a kill, beside another server, on a full disk, with a damaged file."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kept import new_job
from uso.config import ROOT
from uso.errors import OutputError
from uso.web.jobs.job import JobStatus
from uso.web.store.history import ended_status, recent
from uso.web.store.ledger import FOLDER
from uso.web.store.recovery import CUT_OFF, open_ledger

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
    assert ended_status(second, job.id) == JobStatus(state="queued", error="", pictures=())
    second.close()
    first.close()
    third = open_ledger(tmp_path)
    assert ended_status(third, job.id) == JobStatus(state="failed", error=CUT_OFF, pictures=())
    third.close()


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
