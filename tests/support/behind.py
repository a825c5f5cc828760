"""A small app with a real Gradio page, to be put behind the access stack, and ways to call it."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse
from starlette.staticfiles import StaticFiles

from uso.web.access.identity import asker_of, request_id_of

PAGE = {"accept": "text/html,application/xhtml+xml"}

PROXY = ("203.0.113.1", 1)

STRANGER = ("198.51.100.7", 1)

META = {"_type": "gradio.FileData"}


def page() -> gr.Blocks:
    """Events as the real page has them: raw values in and out, beside Gradio's own conversion."""

    def same(value: Any) -> Any:
        return value

    def note(image: Any, prompt: str) -> str:
        return f"{prompt}: {'an image' if image else 'nothing'}"

    def fails() -> None:
        raise RuntimeError("a secret of the server")

    with gr.Blocks(analytics_enabled=False) as made:
        image, file, data = gr.Image(label="image", type="filepath"), gr.File(label="file"), gr.JSON(label="data")
        gallery, box = gr.Gallery(label="gallery"), gr.Textbox(label="box")
        for name, component in (("image", image), ("file", file), ("gallery", gallery)):
            gr.on([], same, [component], [component], api_name=f"cooked_{name}")
            gr.on([], same, [component], [component], api_name=f"raw_{name}", preprocess=False)
            gr.on([], same, [data], [component], api_name=f"json_{name}")
        gr.on([], note, [image, box], [box], api_name="generate", preprocess=False)
        gr.on([], fails, [], [box], api_name="fails")
    made.queue(default_concurrency_limit=None)
    made.has_launched = True
    return made


def bare(folder: Path) -> FastAPI:
    """Our kind of app, unguarded: own routes, files, a page mounted at the root."""

    async def build() -> FastAPI:
        app = FastAPI()

        @app.get("/healthz")
        async def healthz() -> dict[str, str]:
            return {"status": "alive"}

        @app.get("/who")
        async def who(request: Request) -> dict[str, Any]:
            asker = asker_of(request)
            shown = {name: value for name, value in request.headers.items() if name not in ("host", "accept")}
            facts = {"person": asker.person, "owner": asker.owner, "name": asker.name, "id": request_id_of(request)}
            return facts | {"scheme": request.url.scheme, "headers": shown}

        @app.post("/size")
        @app.get("/gradio_api/size")
        @app.post("/gradio_api/size")
        async def size(request: Request) -> int:
            return len(await request.body())

        @app.get("/boom")
        async def boom() -> None:
            raise RuntimeError("a secret of the server")

        @app.get("/late")
        async def late() -> StreamingResponse:
            async def parts() -> Any:
                yield "one"
                raise RuntimeError("too late")

            return StreamingResponse(parts())

        (folder / "examples").mkdir(parents=True)
        (folder / "examples" / "a.txt").write_text("example")
        app.mount("/examples", StaticFiles(directory=folder / "examples"))
        return gr.mount_gradio_app(
            app, page(), path="/", max_file_size=10**6, mcp_server=False, run_history=False, enable_monitoring=False
        )

    return asyncio.run(build())


def called(client: TestClient, name: str, data: Any, *more: Any) -> str:
    """The stream of an event of the page, as text; or what it was refused with."""
    answer = client.post(f"/gradio_api/call/{name}", json={"data": [data, *more]})
    if answer.status_code != 200:
        return answer.text
    return client.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def who(app: Any, peer: tuple[str, int] = STRANGER, **headers: str) -> dict[str, Any]:
    with TestClient(app, client=peer) as client:
        answer: dict[str, Any] = client.get("/who", headers={k.replace("_", "-"): v for k, v in headers.items()}).json()
    return answer
