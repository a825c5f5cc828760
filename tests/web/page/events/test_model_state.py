"""What the page shows of the model: loading, ready, failed."""

import threading
from typing import Any

import pytest

from tests.support.scripted import PATIENCE, Script, ledger_of, queue_of, until
from uso.config import ModelConfig
from uso.errors import MissingWeightsError
from uso.web.api.calls import Calls
from uso.web.jobs.queue import JobQueue
from uso.web.page.events.jobs import LATER_TICK_SECONDS, READY_TICK_SECONDS, TICK_SECONDS, JobEvents
from uso.web.settings import ServerSettings


def test_the_page_unlocks_when_the_model_is_ready(
    demo_config: ModelConfig, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a timer that never stops, and a button that is given back while a job of this page runs."""
    go_on = threading.Event()

    def load(on_progress: Any) -> Script:
        on_progress("Loading <vae>", 0.5)
        assert go_on.wait(PATIENCE)
        return Script()

    queue = queue_of(load, settings)
    events = JobEvents(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    until(lambda: queue.status.share == 0.5)
    state, button, timer = events.tick()
    assert "Loading the model: &lt;vae&gt;, 50%" in state and 'aria-valuenow="50"' in state
    assert button["value"] == "Generate when ready" and timer["active"] and timer["value"] == TICK_SECONDS
    monkeypatch.setattr(JobQueue, "loading_seconds", 60.0)
    assert events.tick()[2]["value"] == LATER_TICK_SECONDS
    assert "interactive" not in button  # it is free from the beginning
    go_on.set()
    until(lambda: queue.status.state == "ready")
    state, button, timer = events.tick()
    assert "Ready on CPU" in state and button["value"] == "Generate" and timer["active"] is False
    assert "interactive" not in button
    queue.close()


def test_the_page_goes_on_looking_until_every_worker_is_ready(
    demo_config: ModelConfig, settings: ServerSettings
) -> None:
    """Catches "1 of 2 workers ready" that stays on the page for good."""
    go_on = threading.Event()

    def late(on_progress: Any) -> Script:
        assert go_on.wait(PATIENCE)
        return Script()

    queue = queue_of([lambda on_progress: Script(), late], settings)
    events = JobEvents(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    until(lambda: queue.status.workers_ready == 1)
    state, button, timer = events.tick()
    assert "1 of 2 workers ready" in state and button["value"] == "Generate" and timer["active"]
    go_on.set()
    until(lambda: queue.status.workers_ready == 2)
    assert events.tick()[2]["active"] is False
    queue.close()


def test_a_failed_load_stays_with_its_remedy(demo_config: ModelConfig, settings: ServerSettings) -> None:
    """Catches a page that says that all is well, or nothing at all, when the weights are not there."""

    def load(on_progress: Any) -> Script:
        raise MissingWeightsError("Fetch them with `a command`.")

    queue = queue_of(load, settings)
    events = JobEvents(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    until(lambda: queue.status.state == "failed")
    state, button, timer = events.tick()
    assert "Fetch them with <code>a command</code>." in state and 'role="alert"' in state
    assert button["interactive"] is False and not timer["active"]
    queue.close()


def test_the_page_goes_on_looking_where_workers_come_and_go(demo_config: ModelConfig, settings: ServerSettings) -> None:
    """Catches "2 workers" on the page while one of them is gone."""
    queue = queue_of(lambda on_progress: Script(), settings, workers_change=True)
    events = JobEvents(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    until(lambda: queue.status.state == "ready")
    timer = events.tick()[2]
    assert timer["active"] and timer["value"] == READY_TICK_SECONDS
    queue.close()
