"""Fixtures for tests of the page: its events over a queue whose pipeline is a script."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import Script, ledger_of, queue_of
from tests.support.visitor import Events
from uso.config import ModelConfig
from uso.web.api.calls import Calls
from uso.web.jobs.queue import JobQueue
from uso.web.settings import ServerSettings


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    (tmp_path / "outputs").mkdir()
    return ServerSettings(output=tmp_path / "outputs")


@pytest.fixture
def queue(settings: ServerSettings, uploads: Path) -> Generator[JobQueue, None, None]:
    """A queue that has not started; the pipeline is a script."""
    made = queue_of(lambda on_progress: Script(), settings)
    yield made
    made.close()


@pytest.fixture
def events(queue: JobQueue, demo_config: ModelConfig) -> Events:
    return Events(Calls(demo_config, queue, ledger_of(queue)))


class Demo(Script):
    """Says that it is the model that the page is for."""

    provenance: dict[str, Any] = {"name": "demo", "title": "Demo", "device": "cpu"}  # noqa: RUF012


@pytest.fixture
def serve(tmp_path: Path, uploads: Path, demo_config: ModelConfig) -> Generator[Callable[..., Events], None, None]:
    """`serve(host=...)`: the page's events over a queue that runs, always in the same output folder."""
    queues: list[JobQueue] = []

    def start(**settings: Any) -> Events:
        (tmp_path / "outputs").mkdir(exist_ok=True)
        queue = queue_of(lambda on_progress: Demo(), ServerSettings(output=tmp_path / "outputs", **settings))
        queues.append(queue)
        queue.start()
        return Events(Calls(demo_config, queue, ledger_of(queue)))

    yield start
    for queue in queues:
        queue.close()
        queue.join(1.0)
