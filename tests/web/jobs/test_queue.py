"""The queue: order, positions, limits, cancelling, and what is known of jobs that are over."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.scripted import ANN, BEN, PATIENCE, Script, ledger_of, states, submit, until
from uso.request.request import ReferenceImage
from uso.web.jobs import job_index
from uso.web.jobs.admission import LimitError
from uso.web.jobs.job import Job
from uso.web.store.history import outcome
from uso.web.store.ledger import FOLDER


def test_jobs_are_made_one_at_a_time_in_the_order_they_came(run: Any, request_for: Any) -> None:
    """Catches a queue that loses its order, or a second thread at the model (the script asserts)."""
    script = Script(free=False)
    queue = run(script)
    jobs = [submit(queue, request_for(name), ANN) for name in "abc"]
    until(lambda: jobs[0].status.state == "running")
    assert states(*jobs) == ["running", "queued", "queued"]
    assert [job.status.ahead for job in jobs[1:]] == [1, 2]
    script.steps.release(100)
    until(lambda: jobs[-1].status.over)
    assert script.seen == ["a", "b", "c"] and states(*jobs) == ["done"] * 3


def test_positions_shrink_as_the_queue_moves(run: Any, request_for: Any) -> None:
    """Catches positions that are counted once, when a job arrives."""
    script = Script(free=False)
    queue = run(script)
    jobs = [submit(queue, request_for(name), ANN) for name in "abc"]
    until(lambda: jobs[0].status.state == "running")
    queue.cancel(jobs[1].id)
    assert jobs[2].status.ahead == 1


def test_stop_ends_a_running_job_after_the_step_it_is_at(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches a flag that is only read between pictures, and a generator that is left hanging."""
    script = Script(free=False)
    queue = run(script)
    job, following = submit(queue, request_for("stopped", steps=50), ANN), submit(queue, request_for("next"), ANN)
    script.steps.release(2)
    until(lambda: job.status.step == 2)
    assert queue.cancel(job.id)
    script.steps.release(1)
    until(lambda: job.status.over)
    assert states(job) == ["cancelled"] and job.status.step == 3 and script.closed_early == ["stopped"]
    script.steps.release(100)
    until(lambda: following.status.over)
    assert states(following) == ["done"] and len(list(tmp_path.glob("*.png"))) == 1


def test_stop_takes_a_waiting_job_out_at_once(run: Any, request_for: Any) -> None:
    """Catches a cancelled job that is run all the same."""
    script = Script(free=False)
    queue = run(script)
    first, second = submit(queue, request_for("first"), ANN), submit(queue, request_for("second"), ANN)
    until(lambda: first.status.state == "running")
    assert queue.cancel(second.id) and states(second) == ["cancelled"]
    script.steps.release(100)
    until(lambda: first.status.over)
    queue.close()
    assert queue.join(PATIENCE) and script.seen == ["first"]
    assert not queue.cancel(second.id) and not queue.cancel("0" * 32)


def test_stop_after_the_last_picture_changes_nothing(run: Any, request_for: Any) -> None:
    """Catches a finished picture that is called cancelled because Stop came while it was saved."""
    script = Script(free=False)
    job = submit(run(script), request_for(steps=1), ANN)
    until(lambda: job.status.state == "running")
    script.steps.release(1)
    until(lambda: job.status.over or job.status.pictures)
    job.stop.set()
    until(lambda: job.status.over)
    assert states(job) == ["done"]


def test_people_take_turns_and_know_when(run: Any, request_for: Any) -> None:
    """Catches first come, first served, and waiting times that do not know the steps that were measured (2 s each)."""
    script = Script(free=False)
    queue = run(script)
    first = submit(queue, request_for("a1"), ANN)
    until(lambda: first.status.state == "running")
    second, other = submit(queue, request_for("a2"), ANN), submit(queue, request_for("b1"), BEN)
    assert (other.status.ahead, second.status.ahead) == (1, 2)
    assert other.status.seconds_to_start is None
    script.steps.release(2)
    until(lambda: first.status.step == 2)
    queue.cancel(submit(queue, request_for("c"), BEN).id)  # updates all positions
    assert other.status.seconds_to_start == pytest.approx(2.0, abs=1.0)
    assert second.status.seconds_to_start == pytest.approx(2.0 + 3 * 2.0, abs=1.0)
    script.steps.release(100)
    until(lambda: second.status.over)
    assert script.seen == ["a1", "b1", "a2"]


def test_limits_are_held(run: Any, request_for: Any) -> None:
    """Catches a limit that counts running jobs, or counts everybody as one person."""
    script = Script(free=False)
    queue = run(script, max_waiting=3, max_waiting_per_person=2)
    until(lambda: queue.status.state == "ready")
    first = submit(queue, request_for("1"), ANN)
    until(lambda: first.status.state == "running")
    for name in "23":
        submit(queue, request_for(name), ANN)
    with pytest.raises(LimitError, match="2 requests of yours are waiting"):
        submit(queue, request_for("4"), ANN)
    submit(queue, request_for("5"), BEN)
    with pytest.raises(LimitError, match="3 requests are waiting, and no more can wait here."):
        submit(queue, request_for("6"), BEN)
    assert queue.status.waiting == 3 and queue.status.running == 1


def test_a_slow_disk_holds_nobody_up(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches the ledger written under the queue's lock: a file that is locked would stop steps, pages and probes."""
    script = Script(free=False)
    queue = run(script)
    running = submit(queue, request_for(steps=50), ANN)
    until(lambda: running.status.state == "running")
    with closing(sqlite3.connect(tmp_path / FOLDER / "ledger.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        late: list[Job] = []
        thread = threading.Thread(target=lambda: late.append(submit(queue, request_for("late"), BEN)))
        thread.start()
        until(lambda: queue._places)
        script.steps.release(5)
        until(lambda: running.status.step == 5)  # needs the queue's lock
        assert queue.find(running.id) is running and not late
        other.execute("COMMIT")
    thread.join(PATIENCE)
    script.steps.release(100)
    until(lambda: late and late[0].status.over)
    assert states(running, late[0]) == ["done", "done"]


def test_what_is_over_is_forgotten_in_time_and_still_known(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., Image.Image]
) -> None:
    """Catches a server that grows with every job, and one that knows nothing of a job it made."""
    monkeypatch.setattr(job_index, "RECENT_JOBS", 2)
    queue = run(Script())
    jobs: list[Job] = []
    for number in range(5):
        request = replace(request_for(str(number)), content_images=(ReferenceImage.of(picture(64, 64)),))
        jobs.append(submit(queue, request, ANN))
        until(lambda: jobs[-1].status.over)
    until(lambda: queue.find(jobs[2].id) is None)
    assert all(job.request.content_images == () for job in jobs)
    past = outcome(queue, ledger_of(queue), jobs[0].id)
    assert past is not None and past.state == "done" and past.pictures[0].path == jobs[0].status.pictures[0].path
    assert outcome(queue, ledger_of(queue), "0" * 32) is None
