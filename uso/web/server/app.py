"""The application: routes, the mounted page, the access stack before both, and what ends with them.

`/healthz` reports that the process lives, `/readyz` whether the model is ready, `/metrics` counts. Until this module is
imported, `starting.py` answers the first two.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from uso.language import told
from uso.web.access.identity import Relay, login_name
from uso.web.access.stack import guarded
from uso.web.access.uploads import FolderLimit
from uso.web.api.downloads import add_downloads
from uso.web.jobs.queue import JobQueue
from uso.web.page import gradio_fit
from uso.web.page.html import EXAMPLES_ROUTE
from uso.web.page.texts import EXAMPLES_FOLDER
from uso.web.page.theme import CSS, HEAD, STATIC, STATIC_ROUTE, page_theme
from uso.web.server.metrics import CONTENT_TYPE, Metrics
from uso.web.server.starting import OPEN_PATHS, RETRY_SECONDS, BuiltApp
from uso.web.store import uploads
from uso.web.store.ledger import Ledger, keep_checking
from uso.web.store.prune import keep_pruning


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
    workers: int
    workers_ready: int
    error: str | None


def build_app(queue: JobQueue, ledger: Ledger, page: gr.Blocks, metrics: Metrics | None = None) -> FastAPI:
    """The page with its routes, without the access stack. Its lifespan starts the workers, and ends them after the last
    job."""
    settings = queue.settings

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()
        keep_checking(ledger, ended)
        keep_pruning(settings, ledger, ended)
        folder = Path(os.environ.get(uploads.VARIABLE, ""))
        if uploads.is_private(folder):
            uploads.keep_sweeping(folder, ended)
        queue.start()
        yield
        ended.set()
        queue.close()
        await asyncio.to_thread(queue.join, settings.grace)
        ledger.close()  # last: open pages read it

    app = FastAPI(title="USO", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_routes(app, queue, ledger, metrics)
    add_downloads(app, ledger)
    app.mount(f"/{EXAMPLES_ROUTE}", StaticFiles(directory=EXAMPLES_FOLDER))
    app.mount(f"/{STATIC_ROUTE}", StaticFiles(directory=STATIC))
    gradio_fit.fit_queue(page)
    gradio_fit.accept_uploads_only(page)
    gradio_fit.limit_sessions(page)
    gradio_fit.fit_scripts(app)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        root_path=settings.root_path or None,
        allowed_paths=[str(EXAMPLES_FOLDER)],
        # The access stack requires the login; this tells Gradio the name.
        auth_dependency=login_name if settings.accounts or settings.user_header else None,
        theme=page_theme(),
        css_paths=CSS,
        head=HEAD,
        max_file_size=settings.max_upload_mb * 10**6,
        footer_links=["api"],  # its settings are for those who develop with Gradio
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=settings.mcp,
        pwa=False,
        show_error=True,
    )


def _add_routes(app: FastAPI, queue: JobQueue, ledger: Ledger, counted: Metrics | None) -> None:
    @app.get("/healthz")
    async def healthz() -> Health:
        """Whether the process lives."""
        return Health(status="alive")

    @app.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    async def readyz() -> JSONResponse:
        """Whether the model is loaded and pictures can be saved: 200, or 503 with how far it is, or why it failed."""
        status = queue.status
        ready = status.state == "ready" and not ledger.fault
        readiness = Readiness(
            status="failed" if ledger.fault else status.state,
            progress=round(status.share, 3),
            stage=status.stage,
            elapsed=round(queue.loading_seconds, 1),
            workers=status.workers,
            workers_ready=status.workers_ready,
            error=told(status.error or ledger.fault) or None,
        )
        headers = {"Cache-Control": "no-store"} | ({} if ready else {"Retry-After": str(RETRY_SECONDS)})
        return JSONResponse(readiness.model_dump(), status_code=200 if ready else 503, headers=headers)

    if counted is not None:

        @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        async def metrics() -> Response:
            """Numbers in Prometheus' text form."""
            return Response(counted.page(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


def built_app(
    queue: JobQueue, ledger: Ledger, page: gr.Blocks, metrics: Metrics, own_url: Callable[[], str]
) -> BuiltApp:
    """The application behind the access stack, for `starting.StartingApp`.

    Args:
        own_url: where this process listens, seen from itself.

    Raises:
        ConfigError: accounts, proxies or MCP tools cannot be used.
    """
    settings, relay = queue.settings, Relay()
    app = build_app(queue, ledger, page, metrics)
    if settings.mcp:
        gradio_fit.fit_tools(page, own_url, relay.own_headers())

    def drain() -> None:
        queue.close()
        queue.join(settings.grace)

    def stop() -> None:
        # In a thread of its own: the event loop must not wait for the queue's lock, and the grace time is long.
        threading.Thread(target=drain, name="drain", daemon=True).start()

    folder = FolderLimit(uploads.MAX_BYTES, uploads.tidied_size)
    return BuiltApp(
        app=guarded(app, settings, open_paths=OPEN_PATHS, relay=relay, upload_folder=folder),
        stop=stop,
        busy=lambda: queue.busy,
        end=lambda: gradio_fit.end_streams(app),
        settled=lambda: queue.status.state in ("ready", "failed"),
    )
