"""Shutdown: queued jobs are cancelled, running ones finished or stopped, and every job ends once."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import ANN, PATIENCE, Script, ledger_of, states, submit, until
from uso.errors import USOError
from uso.web.jobs.job import Job, JobStatus, OnProgress
from uso.web.store.history import outcome
from uso.web.store.ledger import FOLDER


def test_closing_finishes_what_runs_and_cancels_what_is_queued(run: Any, request_for: Any) -> None:
    """Catches a shutdown that throws away a picture that is nearly done, or leaves a page waiting for ever."""
    script = Script(free=False)
    queue = run(script)
    running, waiting = submit(queue, request_for("a"), ANN), submit(queue, request_for("b"), ANN)
    until(lambda: running.status.state == "running")
    queue.close()
    assert states(waiting) == ["cancelled"] and "shutting down" in waiting.status.error
    with pytest.raises(USOError, match="shutting down"):
        submit(queue, request_for("c"), ANN)
    script.steps.release(100)
    assert queue.join(PATIENCE) and states(running) == ["done"]


def test_joining_stops_a_job_that_takes_longer_than_the_grace(run: Any, request_for: Any) -> None:
    """Catches a process that cannot be ended while a long job runs."""
    script = Script(free=False)
    queue = run(script)
    job = submit(queue, request_for(steps=50), ANN)
    until(lambda: job.status.state == "running")
    queue.close()
    threading.Timer(0.2, lambda: script.steps.release(1)).start()
    assert queue.join(0.0) and states(job) == ["cancelled"]


def test_a_job_that_arrives_while_the_server_closes_is_cancelled(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches a job between admission and the queue that nobody ends."""
    queue = run(Script())
    until(lambda: queue.status.state == "ready")
    with closing(sqlite3.connect(tmp_path / FOLDER / "ledger.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        late: list[Job] = []
        thread = threading.Thread(target=lambda: late.append(submit(queue, request_for("late"), ANN)))
        thread.start()
        until(lambda: queue._places)
        queue.close()
        other.execute("COMMIT")
    thread.join(PATIENCE)
    assert states(late[0]) == ["cancelled"] and "shutting down" in late[0].status.error
    assert outcome(queue, ledger_of(queue), late[0].id) == JobStatus(state="cancelled", error=late[0].status.error)


def test_every_job_is_over_once(run: Any, request_for: Any) -> None:
    """Catches a job whose end is reported twice, or never."""
    over: list[str] = []
    script = Script(free=False)
    queue = run(script, on_over=lambda job: over.append(job.id))
    jobs = [submit(queue, request_for(name), ANN) for name in "abcd"]
    until(lambda: jobs[0].status.state == "running")
    queue.cancel(jobs[1].id)
    queue.cancel(jobs[1].id)
    script.steps.release(4)
    until(lambda: jobs[2].status.step == 1)
    queue.cancel(jobs[2].id)
    queue.cancel(jobs[2].id)
    script.steps.release(1)
    until(lambda: jobs[2].status.over)
    queue.close()
    queue.close()
    script.steps.release(100)
    assert queue.join(PATIENCE)
    assert sorted(over) == sorted(job.id for job in jobs)
    assert states(*jobs)[:3] == ["done", "cancelled", "cancelled"]


def test_joining_does_not_wait_for_a_model_that_loads(run: Any) -> None:
    """Catches a Ctrl-C that hangs for minutes because tens of gigabytes are on their way."""
    go_on = threading.Event()

    def load(on_progress: OnProgress) -> Script:
        assert go_on.wait(PATIENCE)
        return Script()

    queue = run(load)
    queue.close()
    assert not queue.join(PATIENCE)
    go_on.set()
