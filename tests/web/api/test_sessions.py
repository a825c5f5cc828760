"""Gradio's own bookkeeping of tabs, calls and events, which must neither grow nor stand in anybody's way."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI

from tests.support.scripted import PATIENCE, Script, ledger_of, queue_of, until
from tests.support.served import served
from uso.config import load_model_config
from uso.web.api.calls import Calls
from uso.web.api.endpoints import NO_JOB
from uso.web.jobs.queue import JobQueue
from uso.web.page import gradio_fit
from uso.web.page.layout import build_page
from uso.web.server.app import build_app
from uso.web.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("uploads")

CALL = "/gradio_api/call"
REQUEST = ["a fox", None, None, None, 128, 128, False, 2, 4.0, 128, 1]
"""Values of `/generate`."""


class Site(NamedTuple):
    client: httpx.Client
    page: gr.Blocks
    queue: JobQueue
    gradio: Any
    """The mounted application."""

    def call(self, verb: str, *values: Any) -> str:
        """The stream of a call, to its end."""
        event = self.client.post(f"{CALL}/{verb}", json={"data": list(values)}).json()["event_id"]
        return self.client.get(f"{CALL}/{verb}/{event}", timeout=PATIENCE).text


@contextmanager
def site(folder: Path, script: Script) -> Generator[Site, None, None]:
    """The real application on a socket, unguarded, with room for a hundred jobs of one person."""
    settings = ServerSettings(output=folder, max_waiting_per_person=100, rate=0)
    queue = queue_of(lambda _: script, settings)
    app, page = asyncio.run(_built(queue))
    with served(app) as url, httpx.Client(base_url=url) as client:
        until(lambda: queue.status.state == "ready")
        (gradio,) = (found for route in app.routes if hasattr(found := getattr(route, "app", None), "state_holder"))
        try:
            yield Site(client, page, queue, gradio)
        finally:
            queue.close()
            script.steps.release(10**6)


async def _built(queue: JobQueue) -> tuple[FastAPI, gr.Blocks]:
    """In an event loop: Gradio makes one otherwise, and leaves it open."""
    page = build_page(Calls(load_model_config("demo"), queue, ledger_of(queue)), "Because of the test.")
    return build_app(queue, ledger_of(queue), page), page


def test_sessions_that_are_over_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a server that grows with every call of a program: 0.1 MB each, up to a gigabyte."""
    assert gradio_fit.MAX_SESSIONS <= 1000
    monkeypatch.setattr(gradio_fit, "MAX_SESSIONS", 20)
    with site(tmp_path, Script()) as made:
        for number in range(30):
            _ = made.gradio.state_holder[f"tab {number}"]
        kept = made.gradio.state_holder.session_data
        assert len(kept) == 20 and "tab 9" not in kept and {"tab 10", "tab 29"} <= {*kept}


def test_many_wait_in_our_line_and_others_are_answered_meanwhile(tmp_path: Path) -> None:
    """Catches people beyond the fortieth who wait before the line: without a place in it, their turn, and a Stop."""
    with site(tmp_path, Script(free=False)) as made:
        for _ in range(60):
            assert made.client.post(f"{CALL}/generate", json={"data": REQUEST}).status_code == 200
        until(lambda: made.queue.status.waiting == 59)
        assert NO_JOB in made.call("status", "0" * 32)


def test_a_tab_that_goes_at_the_wrong_moment_stops_nobody_else(tmp_path: Path) -> None:
    """Catches a queue that ends for everybody when an event waits in it whose tab has just gone."""
    with site(tmp_path, Script()) as made:
        gradio_queue: Any = made.page._queue
        (verb,) = (number for number, one in made.page.fns.items() if one.api_name == "status")
        gradio_queue.sleep_when_free = 0.5  # both are there when it looks next
        made.call("status", "0" * 32)
        for session in ("stays", "goes"):
            body = {"data": ["0" * 32], "fn_index": verb, "session_hash": session}
            assert made.client.post("/gradio_api/queue/join", json=body).status_code == 200
        del gradio_queue.pending_messages_per_session["goes"]  # what its stream does when the connection breaks
        until(lambda: len(gradio_queue) == 0)
        assert not gradio_queue.stopped and NO_JOB in made.call("status", "0" * 32)
