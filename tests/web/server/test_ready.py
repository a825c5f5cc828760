"""Whether the server calls itself ready: its model, and the folder of its pictures."""

import asyncio
import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.support.scripted import Script, ledger_of, queue_of, until
from uso.config import load_model_config
from uso.web.api.calls import Calls
from uso.web.jobs.queue import JobQueue
from uso.web.page.layout import build_page
from uso.web.server.app import build_app
from uso.web.settings import ServerSettings
from uso.web.store import ledger as ledger_module


async def built(queue: JobQueue) -> FastAPI:
    """In an event loop: Gradio makes one otherwise, and leaves it open."""
    page = build_page(Calls(load_model_config("demo"), queue, ledger_of(queue)), "Because of the test.")
    return build_app(queue, ledger_of(queue), page)


@pytest.mark.usefixtures("uploads")
def test_a_folder_that_takes_no_pictures_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a server that is sent people while it can keep no picture of theirs, and one that stays out for good."""
    monkeypatch.setattr(ledger_module, "CHECK_SECONDS", 10**6)  # at the start, and then when this test says so
    folder = tmp_path / "outputs"
    folder.mkdir()
    queue = queue_of(lambda _: Script(), ServerSettings(output=folder))
    ledger, app = ledger_of(queue), asyncio.run(built(queue))
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    with TestClient(app) as client:
        until(lambda: ledger.fault and queue.status.state == "ready")
        told = client.get("/readyz")
        assert told.status_code == 503 and told.json()["status"] == "failed" and "Retry-After" in told.headers
        assert told.json()["error"] == "Pictures cannot be saved in the output folder (File exists)."
        assert client.get("/healthz").status_code == 200
        folder.unlink()
        ledger.check()
        told = client.get("/readyz")
        assert (told.status_code, told.json()["status"], told.json()["error"]) == (200, "ready", None)
        assert told.json()["workers"] == told.json()["workers_ready"] == 1
        shutil.rmtree(folder)  # wiped: it is made anew
        ledger.check()
        assert client.get("/readyz").status_code == 200 and folder.is_dir()
