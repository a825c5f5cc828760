"""A queue whose pipelines are scripts, and requests for it."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import Script, ledger_of, queue_of
from uso.config import ModelConfig
from uso.request.request import GenerationRequest
from uso.web.jobs.job import OnProgress
from uso.web.jobs.queue import JobQueue
from uso.web.jobs.safety import Safety
from uso.web.settings import ServerSettings


@pytest.fixture
def request_for(demo_config: ModelConfig) -> Callable[..., GenerationRequest]:
    def make(prompt: str = "", steps: int = 3) -> GenerationRequest:
        return GenerationRequest.create(
            demo_config, prompt=prompt, width=128, height=144, num_inference_steps=steps, seed=7
        )

    return make


@pytest.fixture
def run(tmp_path: Path) -> Generator[Callable[..., JobQueue], None, None]:
    """`run(script, ...)` starts a queue with a worker for each script; all end with the test."""
    queues: list[JobQueue] = []
    scripts: list[Script] = []

    def start(
        *loads: Callable[[OnProgress], Any] | Script,
        on_over: Any = lambda job: None,
        safety: Safety | None = None,
        **settings: Any,
    ) -> JobQueue:
        scripts.extend(load for load in loads if isinstance(load, Script))
        brought = [_bring(load) if isinstance(load, Script) else load for load in loads]
        queue = queue_of(brought, ServerSettings(output=tmp_path, **settings), on_over=on_over, safety=safety)
        queues.append(queue)
        queue.start()
        return queue

    yield start
    for script in scripts:
        script.steps.release(1000)
    for queue in queues:
        queue.close()
        queue.join(0.0)
        ledger_of(queue).close()


def _bring(script: Script) -> Callable[[OnProgress], Script]:
    return lambda on_progress: script
