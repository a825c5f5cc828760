"""The page's endpoints behind the guard, on a real socket of this process; the pipeline is a test's own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import httpx
from fastapi import FastAPI
from gradio_client import Client

from tests.support.scripted import PATIENCE, ledger_of, queue_of, until
from tests.support.served import served
from uso.config import load_model_config
from uso.web.access.identity import Relay
from uso.web.access.stack import guarded
from uso.web.api.calls import Calls
from uso.web.jobs.job import Pipeline
from uso.web.jobs.queue import JobQueue
from uso.web.page.gradio_fit import fit_tools
from uso.web.page.layout import build_page
from uso.web.settings import ServerSettings


class Offered(NamedTuple):
    url: str
    queue: JobQueue
    settings: ServerSettings

    def client(self, **options: Any) -> Client:
        """A program's own client; its downloads go beside the pictures."""
        folder = self.settings.output.parent / "downloads"
        return Client(
            self.url, token=False, verbose=False, analytics_enabled=False, download_files=str(folder), **options
        )


@contextmanager
def offered(folder: Path, pipeline: Pipeline, *, mcp: bool = False, **settings: Any) -> Iterator[Offered]:
    """A server of the demo's configuration that keeps its pictures in `folder`, with its model ready."""
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    chosen = ServerSettings(output=folder / "outputs", mcp=mcp, **settings)
    queue = queue_of(lambda on_progress: pipeline, chosen)
    relay, found = Relay(), list[str]()
    app = asyncio.run(_app(queue, relay, mcp, lambda: found[0]))
    with served(guarded(app, chosen, relay=relay)) as url:
        found.append(url)
        until(lambda: queue.status.state == "ready")
        yield Offered(url, queue, chosen)
        queue.close()
    queue.join(0.0)
    ledger_of(queue).close()


@contextmanager
def calling(server: Offered, **options: Any) -> Iterator[Client]:
    client = server.client(**options)
    try:
        yield client
    finally:
        client.close()


def plain_call(server: Offered, endpoint: str, body: str) -> str:
    """A call by plain HTTP; all that is answered, from the first request or the second."""
    address = f"{server.url}/gradio_api/call/{endpoint}"
    answer = httpx.post(address, content=body, headers={"content-type": "application/json"})
    if answer.status_code != 200:
        return answer.text
    return httpx.get(f"{address}/{answer.json()['event_id']}", timeout=PATIENCE).text


async def _app(queue: JobQueue, relay: Relay, mcp: bool, own_url: Callable[[], str]) -> FastAPI:
    """In an event loop: Gradio makes one otherwise, and leaves it open."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        queue.start()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        return {"status": queue.status.state, "error": queue.status.error or None}

    page = build_page(Calls(load_model_config("demo"), queue, ledger_of(queue)), "Because of the test.")
    page.queue(default_concurrency_limit=None, api_open=False)
    page.has_launched = True
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=f"{queue.settings.max_upload_mb}mb",
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=mcp,
        show_error=True,
    )
    if mcp:
        fit_tools(page, own_url, relay.own_headers())
    return mounted
