"""The engine: fair turns, stop, orphans, failure and the end of the process; the model that is not there yet; workers.

The pipeline here is a script that moves at the pace the test sets; the last test runs the demo model.
"""

import io
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.scripted import PATIENCE, Script, until
from tests.support.visitor import submit
from uso import output
from uso.config import ModelConfig
from uso.errors import DeviceError, MissingWeightsError, USOError
from uso.request import GenerationRequest, ReferenceImage
from uso.web.access.identity import Asker
from uso.web.jobs import followers
from uso.web.jobs import roll as roll_module
from uso.web.jobs import worker as worker_module
from uso.web.jobs.admission import LimitError
from uso.web.jobs.job import Job, OnProgress
from uso.web.jobs.queue import ORPHANED, JobQueue
from uso.web.jobs.safety import Blocked, Safety
from uso.web.settings import ServerSettings
from uso.web.store.ledger import FOLDER

ANN, BEN = Asker("at:1", "browser:ann", None), Asker("at:2", "browser:ben", None)


@pytest.fixture
def request_for(demo_config: ModelConfig) -> Callable[..., GenerationRequest]:
    def make(prompt: str = "", steps: int = 3) -> GenerationRequest:
        return GenerationRequest.create(
            demo_config, prompt=prompt, width=128, height=144, num_inference_steps=steps, seed=7
        )

    return make


@pytest.fixture
def run(tmp_path: Path) -> Generator[Callable[..., JobQueue], None, None]:
    """`run(script, ...)` starts an engine with a worker for each; all are ended with the test."""
    engines: list[JobQueue] = []
    scripts: list[Script] = []

    def start(
        *loads: Callable[[OnProgress], Any] | Script, on_over: Any = lambda job: None, **settings: Any
    ) -> JobQueue:
        scripts.extend(load for load in loads if isinstance(load, Script))
        brought = [_bring(load) if isinstance(load, Script) else load for load in loads]
        queue = JobQueue(brought, ServerSettings(output=tmp_path, **settings), on_over=on_over)
        engines.append(queue)
        queue.start()
        return queue

    yield start
    for script in scripts:
        script.steps.release(1000)
    for queue in engines:
        queue.close()
        queue.join(0.0)


def _bring(script: Script) -> Callable[[OnProgress], Script]:
    return lambda on_progress: script


def states(*jobs: Job) -> list[str]:
    return [job.status.state for job in jobs]


def test_jobs_are_made_one_at_a_time_in_the_order_they_came(run: Any, request_for: Any) -> None:
    """Catches a line that loses its order, or a second thread at the model (the script asserts)."""
    script = Script(free=False)
    queue = run(script)
    jobs = [submit(queue, request_for(name), ANN) for name in "abc"]
    until(lambda: jobs[0].status.state == "running")
    assert states(*jobs) == ["running", "queued", "queued"]
    assert [job.status.ahead for job in jobs[1:]] == [1, 2]
    script.steps.release(100)
    until(lambda: jobs[-1].status.over)
    assert script.seen == ["a", "b", "c"] and states(*jobs) == ["done"] * 3


def test_a_worker_whose_device_has_failed_takes_no_more(run: Any, request_for: Any) -> None:
    """Catches a dead GPU that is free again at once, and makes all that wait fail while another one works."""
    dead, alive = Script(), Script(free=False)
    dead.error = DeviceError("The device cuda:0 has failed.")
    queue = run(dead, alive)
    until(lambda: queue.status.workers_ready == 2)
    jobs = [submit(queue, request_for(name), ANN) for name in "abcdef"]
    until(lambda: queue.status.workers_ready == 1)
    alive.steps.release(1000)
    until(lambda: all(job.status.over for job in jobs))
    assert sorted(states(*jobs)) == ["done"] * 5 + ["failed"]
    assert queue.status.state == "ready" and queue.status.error == "The device cuda:0 has failed."
    alive.error = DeviceError("The device cuda:1 has failed.")
    submit(queue, request_for(), ANN)
    until(lambda: queue.status.state == "failed")
    with pytest.raises(USOError, match="cuda:1 has failed"):
        submit(queue, request_for(), ANN)


def test_numbers_in_line_shrink_as_it_moves(run: Any, request_for: Any) -> None:
    """Catches positions that are counted once, when a job arrives."""
    script = Script(free=False)
    queue = run(script)
    jobs = [submit(queue, request_for(name), ANN) for name in "abc"]
    until(lambda: jobs[0].status.state == "running")
    queue.cancel(jobs[1].id)
    assert jobs[2].status.ahead == 1


def test_progress_tells_step_and_time_left(run: Any, request_for: Any) -> None:
    """Catches an estimate that counts the first step's preparations: each step here takes 2 s by the events' clock."""
    script = Script(free=False)
    job = submit(run(script), request_for(steps=10), ANN)
    script.steps.release(1)
    until(lambda: job.status.step == 1 and job.status.stage == "denoise")
    assert job.status.num_steps == 10 and job.status.seconds_left is None
    script.steps.release(3)
    until(lambda: job.status.step == 4)
    assert job.status.seconds_left == pytest.approx(12.0, abs=1.0)


def test_a_picture_is_on_the_disk_before_it_is_announced(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a status that names a file which is still being written."""
    announced: list[bool] = []
    save = output.save

    def watched(*args: Any, **more: Any) -> Path:
        path = save(*args, **more)
        announced.append(bool(job.status.pictures) or job.status.over)
        return path

    monkeypatch.setattr(output, "save", watched)
    script = Script(free=False)
    job = submit(run(script), request_for("a fox"), ANN)
    script.steps.release(100)
    until(lambda: job.status.over)
    picture = job.status.pictures[0]
    assert announced == [False]
    assert (picture.width, picture.height, picture.seed, picture.seconds) == (128, 144, 7, 2.0)
    assert output.read(picture.path).values()["prompt"] == "a fox"


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
    """Catches a cancelled job that is made all the same when its turn comes."""
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


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (USOError("The device ran out of memory. Choose a smaller picture."), "The device ran out of memory."),
        (RuntimeError("secret /path at 0x7f"), "Something unexpected happened (RuntimeError)"),
    ],
)
def test_a_job_that_fails_says_why_and_the_next_one_works(
    run: Any, request_for: Any, caplog: pytest.LogCaptureFixture, error: Exception, sentence: str
) -> None:
    """Catches an error that ends the thread, and a stranger's exception text shown to a person."""
    script = Script()
    script.error = error
    queue = run(script)
    job = submit(queue, request_for("a"), ANN)
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and job.status.error.startswith(sentence) and "secret" not in job.status.error
    assert "Traceback" in caplog.text
    script.error = None
    following = submit(queue, request_for("b"), ANN)
    until(lambda: following.status.over)
    assert states(following) == ["done"]


def test_jobs_wait_for_the_model_and_see_it_load(run: Any, request_for: Any) -> None:
    """Catches a request that is refused or lost because the model was not ready yet."""
    go_on = threading.Event()

    def load(on_progress: OnProgress) -> Script:
        on_progress("Loading transformer", 0.25)
        assert go_on.wait(PATIENCE)
        return Script()

    queue = run(load)
    job = submit(queue, request_for(), ANN)
    until(lambda: queue.status.stage == "Loading transformer")
    assert queue.status.state == "loading" and queue.status.share == 0.25 and states(job) == ["queued"]
    go_on.set()
    until(lambda: job.status.over)
    assert states(job) == ["done"] and queue.status.state == "ready" and queue.provenance["device"] == "cpu"


def test_a_model_that_cannot_be_loaded_fails_what_waits_and_refuses_what_comes(run: Any, request_for: Any) -> None:
    """Catches jobs that wait for ever behind a load that has failed, and a remedy that gets lost."""
    waiting = threading.Event()

    def load(on_progress: OnProgress) -> Script:
        assert waiting.wait(PATIENCE)
        raise MissingWeightsError("Fetch them with a command.")

    queue = run(load)
    job = submit(queue, request_for(), ANN)
    waiting.set()
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and queue.status.state == "failed"
    assert job.status.error == queue.status.error == "The model could not be loaded. Fetch them with a command."
    with pytest.raises(USOError, match="Fetch them with a command"):
        submit(queue, request_for(), ANN)


def test_closing_finishes_what_runs_and_tells_what_waits(run: Any, request_for: Any) -> None:
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


def test_people_take_turns_and_are_told_when(run: Any, request_for: Any) -> None:
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
    queue.cancel(submit(queue, request_for("c"), BEN).id)  # the line is looked at again
    assert other.status.seconds_to_start == pytest.approx(2.0, abs=1.0)
    assert second.status.seconds_to_start == pytest.approx(2.0 + 3 * 2.0, abs=1.0)
    script.steps.release(100)
    until(lambda: second.status.over)
    assert script.seen == ["a1", "b1", "a2"]


def test_limits_are_held(run: Any, request_for: Any) -> None:
    """Catches a limit that counts what is in the making, or everybody for one."""
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


def test_two_workers_share_one_line_and_neither_has_two_jobs(run: Any, request_for: Any) -> None:
    """Catches two jobs on one worker (the scripts assert), and a worker that idles."""
    scripts = [Script(free=False), Script(free=False)]
    queue = run(*scripts)
    until(lambda: queue.status.workers_ready == 2)
    jobs = [submit(queue, request_for(str(number)), (ANN, BEN)[number % 2]) for number in range(8)]
    until(lambda: states(*jobs).count("running") == 2)
    for script in scripts:
        script.steps.release(100)
    until(lambda: all(job.status.over for job in jobs))
    assert states(*jobs) == ["done"] * 8
    assert all(script.seen for script in scripts) and len(scripts[0].seen + scripts[1].seen) == 8


def test_one_worker_whose_model_fails_leaves_the_other(run: Any, request_for: Any) -> None:
    """Catches a server that gives up while it could still make pictures."""

    def broken(on_progress: OnProgress) -> Script:
        raise USOError("There is no device 'cuda:1'.")

    queue = run(broken, Script())
    until(lambda: queue.status.state == "ready")
    job = submit(queue, request_for("a"), ANN)
    until(lambda: job.status.over)
    assert states(job) == ["done"] and (queue.status.workers, queue.status.workers_ready) == (2, 1)
    assert queue.status.error == "The model could not be loaded. There is no device 'cuda:1'."


def test_previews_come_while_it_runs_and_go_when_it_is_over(run: Any, request_for: Any) -> None:
    """Catches a preview in every step (they cost time), one of the last step, and bytes that are kept for ever."""
    script = Script(free=False)
    job = submit(run(script), request_for(steps=20), ANN)
    script.steps.release(4)
    until(lambda: job.status.step == 4)
    assert script.previewed == [3] and job.status.preview is not None
    with Image.open(io.BytesIO(job.status.preview)) as shown:
        assert shown.size == (16, 16)
    script.steps.release(100)
    until(lambda: job.status.over)
    assert script.previewed == [3, 6, 9, 12, 15, 18] and job.status.preview is None


def test_a_preview_that_fails_costs_nothing_but_itself(run: Any, request_for: Any) -> None:
    """Catches a picture that is lost to its preview."""

    class Blind(Script):
        def preview(self, progress: Any, side: int = 256) -> Image.Image | None:
            raise RuntimeError("no map")

    job = submit(run(Blind()), request_for(steps=4), ANN)
    until(lambda: job.status.over)
    assert states(job) == ["done"]


def test_a_job_that_nobody_waits_for_is_stopped_after_a_while(run: Any, request_for: Any) -> None:
    """Catches a GPU that works for closed tabs, waiting or running; and one stream that ends while another goes on."""
    script = Script(free=False)
    queue = run(script, orphan_grace=0.05)
    running, waiting, other = (submit(queue, request_for(steps=50), ANN) for _ in range(3))
    for job in (running, waiting, other):
        queue.attach(job, "a stream")
    queue.attach(other, "another stream of the same tab")
    until(lambda: running.status.state == "running")
    for job in (running, waiting, other):
        queue.detach(job, "a stream")
    until(lambda: waiting.status.over and running.stop.is_set())
    script.steps.release(100)
    until(lambda: running.status.over and other.status.over)
    assert states(running, waiting, other) == ["cancelled", "cancelled", "done"]
    assert running.status.error == waiting.status.error == ORPHANED


def test_a_job_that_nobody_comes_to_follow_is_stopped(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a tab that is closed while its request is being taken: no stream ever ends that could give it up."""
    monkeypatch.setattr(followers, "FOLLOWED_SECONDS", 0.1)
    script = Script(free=False)
    queue = run(script, orphan_grace=0.05)
    left, followed = submit(queue, request_for(steps=50), ANN), submit(queue, request_for(), ANN)
    until(lambda: left.status.state == "running")
    queue.attach(followed, "a stream")
    for job in (left, followed):  # a stream that is there before the word that it will come is not forgotten either
        queue.expect(job)
    until(lambda: left.stop.is_set())
    script.steps.release(100)
    until(lambda: left.status.over and followed.status.over)
    assert states(left, followed) == ["cancelled", "done"]


def test_a_reload_in_time_keeps_the_job(run: Any, request_for: Any) -> None:
    """Catches a clock of the first stream that stops what the second one has taken over."""
    script = Script(free=False)
    queue = run(script, orphan_grace=0.2)
    job, following = submit(queue, request_for(), ANN), submit(queue, request_for(), ANN)
    for one in (job, following):
        queue.attach(one, "before")
        queue.detach(one, "before")
    queue.attach(job, "after the reload")
    until(lambda: following.status.over)  # by now the other's time is up as well
    script.steps.release(100)
    until(lambda: job.status.over)
    assert states(job, following) == ["done", "cancelled"]


def test_many_streams_take_one_thread(run: Any, request_for: Any) -> None:
    """Catches a thread for every stream that ends: a stranger could make thousands."""
    script = Script(free=False)
    queue = run(script, orphan_grace=60.0)
    job = submit(queue, request_for(), ANN)
    before = threading.active_count()
    for number in range(200):
        queue.attach(job, str(number))
        queue.detach(job, str(number))
    assert threading.active_count() <= before and not job.stop.is_set()
    script.steps.release(100)


def test_orphans_are_finished_where_that_is_asked_for(run: Any, request_for: Any) -> None:
    """Catches a setting that nobody reads."""
    script = Script(free=False)
    queue = run(script, orphans="finish", orphan_grace=0.0)
    job = submit(queue, request_for(), ANN)
    queue.attach(job, "a stream")
    queue.detach(job, "a stream")
    script.steps.release(100)
    until(lambda: job.status.over)
    assert states(job) == ["done"]


def test_a_slow_disk_holds_nobody_up(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches the ledger written under the engine's lock: a file that is locked would stop steps, pages and probes."""
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
        until(lambda: running.status.step == 5)  # needs the engine's lock
        assert queue.find(running.id) is running and not late
        other.execute("COMMIT")
    thread.join(PATIENCE)
    script.steps.release(100)
    until(lambda: late and late[0].status.over)
    assert states(running, late[0]) == ["done", "done"]


def test_a_job_that_arrives_while_the_server_closes_is_told(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches a job between the door and the line that nobody ends."""
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
    assert queue.ledger.outcome(late[0].id) == ("cancelled", late[0].status.error, ())


def test_a_worker_outlives_what_nobody_expected(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a thread that dies between two jobs, while the server says that it is ready."""
    monkeypatch.setattr(worker_module.time, "sleep", lambda seconds: None)
    queue = run(Script())
    learn, calls = queue.job_over, []

    def fails_once(worker: Any, job: Job) -> None:
        calls.append(job)
        learn(worker, job)
        if len(calls) == 1:
            raise RuntimeError("planted")

    monkeypatch.setattr(queue, "job_over", fails_once)
    jobs = [submit(queue, request_for(name), ANN) for name in "ab"]
    until(lambda: all(job.status.over for job in jobs))
    assert states(*jobs) == ["done", "done"] and "planted" in caplog.text


def test_a_filter_is_asked_before_and_after(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches a blocked prompt that takes a turn, and a blocked picture that is saved all the same."""
    script = Script()
    queue = run(script)
    queue.safety = Safety(lambda prompt, image: "no foxes" if "fox" in prompt else "too dark" if image else None)
    with pytest.raises(Blocked, match="Blocked by this server's filter: no foxes"):
        submit(queue, request_for("a fox"), ANN)
    job = submit(queue, request_for("a hare"), ANN)
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and job.status.error == "Blocked by this server's filter: too dark"
    assert not list(tmp_path.glob("*.png")) and script.previewed == []  # nobody sees what it has not been asked about


def test_every_job_is_over_once(run: Any, request_for: Any) -> None:
    """Catches a job that is told of twice, or never, whatever ends it."""
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


def test_what_is_over_is_forgotten_in_time_and_still_known(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., Image.Image]
) -> None:
    """Catches a server that grows with every job, and one that knows nothing of a job it made."""
    monkeypatch.setattr(roll_module, "REMEMBERED_JOBS", 2)
    queue = run(Script())
    jobs: list[Job] = []
    for number in range(5):
        request = replace(request_for(str(number)), content_images=(ReferenceImage.of(picture(64, 64)),))
        jobs.append(submit(queue, request, ANN))
        until(lambda: jobs[-1].status.over)
    until(lambda: queue.find(jobs[2].id) is None)
    assert all(job.request.content_images == () for job in jobs)
    past = queue.outcome(jobs[0].id)
    assert past is not None and past.state == "done" and past.pictures[0].path == jobs[0].status.pictures[0].path
    assert queue.outcome("0" * 32) is None


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


def test_the_demo_model_makes_a_picture(run: Any, demo_pipeline: Any, demo_config: ModelConfig) -> None:
    """Catches an engine and a pipeline that have grown apart."""
    queue = run(lambda on_progress: demo_pipeline)
    request = GenerationRequest.create(demo_config, width=128, height=128, num_inference_steps=2, seed=3)
    job = submit(queue, request, ANN)
    until(lambda: job.status.over)
    assert states(job) == ["done"], job.status.error
    picture = output.read(job.status.pictures[0].path)
    assert picture.values()["seed"] == 3 and picture.model["name"] == "demo"
    assert queue.provenance == demo_pipeline.provenance
