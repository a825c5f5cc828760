"""Pictures are saved beside the worker: what goes on meanwhile, what waits, and what becomes of a failure."""

import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import ANN, BEN, PATIENCE, Script, states, submit, until
from uso import output
from uso.errors import OutputError
from uso.web.api.messages import job_message
from uso.web.jobs.safety import Safety


class Disk:
    """Holds every save until it is let through, or fails it."""

    def __init__(self) -> None:
        self.free = threading.Semaphore(0)
        self.saving = 0
        self.failing: set[int] = set()
        """Numbers of saves, from 1."""
        self._save = output.save

    def save(self, *values: Any, **named: Any) -> Path:
        self.saving += 1
        number = self.saving
        assert self.free.acquire(timeout=PATIENCE)
        if number in self.failing:
            raise OutputError("The picture could not be saved: the disk is full.")
        return self._save(*values, **named)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Generator[Disk, None, None]:
    made = Disk()
    monkeypatch.setattr(output, "save", made.save)
    yield made
    made.free.release(1000)


def test_the_next_job_runs_while_a_picture_is_saved(run: Any, request_for: Any, disk: Disk) -> None:
    """Catches a model that waits for the disk, and a job that is done before its picture is on it."""
    script = Script()
    queue = run(script)
    first, second = submit(queue, request_for("a"), ANN), submit(queue, request_for("b"), BEN)
    until(lambda: disk.saving == 1 and script.seen == ["a", "b"])
    assert states(first) == ["running"] and not first.status.pictures and queue.busy
    disk.free.release(1)
    until(lambda: first.status.over)
    assert states(first) == ["done"] and first.status.pictures[0].path.is_file()
    assert not second.status.over
    disk.free.release(1)
    until(lambda: second.status.over and not queue.busy)
    assert states(second) == ["done"]


def test_the_next_picture_of_a_job_is_made_meanwhile_and_the_message_says_so(
    run: Any, request_for: Any, disk: Disk
) -> None:
    """Catches progress that jumps back when a picture of the same job has been saved."""
    script = Script(free=False)
    queue = run(script)
    job = submit(queue, replace(request_for("a", steps=3), num_images=2), ANN)
    script.steps.release(5)
    until(lambda: disk.saving == 1 and job.status.making == 2 and job.status.step == 2)
    assert job_message(job.status, queue.status).startswith("Picture 2 of 2. Step 2 of 3")
    disk.free.release(1)
    until(lambda: len(job.status.pictures) == 1)
    assert (job.status.step, job.status.making) == (2, 2)
    script.steps.release(1)
    disk.free.release(1)
    until(lambda: job.status.over)
    assert states(job) == ["done"] and [picture.seed for picture in job.status.pictures] == [7, 8]


def test_no_more_than_two_pictures_wait_for_the_disk(run: Any, request_for: Any, disk: Disk) -> None:
    """Catches pictures that fill the memory where the disk is slower than the model."""
    script = Script()
    queue = run(script)
    jobs = [submit(queue, request_for(name), ANN) for name in "abcdef"]
    until(lambda: disk.saving == 1 and len(script.seen) >= 2)
    assert len(script.seen) <= 3
    disk.free.release(100)
    until(lambda: all(job.status.over for job in jobs))
    assert states(*jobs) == ["done"] * 6


@pytest.mark.parametrize("number", [1, 2])
def test_a_picture_that_cannot_be_saved_fails_its_job_and_keeps_the_others(
    run: Any, request_for: Any, disk: Disk, number: int
) -> None:
    """Catches a failure in the second thread that nobody hears of."""
    disk.failing, script = {number}, Script()
    queue = run(script)
    job, following = submit(queue, replace(request_for("a"), num_images=3), ANN), submit(queue, request_for("b"), ANN)
    disk.free.release(100)
    until(lambda: following.status.over)
    assert states(job, following) == ["failed", "done"] and "the disk is full" in job.status.error
    assert len(job.status.pictures) == number - 1


def test_a_blocked_picture_fails_the_job_before_the_rest_is_made(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches a filter whose answer does not reach the model: it would make the rest for nobody."""
    asked = threading.Event()

    def check(prompt: str, image: Any) -> str | None:
        if image is None:
            return None
        asked.set()
        return "too dark"

    script = Script(free=False)
    queue = run(script, safety=Safety(check))
    job = submit(queue, replace(request_for("a"), num_images=4), ANN)
    script.steps.release(3)
    assert asked.wait(PATIENCE)
    while not job.status.over:
        script.steps.release(1)
        until(lambda: job.status.over or script.steps._value == 0)
    assert states(job) == ["failed"] and "too dark" in job.status.error and not list(tmp_path.glob("*.png"))
    assert script.closed_early == ["a"]


def test_a_shutdown_waits_until_the_last_picture_is_saved(run: Any, request_for: Any, disk: Disk) -> None:
    """Catches a process that ends between a picture and its file."""
    queue = run(Script())
    job = submit(queue, request_for("a"), ANN)
    until(lambda: disk.saving == 1)
    queue.close()
    assert queue.busy and not job.status.over
    threading.Timer(0.2, lambda: disk.free.release(1)).start()
    assert queue.join(PATIENCE) and states(job) == ["done"] and job.status.pictures[0].path.is_file()


def test_a_job_that_is_stopped_keeps_the_picture_that_is_being_saved(run: Any, request_for: Any, disk: Disk) -> None:
    """Catches a Stop that throws away what was finished."""
    script = Script(free=False)
    queue = run(script)
    job = submit(queue, replace(request_for("a", steps=3), num_images=2), ANN)
    script.steps.release(4)
    until(lambda: job.status.making == 2 and job.status.step == 1)
    queue.cancel(job.id)
    script.steps.release(1)
    disk.free.release(1)
    until(lambda: job.status.over)
    assert states(job) == ["cancelled"] and len(job.status.pictures) == 1
