"""The routes around the page, the guard before them, and what ends with them.

`/healthz` says that the process lives, `/readyz` that the model is ready, `/metrics` how it goes. Until this module is
imported, `boot.py` answers for the first two; how the process listens and ends is in `process.py`.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from uso.web.access.identity import Relay, login_name
from uso.web.access.stack import guarded
from uso.web.jobs.queue import JobQueue
from uso.web.page.gradio_fit import fit_tools
from uso.web.page.html import EXAMPLES_ROUTE
from uso.web.page.texts import EXAMPLES_FOLDER
from uso.web.page.theme import CSS, page_theme
from uso.web.server.metrics import CONTENT_TYPE, Metrics
from uso.web.server.starting import RETRY_SECONDS, Site
from uso.web.store import uploads as scratch
from uso.web.store.ledger import Ledger
from uso.web.store.prune import keep_pruning

OPEN_PATHS = ("/healthz", "/readyz", "/metrics")
"""Of these nobody has to log in for: probes cannot. A proxy keeps the last one to itself (deploy/nginx.conf)."""

MAX_SESSIONS = 1000
"""Tabs and calls whose state Gradio keeps, 0.1 MB each; the one that was quiet for longest goes first. At its own
10,000 a server that programs call fills a gigabyte with sessions that are over."""

QUEUE_POLL_SECONDS = 0.02
"""How often Gradio's queue looks for something to do. At its own 0.001 an idle server takes 6 % of a core."""

MAX_EVENTS = 1000
"""What may go on at the same time: everybody who waits or is shown something. Gradio's own 40 would let the next ones
wait before they are in our line, unseen, and their Stop with them."""

RANKS_SECONDS = 3600.0
"""How often Gradio tells everybody their place in its own queue, where nobody waits. At its own "after each event" it
does so in the loop that starts all events, which ends for good if one of those people has just gone."""


class Health(BaseModel):
    """What `/healthz` answers."""

    status: str


class Readiness(BaseModel):
    """What `/readyz` answers."""

    status: str
    """`starting`, `loading`, `ready` or `failed`."""
    progress: float
    """Of the loading, 0 to 1."""
    stage: str
    elapsed: float
    """Seconds since the start, until it was ready or had failed."""
    error: str | None


def build_app(queue: JobQueue, ledger: Ledger, page: gr.Blocks, telemetry: Metrics | None = None) -> FastAPI:
    """The page with its routes, unguarded. Its lifespan starts the engine, and ends it after the last job."""
    settings = queue.settings

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()
        keep_pruning(settings, ledger, ended)
        if (uploads := os.environ.get(scratch.VARIABLE)) and Path(uploads).name.startswith(scratch.PREFIX):
            scratch.keep_sweeping(Path(uploads), ended)
        queue.start()
        yield
        ended.set()
        queue.close()
        await asyncio.to_thread(queue.join, settings.grace)
        ledger.close()  # the last: pages ask it as long as there are any

    app = FastAPI(title="USO", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_routes(app, queue, telemetry)
    app.mount(f"/{EXAMPLES_ROUTE}", StaticFiles(directory=EXAMPLES_FOLDER))
    fit_queue(page)
    # Gradio checks that a file which a client names was uploaded by a client, but only on pages that were launched;
    # a mounted page never is: without this line `{"path": "/etc/passwd"}` is opened.
    page.has_launched = True
    page.state_session_capacity = MAX_SESSIONS  # mounting has no parameter for it
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        root_path=settings.root_path or None,
        allowed_paths=[str(EXAMPLES_FOLDER)],
        # The guard lets nobody past who has not logged in; this tells Gradio who it was.
        auth_dependency=login_name if settings.accounts or settings.user_header else None,
        theme=page_theme(),
        css_paths=[CSS],
        max_file_size=settings.max_upload_mb * 10**6,
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=settings.mcp,
        pwa=False,
        show_error=True,
    )


def fit_queue(page: gr.Blocks) -> None:
    """Gradio's queue passes everything on at once: who waits, waits in the engine's line."""
    page.queue(default_concurrency_limit=None, api_open=False, status_update_rate=RANKS_SECONDS)
    for name, value in (
        ("sleep_when_free", QUEUE_POLL_SECONDS),
        ("progress_update_sleep_when_free", QUEUE_POLL_SECONDS),
        ("max_thread_count", MAX_EVENTS),
    ):
        if hasattr(page._queue, name):  # Gradio's own, not public
            setattr(page._queue, name, value)


def _add_routes(app: FastAPI, queue: JobQueue, telemetry: Metrics | None) -> None:
    @app.get("/healthz")
    async def healthz() -> Health:
        """Whether the process lives."""
        return Health(status="alive")

    @app.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    async def readyz() -> JSONResponse:
        """Whether the model is loaded: 200, or 503 with how far it is, or why it failed."""
        status = queue.status
        ready = status.state == "ready"
        readiness = Readiness(
            status=status.state,
            progress=round(status.share, 3),
            stage=status.stage,
            elapsed=round(queue.loading_seconds, 1),
            error=status.error or None,
        )
        headers = {"Cache-Control": "no-store"} | ({} if ready else {"Retry-After": str(RETRY_SECONDS)})
        return JSONResponse(readiness.model_dump(), status_code=200 if ready else 503, headers=headers)

    if telemetry is not None:

        @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        async def metrics() -> Response:
            """Numbers in Prometheus' text form."""
            return Response(telemetry.page(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


def build_site(
    queue: JobQueue, ledger: Ledger, page: gr.Blocks, telemetry: Metrics, own_url: Callable[[], str]
) -> Site:
    """The guarded application as `boot.Front` wants it.

    Args:
        own_url: where this process listens, seen from itself.

    Raises:
        ConfigError: accounts, proxies or MCP tools that cannot be used.
    """
    settings, relay = queue.settings, Relay()
    app = build_app(queue, ledger, page, telemetry)
    if settings.mcp:
        fit_tools(page, own_url, relay.own_headers())

    def drain() -> None:
        queue.close()
        queue.join(settings.grace)

    def stop() -> None:
        # In a thread of its own: the engine's lock is not for the event loop, and the grace time is long.
        threading.Thread(target=drain, name="drain", daemon=True).start()

    def end() -> None:
        for route in app.routes:
            ended: Any = getattr(getattr(route, "app", None), "stop_event", None)  # the mounted Gradio app's
            if ended is not None:
                ended.set()  # else an open tab's stream keeps the process alive

    return Site(
        app=guarded(app, settings, open_paths=OPEN_PATHS, relay=relay),
        stop=stop,
        busy=lambda: queue.busy,
        end=end,
        settled=lambda: queue.status.state in ("ready", "failed"),
    )
