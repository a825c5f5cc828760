"""The routes around the page, and how the process starts to listen and ends.

`/healthz` says that the process lives, `/readyz` that the model is ready. SIGTERM with open tabs: what waits is told,
what runs is finished and delivered, then the process ends.
"""

import asyncio
import logging
import shutil
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from uso.web.engine import Engine
from uso.web.port import address
from uso.web.snippets import EXAMPLES_ROUTE
from uso.web.texts import EXAMPLES_FOLDER
from uso.web.theme import CSS, page_theme

logger = logging.getLogger(__name__)

GRACE_SECONDS = 45.0
"""How long a running job may take to finish after SIGTERM before it is stopped."""

LAST_SECONDS = 15
"""From then on: the end of its step, telling its page, closing; what stops a container must wait for both."""

RETRY_SECONDS = 5
MAX_UPLOAD = "64mb"
"""Of one image file; larger than any photograph within the pixel limit usually is."""


def build_app(engine: Engine, page: gr.Blocks, root_path: str | None = None, scratch: Path | None = None) -> FastAPI:
    """The page with its routes. Its lifespan starts the engine, and ends it once the last job is finished.

    Args:
        root_path: the path under which a proxy shows the page, such as `/uso`.
        scratch: a folder of Gradio's copies that is removed at the end.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()
        await asyncio.to_thread(engine.join, GRACE_SECONDS)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    app = FastAPI(title="USO", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        status = engine.status
        ready = status.state == "ready"
        content = {
            "status": status.state,
            "progress": round(status.share, 3),
            "stage": status.stage,
            "elapsed": round(engine.loading_seconds, 1),
            "error": status.error or None,
        }
        headers = {"Cache-Control": "no-store"} | ({} if ready else {"Retry-After": str(RETRY_SECONDS)})
        return JSONResponse(content, status_code=200 if ready else 503, headers=headers)

    app.mount(f"/{EXAMPLES_ROUTE}", StaticFiles(directory=EXAMPLES_FOLDER))
    page.queue(default_concurrency_limit=None, api_open=False)
    # Gradio checks that a file which a client names was uploaded by a client, but only on pages that were launched;
    # a mounted page never is: without this line `{"path": "/etc/passwd"}` is opened.
    page.has_launched = True
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        root_path=root_path,
        allowed_paths=[str(EXAMPLES_FOLDER)],
        theme=page_theme(),
        css_paths=[CSS],
        max_file_size=MAX_UPLOAD,
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        show_error=True,
    )


class Server(uvicorn.Server):
    """uvicorn, but SIGTERM ends it with tabs open too: Gradio's endless streams are told to close."""

    def __init__(self, app: FastAPI, engine: Engine) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=int(GRACE_SECONDS) + LAST_SECONDS,
            )
        )
        self._app = app
        self._engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for route in self._app.routes:
            stop = getattr(getattr(route, "app", None), "stop_event", None)  # the mounted Gradio app's
            if stop is not None:
                stop.set()
        # In a thread of its own: a signal may arrive while this one holds the engine's lock.
        threading.Thread(target=self._drain, name="drain", daemon=True).start()
        super().handle_exit(sig, frame)

    def _drain(self) -> None:
        self._engine.close()
        self._engine.join(GRACE_SECONDS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            logger.info("USO is at %s", address(listener))
