"""Workers: the model loads, runs jobs, fails; progress, previews, the filter. The last test runs the demo model."""

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.scripted import ANN, BEN, PATIENCE, Script, states, submit, until
from uso import output
from uso.config import ModelConfig
from uso.errors import DeviceError, MissingWeightsError, USOError
from uso.request.request import GenerationRequest
from uso.web.jobs import worker as worker_module
from uso.web.jobs.dispatcher import Dispatcher
from uso.web.jobs.job import Job, OnProgress
from uso.web.jobs.safety import Blocked, Safety


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


def test_a_model_that_cannot_be_loaded_fails_queued_jobs_and_refuses_new_ones(run: Any, request_for: Any) -> None:
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


def test_two_workers_share_one_queue_and_neither_has_two_jobs(run: Any, request_for: Any) -> None:
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


@pytest.mark.parametrize("step", ["_job_made", "_job_over"])
def test_a_worker_outlives_what_nobody_expected(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """Catches a thread that dies between two jobs, the worker's or the one that saves, while the server says that it is
    ready; and a job that never ends."""
    monkeypatch.setattr(worker_module.time, "sleep", lambda seconds: None)
    whole, calls = getattr(Dispatcher, step), []

    def fails_once(dispatcher: Dispatcher, job: Job) -> None:
        calls.append(job)
        whole(dispatcher, job)
        if len(calls) == 1:
            raise RuntimeError("planted")

    monkeypatch.setattr(Dispatcher, step, fails_once)
    queue = run(Script())
    jobs = [submit(queue, request_for(name), ANN) for name in "ab"]
    until(lambda: all(job.status.over for job in jobs))
    assert states(*jobs) == ["done", "done"] and "planted" in caplog.text


def test_a_job_that_wants_to_end_the_process_ends_itself(
    run: Any, request_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a library that calls `sys.exit`: the worker's thread would be gone without a word."""
    script = Script()
    script.error = SystemExit(3)
    queue = run(script)
    job = submit(queue, request_for("a"), ANN)
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and "SystemExit" in job.status.error
    script.error = None
    following = submit(queue, request_for("b"), ANN)
    until(lambda: following.status.over)
    assert states(following) == ["done"] and queue.status.state == "ready"


def test_a_worker_that_dies_is_a_fault_that_is_told(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a server without a living worker that says it is ready, and jobs that wait for it for ever."""
    job_made = Dispatcher._job_made

    def dies(dispatcher: Dispatcher, job: Job) -> None:
        job_made(dispatcher, job)
        raise SystemExit(3)

    monkeypatch.setattr(Dispatcher, "_job_made", dies)
    script = Script(free=False)
    queue = run(script)
    first = submit(queue, request_for("a"), ANN)
    until(lambda: first.status.state == "running")
    second = submit(queue, request_for("b"), ANN)
    script.steps.release(100)
    until(lambda: first.status.over and second.status.over)
    assert states(first, second) == ["done", "failed"]
    assert queue.status.state == "failed" and queue.status.workers_ready == 0
    assert queue.status.error == second.status.error == "Worker 0 has ended. Start the server again."
    assert [record.levelname for record in caplog.records if "has ended" in record.getMessage()] == ["CRITICAL"]
    with pytest.raises(USOError, match="Worker 0 has ended"):
        submit(queue, request_for(), ANN)


def test_a_load_that_wants_to_end_the_process_is_a_load_that_failed(run: Any) -> None:
    """Catches an import that ends in SystemExit, and a server that says it is loading for ever."""

    def leaves(on_progress: OnProgress) -> Script:
        raise SystemExit("no driver")

    queue = run(leaves)
    until(lambda: queue.status.state == "failed")
    assert "SystemExit" in queue.status.error


def test_a_filter_checks_prompt_and_picture(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches a blocked prompt that is queued, and a blocked picture that is saved all the same."""
    script = Script()
    safety = Safety(lambda prompt, image: "no foxes" if "fox" in prompt else "too dark" if image else None)
    queue = run(script, safety=safety)
    with pytest.raises(Blocked, match="Blocked by this server's filter: no foxes"):
        submit(queue, request_for("a fox"), ANN)
    job = submit(queue, request_for("a hare"), ANN)
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and job.status.error == "Blocked by this server's filter: too dark"
    assert not list(tmp_path.glob("*.png")) and script.previewed == []  # nobody sees what it has not checked


def test_the_demo_model_makes_a_picture(run: Any, demo_pipeline: Any, demo_config: ModelConfig) -> None:
    """Catches a worker and a pipeline that have grown apart."""
    queue = run(lambda on_progress: demo_pipeline)
    request = GenerationRequest.create(demo_config, width=128, height=128, num_inference_steps=2, seed=3)
    job = submit(queue, request, ANN)
    until(lambda: job.status.over)
    assert states(job) == ["done"], job.status.error
    picture = output.read(job.status.pictures[0].path)
    assert picture.values()["seed"] == 3 and picture.model["name"] == "demo"
    assert queue.provenance == demo_pipeline.provenance
