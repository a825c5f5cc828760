"""The engine: one job at a time, in order; cancel, failure and the end of the process; the model that is not there yet.

The pipeline here is a script that moves at the pace the test sets; the last test runs the demo model.
"""

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.scripted import PATIENCE, Script, until
from uso import output
from uso.config import ModelConfig
from uso.errors import MissingWeightsError, USOError
from uso.request import GenerationRequest
from uso.web import engine as engine_module
from uso.web.engine import Engine, Job, OnProgress


@pytest.fixture
def request_for(demo_config: ModelConfig) -> Callable[..., GenerationRequest]:
    def make(prompt: str = "", steps: int = 3) -> GenerationRequest:
        return GenerationRequest.create(
            demo_config, prompt=prompt, width=128, height=144, num_inference_steps=steps, seed=7
        )

    return make


@pytest.fixture
def run(tmp_path: Path) -> Generator[Callable[..., Engine], None, None]:
    """`run(script)` starts an engine with it; all are ended with the test."""
    engines: list[Engine] = []
    scripts: list[Script] = []

    def start(load: Callable[[OnProgress], Any] | Script) -> Engine:
        if isinstance(load, Script):
            scripts.append(load)
        engine = Engine(load if callable(load) else lambda on_progress: load, tmp_path)
        engines.append(engine)
        engine.start()
        return engine

    yield start
    for script in scripts:
        script.steps.release(1000)
    for engine in engines:
        engine.close()
        engine.join(0.0)


def states(*jobs: Job) -> list[str]:
    return [job.status.state for job in jobs]


def test_jobs_are_made_one_at_a_time_in_the_order_they_came(run: Any, request_for: Any) -> None:
    """Catches a line that loses its order, or a second thread at the model (the script asserts)."""
    script = Script(free=False)
    engine = run(script)
    jobs = [engine.submit(request_for(name)) for name in "abc"]
    until(lambda: jobs[0].status.state == "running")
    assert states(*jobs) == ["running", "queued", "queued"]
    assert [job.status.ahead for job in jobs[1:]] == [1, 2]
    script.steps.release(100)
    until(lambda: jobs[-1].status.over)
    assert script.seen == ["a", "b", "c"] and states(*jobs) == ["done"] * 3


def test_numbers_in_line_shrink_as_it_moves(run: Any, request_for: Any) -> None:
    """Catches positions that are counted once, when a job arrives."""
    script = Script(free=False)
    engine = run(script)
    jobs = [engine.submit(request_for(name)) for name in "abc"]
    until(lambda: jobs[0].status.state == "running")
    engine.cancel(jobs[1].id)
    assert jobs[2].status.ahead == 1


def test_progress_tells_step_and_time_left(run: Any, request_for: Any) -> None:
    """Catches an estimate that counts the first step's preparations: each step here takes 2 s by the events' clock."""
    script = Script(free=False)
    job = run(script).submit(request_for(steps=10))
    script.steps.release(1)
    until(lambda: job.status.step == 1 and job.status.stage == "denoise")
    assert job.status.num_steps == 10 and job.status.seconds_left is None
    script.steps.release(3)
    until(lambda: job.status.step == 4)
    assert job.status.seconds_left == pytest.approx(12.0)


def test_a_picture_is_on_the_disk_before_it_is_announced(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a status that names a file which is still being written."""
    announced: list[bool] = []
    save = output.save

    def watched(*args: Any) -> Path:
        path = save(*args)
        announced.append(bool(job.status.pictures) or job.status.over)
        return path

    monkeypatch.setattr(engine_module.output, "save", watched)
    script = Script(free=False)
    job = run(script).submit(request_for("a fox"))
    script.steps.release(100)
    until(lambda: job.status.over)
    picture = job.status.pictures[0]
    assert announced == [False]
    assert (picture.width, picture.height, picture.seed, picture.seconds) == (128, 144, 7, 2.0)
    assert output.read(picture.path).values()["prompt"] == "a fox"


def test_stop_ends_a_running_job_after_the_step_it_is_at(run: Any, request_for: Any, tmp_path: Path) -> None:
    """Catches a flag that is only read between pictures, and a generator that is left hanging."""
    script = Script(free=False)
    engine = run(script)
    job, following = engine.submit(request_for("stopped", steps=50)), engine.submit(request_for("next"))
    script.steps.release(2)
    until(lambda: job.status.step == 2)
    assert engine.cancel(job.id)
    script.steps.release(1)
    until(lambda: job.status.over)
    assert states(job) == ["cancelled"] and job.status.step == 3 and script.closed_early == ["stopped"]
    script.steps.release(100)
    until(lambda: following.status.over)
    assert states(following) == ["done"] and len(list(tmp_path.glob("*.png"))) == 1


def test_stop_takes_a_waiting_job_out_at_once(run: Any, request_for: Any) -> None:
    """Catches a cancelled job that is made all the same when its turn comes."""
    script = Script(free=False)
    engine = run(script)
    first, second = engine.submit(request_for("first")), engine.submit(request_for("second"))
    until(lambda: first.status.state == "running")
    assert engine.cancel(second.id) and states(second) == ["cancelled"]
    script.steps.release(100)
    until(lambda: first.status.over)
    engine.close()
    assert engine.join(PATIENCE) and script.seen == ["first"]
    assert not engine.cancel(second.id) and not engine.cancel("0" * 32)


def test_stop_after_the_last_picture_changes_nothing(run: Any, request_for: Any) -> None:
    """Catches a finished picture that is called cancelled because Stop came while it was saved."""
    script = Script(free=False)
    job = run(script).submit(request_for(steps=1))
    until(lambda: job.status.state == "running")
    script.steps.release(1)
    until(lambda: job.status.over or job.status.pictures)
    job.cancelled.set()
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
    engine = run(script)
    job = engine.submit(request_for("a"))
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and job.status.error.startswith(sentence) and "secret" not in job.status.error
    assert "Traceback" in caplog.text
    script.error = None
    following = engine.submit(request_for("b"))
    until(lambda: following.status.over)
    assert states(following) == ["done"]


def test_jobs_wait_for_the_model_and_see_it_load(run: Any, request_for: Any) -> None:
    """Catches a request that is refused or lost because the model was not ready yet."""
    go_on = threading.Event()

    def load(on_progress: OnProgress) -> Script:
        on_progress("Loading transformer", 0.25)
        assert go_on.wait(PATIENCE)
        return Script()

    engine = run(load)
    job = engine.submit(request_for())
    until(lambda: engine.status.stage == "Loading transformer")
    assert engine.status.state == "loading" and engine.status.share == 0.25 and states(job) == ["queued"]
    go_on.set()
    until(lambda: job.status.over)
    assert states(job) == ["done"] and engine.status.state == "ready" and engine.provenance["device"] == "cpu"


def test_a_model_that_cannot_be_loaded_fails_what_waits_and_refuses_what_comes(run: Any, request_for: Any) -> None:
    """Catches jobs that wait for ever behind a load that has failed, and a remedy that gets lost."""
    waiting = threading.Event()

    def load(on_progress: OnProgress) -> Script:
        assert waiting.wait(PATIENCE)
        raise MissingWeightsError("Fetch them with a command.")

    engine = run(load)
    job = engine.submit(request_for())
    waiting.set()
    until(lambda: job.status.over)
    assert states(job) == ["failed"] and engine.status.state == "failed"
    assert job.status.error == engine.status.error == "The model could not be loaded. Fetch them with a command."
    with pytest.raises(USOError, match="Fetch them with a command"):
        engine.submit(request_for())


def test_closing_finishes_what_runs_and_tells_what_waits(run: Any, request_for: Any) -> None:
    """Catches a shutdown that throws away a picture that is nearly done, or leaves a page waiting for ever."""
    script = Script(free=False)
    engine = run(script)
    running, waiting = engine.submit(request_for("a")), engine.submit(request_for("b"))
    until(lambda: running.status.state == "running")
    engine.close()
    assert states(waiting) == ["cancelled"] and "shutting down" in waiting.status.error
    with pytest.raises(USOError, match="shutting down"):
        engine.submit(request_for("c"))
    script.steps.release(100)
    assert engine.join(PATIENCE) and states(running) == ["done"]


def test_joining_stops_a_job_that_takes_longer_than_the_grace(run: Any, request_for: Any) -> None:
    """Catches a process that cannot be ended while a long job runs."""
    script = Script(free=False)
    engine = run(script)
    job = engine.submit(request_for(steps=50))
    until(lambda: job.status.state == "running")
    engine.close()
    threading.Timer(0.2, lambda: script.steps.release(1)).start()
    assert engine.join(0.0) and states(job) == ["cancelled"]


def test_joining_does_not_wait_for_a_model_that_loads(run: Any) -> None:
    """Catches a Ctrl-C that hangs for minutes because tens of gigabytes are on their way."""
    go_on = threading.Event()

    def load(on_progress: OnProgress) -> Script:
        assert go_on.wait(PATIENCE)
        return Script()

    engine = run(load)
    engine.close()
    assert not engine.join(PATIENCE)
    go_on.set()


def test_the_demo_model_makes_a_picture(run: Any, demo_pipeline: Any, demo_config: ModelConfig) -> None:
    """Catches an engine and a pipeline that have grown apart."""
    engine = run(lambda on_progress: demo_pipeline)
    request = GenerationRequest.create(demo_config, width=128, height=128, num_inference_steps=2, seed=3)
    job = engine.submit(request)
    until(lambda: job.status.over)
    assert states(job) == ["done"], job.status.error
    picture = output.read(job.status.pictures[0].path)
    assert picture.values()["seed"] == 3 and picture.model["name"] == "demo"
    assert engine.provenance == demo_pipeline.provenance
