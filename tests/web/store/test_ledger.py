"""The ledger: what is known of jobs and pictures after a restart, a kill, a moved folder, a damaged file."""

import io
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from uso.config import ROOT, ModelConfig
from uso.errors import OutputError
from uso.request import GenerationRequest, GenerationResult
from uso.web.access.identity import Asker
from uso.web.jobs.job import Job, Picture
from uso.web.store.ledger import CUT_OFF, FOLDER, Ledger, digest, served

ANN, BEN = Asker("at:1", "browser:ann", None), Asker("at:2", "browser:ben", None)


@pytest.fixture
def job_of(demo_config: ModelConfig) -> Callable[..., Job]:
    def make(asker: Asker = ANN, **values: Any) -> Job:
        return Job(GenerationRequest.create(demo_config, seed=5, width=128, height=160, **values), asker)

    return make


def made(job: Job, folder: Path, colour: str = "red") -> tuple[Picture, Image.Image]:
    """A finished picture of a job, its file on the disk."""
    image = Image.new("RGB", (job.request.width, job.request.height), colour)
    result = GenerationResult(
        image=image, request=job.request, model={"name": "script"}, timings={"denoise": 1.5}, peak_memory_gib=None
    )
    path = served(job, result, folder)
    picture = Picture(
        id=digest(path.name)[:32],
        path=path,
        width=job.request.width,
        height=job.request.height,
        seed=job.request.seed,
        num_inference_steps=job.request.num_inference_steps,
        seconds=1.5,
    )
    return picture, image


def kept(ledger: Ledger, job: Job, folder: Path) -> Picture:
    """Accept a job, make its picture, end it."""
    ledger.accepted(job)
    picture, image = made(job, folder)
    ledger.keep(job, picture, image)
    job.reach(state="done", pictures=(picture,))
    ledger.ended(job)
    return picture


def test_history_is_the_owners_newest_first_and_outlives_the_server(tmp_path: Path, job_of: Any) -> None:
    """Catches a history that is lost with the process, mixes people, or is upside down."""
    ledger = Ledger(tmp_path)
    pictures = [kept(ledger, job_of(), tmp_path) for _ in range(3)]
    other = kept(ledger, job_of(BEN), tmp_path)
    ledger.close()
    ledger = Ledger(tmp_path)
    assert [found.picture for found in ledger.history("browser:ann", 10)] == pictures[::-1]
    assert [found.picture for found in ledger.history("browser:ann", 2)] == pictures[:0:-1]
    assert [found.picture for found in ledger.history("browser:ben", 10)] == [other]
    assert ledger.history(None, 10) == [] and ledger.history("browser:nobody", 10) == []
    found = ledger.picture(other.id)
    assert found is not None and (found.owner, found.picture) == ("browser:ben", other)
    with Image.open(io.BytesIO(found.thumb)) as thumb:
        assert thumb.size == (128, 160) and thumb.format == "WEBP"
    ledger.close()


def test_a_picture_whose_file_is_gone_is_not_shown(tmp_path: Path, job_of: Any) -> None:
    """Catches a history of broken pictures after somebody tidied up the folder."""
    ledger = Ledger(tmp_path)
    picture = kept(ledger, job_of(), tmp_path)
    picture.path.unlink()
    assert ledger.history("browser:ann", 10) == [] and ledger.picture(picture.id) is None
    ledger.close()


def test_the_folder_may_move(tmp_path: Path, job_of: Any) -> None:
    """Catches whole paths in the ledger: a volume that is mounted elsewhere would lose its history."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    ledger = Ledger(old)
    kept(ledger, job_of(), old)
    ledger.close()
    old.rename(new)
    ledger = Ledger(new)
    assert ledger.history("browser:ann", 1)[0].picture.path.parent == new
    ledger.close()


def test_a_picture_that_had_to_be_saved_elsewhere_is_found(tmp_path: Path, job_of: Any) -> None:
    """Catches a picture that is looked for where it could not be written."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    ledger = Ledger(here)
    assert ledger.picture(kept(ledger, job_of(), elsewhere).id) is not None
    ledger.close()


KILLED = """
import os, pathlib, signal, sys
from tests.web.store.test_ledger import ANN, Job, Ledger, made
from uso.config import load_model_config
from uso.request import GenerationRequest

folder = pathlib.Path(sys.argv[1])
ledger = Ledger(folder)
request = GenerationRequest.create(load_model_config("demo"), seed=5, width=128, height=160)
saved, waiting = Job(request, ANN), Job(request, ANN)
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
    ledger = Ledger(tmp_path)
    (found,) = ledger.history("browser:ann", 10)
    assert (found.job, found.picture.seed, found.picture.width, found.picture.seconds) == (saved, 5, 128, 1.5)
    assert ledger.outcome(saved) == ("done", "", (found.picture,))
    assert ledger.outcome(waiting) == ("failed", CUT_OFF, ())
    assert not list((tmp_path / FOLDER).glob("*.alive"))[1:]  # the dead server's sign is gone
    ledger.close()


def test_another_server_at_the_same_folder_is_left_alone(tmp_path: Path, job_of: Any) -> None:
    """Catches a start that calls the jobs of a server that still runs cut off."""
    first = Ledger(tmp_path)
    job = job_of()
    first.accepted(job)
    second = Ledger(tmp_path)
    assert second.outcome(job.id) == ("queued", "", ())
    second.close()
    first.close()
    third = Ledger(tmp_path)
    assert third.outcome(job.id) == ("failed", CUT_OFF, ())
    third.close()


def test_a_png_names_its_job_in_a_way_that_opens_nothing(tmp_path: Path, job_of: Any) -> None:
    """Catches a job's id, which is the key to it, in a file that people pass on."""
    job = job_of()
    picture, _ = made(job, tmp_path)
    assert job.id.encode() not in picture.path.read_bytes()


def test_a_damaged_ledger_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Catches a traceback at the start, and a ledger that is silently thrown away."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "ledger.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match=r"cannot be used .* Move that folder away \(no picture is in it, but who"):
        Ledger(tmp_path)


def test_a_full_disk_costs_no_history(tmp_path: Path, job_of: Any) -> None:
    """Catches the advice to throw everybody's history away where its file is sound, and only cannot be written to."""
    ledger = Ledger(tmp_path)
    ledger.accepted(job_of())  # is closed by the next server, which has to write for it
    ledger.close()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(OutputError, match="Make sure that its disk has room and that this user may write there, "):
            Ledger(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_nothing_is_written_after_the_end(tmp_path: Path, job_of: Any) -> None:
    """Catches a ledger that closes twice with an error, or comes back to life."""
    ledger = Ledger(tmp_path)
    ledger.close()
    ledger.close()
    with pytest.raises(sqlite3.Error):
        ledger.accepted(job_of())


def test_the_ledger_is_for_its_server_alone(tmp_path: Path) -> None:
    """Catches ids of jobs, which are secrets, and beginnings of prompts, that every user of the machine can read."""
    ledger = Ledger(tmp_path)
    assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0
    ledger.close()


def test_signs_of_dead_servers_go(tmp_path: Path) -> None:
    """Catches a file for every server that was ever killed."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "dead.alive").touch()
    first = Ledger(tmp_path)
    second = Ledger(tmp_path)
    assert len(list((tmp_path / FOLDER).glob("*.alive"))) == 2
    second.close()
    first.close()
