"""A running Hub with the tiny model, an empty cache for it, and processes that fetch from it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from tests.support.hub_server import HubServer, Repository
from tests.support.tiny_hub import LOCATE, REPO, STYLE, Child, content, repository
from uso.config import ROOT, ModelConfig
from uso.weights.hub.cache import Hub


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("uso.weights.hub.transfer.LONGEST_WAIT", 0.01)
    with HubServer() as running:
        running.repositories[REPO] = repository()
        running.repositories[STYLE] = Repository({"v1/lora.safetensors": content(700, 5)}, commit="2" * 40)
        yield running
        close_session()


@pytest.fixture
def here(server: HubServer, tmp_path: Path) -> Hub:
    """An empty cache for the server's files."""
    return Hub(endpoint=server.url, cache=tmp_path / "hub", token=False, offline=False)


@pytest.fixture
def child(server: HubServer, tmp_path: Path) -> Iterator[Child]:
    """`locate(download=True)` in a process of its own, which knows the Hub from its environment only."""
    processes = []

    def start(config: ModelConfig, code: str = LOCATE, **settings: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), **settings}
        command = [sys.executable, "-c", code, config.model_dump_json()]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
