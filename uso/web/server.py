"""The routes around the page, and how the process starts to listen and ends.

`/healthz` says that the process lives, `/readyz` that the model is ready. SIGTERM with open tabs: what waits is told,
what runs is finished and delivered, then the process ends.
"""

import logging
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from gradio.utils import get_upload_folder

from uso.errors import ConfigError
from uso.web.engine import Engine
from uso.web.texts import EXAMPLES_FOLDER
from uso.web.theme import CSS, page_theme

logger = logging.getLogger(__name__)

GRACE_SECONDS = 45.0
"""How long a running job may take to finish after SIGTERM; what stops the container must wait longer."""

RETRY_SECONDS = 5
MAX_UPLOAD = "64mb"
"""Of one image file; larger than any photograph within the pixel limit usually is."""


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything slow happens: connections wait instead of being refused.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{host}:{port} cannot be listened on ({reason}). Choose another --port or --host.") from error


def build_app(engine: Engine, page: gr.Blocks, root_path: str | None = None) -> FastAPI:
    """The page with its routes; entering its lifespan starts the engine."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        shutil.rmtree(get_upload_folder(), ignore_errors=True)

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
            uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=int(GRACE_SECONDS))
        )
        self._app = app
        self._engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for route in self._app.routes:
            stop = getattr(getattr(route, "app", None), "stop_event", None)  # the mounted Gradio app's
            if stop is not None:
                stop.set()
        # In a thread of its own: a signal may arrive while this one holds the engine's lock.
        threading.Thread(target=self._engine.close, name="drain").start()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        began = time.monotonic()
        await super().shutdown(sockets)
