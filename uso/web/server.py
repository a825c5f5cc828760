"""The routes around the page, and what ends with it.

`/healthz` says that the process lives, `/readyz` that the model is ready. Until this module is imported, `boot.py`
answers for both; how the process listens and ends is in `process.py`.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from uso.web.boot import RETRY_SECONDS, Site
from uso.web.engine import Engine
from uso.web.process import GRACE_SECONDS
from uso.web.snippets import EXAMPLES_ROUTE
from uso.web.texts import EXAMPLES_FOLDER
from uso.web.theme import CSS, page_theme

MAX_UPLOAD = "64mb"
"""Of one image file; larger than any photograph within the pixel limit usually is."""

QUEUE_POLL_SECONDS = 0.02
"""How often Gradio's queue looks for something to do. At its own 0.001 an idle server takes 6 % of a core."""


def build_app(engine: Engine, page: gr.Blocks, root_path: str | None = None, grace: float = GRACE_SECONDS) -> FastAPI:
    """The page with its routes. Its lifespan starts the engine, and ends it once the last job is finished.

    Args:
        root_path: the path under which a proxy shows the page, such as `/uso`.
        grace: seconds that a running job has to finish once the process is to end.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()
        await asyncio.to_thread(engine.join, grace)

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
    for pause in ("sleep_when_free", "progress_update_sleep_when_free"):  # Gradio's own, not public
        if hasattr(page._queue, pause):
            setattr(page._queue, pause, QUEUE_POLL_SECONDS)
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


def build_site(app: FastAPI, engine: Engine, grace: float = GRACE_SECONDS) -> Site:
    """What `boot.Front` wants to know of the application that `build_app` made."""

    def drain() -> None:
        engine.close()
        engine.join(grace)

    def stop() -> None:
        for route in app.routes:
            ended = getattr(getattr(route, "app", None), "stop_event", None)  # the mounted Gradio app's
            if ended is not None:
                ended.set()  # else an open tab's stream keeps the process alive
        threading.Thread(target=drain, name="drain", daemon=True).start()

    return Site(app=app, stop=stop, settled=lambda: engine.status.state in ("ready", "failed"))
