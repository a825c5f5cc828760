"""Nothing in a request makes the server fetch from elsewhere: through a real Gradio page."""

import itertools
import json
import socket
import threading
from collections.abc import Callable, Generator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import safehttpx  # type: ignore[import-untyped]
from fastapi import FastAPI
from fastapi.testclient import TestClient
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from PIL import Image

from tests.support.behind import META, called
from tests.support.served import served
from uso.web.access.contents import GIVE_THE_FILE, examine

# Gradio's own conversion leaves images open.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


class Outside(HTTPServer):
    """Somewhere else: a server that must never be asked, and notes whoever asks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Picture)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.asked.append("a connection")
        return connection, address


class _Picture(BaseHTTPRequestHandler):
    server: Outside

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        content = BytesIO()
        Image.new("RGB", (8, 8)).save(content, "PNG")
        self.wfile.write(content.getvalue())

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Generator[Outside, None, None]:
    """It is on this machine, which Gradio's downloads avoid; here they take it for a public one."""
    monkeypatch.setattr(safehttpx, "is_public_ip", lambda ip: True)
    server = Outside()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ways_to_fetch(url: str) -> list[tuple[str, Callable[[TestClient], Any]]]:
    """Requests with which a stranger can try to make the server fetch `url`."""
    names = (f"{number}.png" for number in itertools.count())  # what was fetched once is not fetched again

    def file(start: str = url) -> dict[str, Any]:
        return {"path": f"{start}/{next(names)}", "meta": META}

    ways: list[tuple[str, Callable[[TestClient], Any]]] = [
        ("file route", lambda client: client.get(f"/gradio_api/file={url}/b.png")),
        ("file route, head", lambda client: client.head(f"/gradio_api/file={url}/c.png")),
        ("older file route", lambda client: client.get(f"/gradio_api/file/{url}/d.png")),
        ("proxy route", lambda client: client.get(f"/gradio_api/proxy={url}/e.png")),
        ("encoded", lambda client: client.get(f"/gradio_api/file={quote(url, safe='')}/f.png")),
    ]
    bodies: dict[str, Callable[[], Any]] = {
        "path": file,
        "path and own url": lambda: file() | {"url": "http://testserver/gradio_api/file=x.png"},
        "url": lambda: {"path": "/tmp/x.png", "url": f"{url}/{next(names)}", "meta": META},
        "in a list": lambda: [{"image": file(), "caption": None}],
        "deeper": lambda: {"a": [{"b": {"c": file()}}]},
        "bare": lambda: f"{url}/{next(names)}",
        "upper case": lambda: f"HTTP{url.removeprefix('http')}/{next(names)}",
        "without scheme": lambda: file(url.removeprefix("http:")),
        "another scheme": lambda: file("ftp://127.0.0.1"),
    }
    for kind, body in bodies.items():
        for name in ("cooked_image", "raw_image", "json_image", "raw_file", "json_file", "raw_gallery", "json_gallery"):
            ways.append((f"{name}, {kind}", partial(called, name=name, data=body())))
    posts: dict[str, dict[str, Any]] = {
        "/gradio_api/run/cooked_image": {"data": [file()]},
        "/gradio_api/api/raw_image": {"data": [file()]},
        "/gradio_api/call/v2/cooked_image": {"value": file()},
        "/gradio_api/run/fails": {"data": [], "event_data": file()},
        "/gradio_api/component_server": {"data": file(), "component_id": 1, "session_hash": "a", "fn_name": "b"},
        "/gradio_api/vibe-starter-queries": {},
    }
    ways += [(path, partial(TestClient.post, url=path, json=content)) for path, content in posts.items()]
    return ways


def test_without_the_guard_gradio_fetches(open_app: FastAPI, outside: Outside) -> None:
    """The planted fault: at least these ways work on a bare Gradio, so that the next test has something to catch."""
    with TestClient(open_app, raise_server_exceptions=False) as client:
        worked: list[str] = []
        for kind, way in ways_to_fetch(outside.url):
            if "vibe" in kind:  # it would ask for Gradio's own site
                continue
            outside.asked.clear()
            way(client)
            if outside.asked:
                worked.append(kind)
    assert {"file route", "cooked_image, path", "raw_image, path", "json_file, bare"} <= set(worked)


def test_nothing_makes_the_server_fetch(client: TestClient, outside: Outside) -> None:
    """Catches every way in which somebody uses this server to reach what they cannot reach, or to hide who asks."""
    for kind, way in ways_to_fetch(outside.url):
        answer = way(client)
        text = answer if isinstance(answer, str) else answer.text
        assert outside.asked == [], kind
        assert GIVE_THE_FILE in text or "There is nothing at this address." in text or kind == "file route, head", kind
        assert "Traceback" not in text


def test_the_pages_own_files_pass(client: TestClient, picture_file: Callable[..., Path]) -> None:
    """Catches a guard that refuses what the page sends: a file that was uploaded, with its address on this server."""
    with picture_file("a.png").open("rb") as file:
        (path,) = client.post("/gradio_api/upload", files={"files": ("a.png", file)}).json()
    own = {"path": path, "url": f"http://testserver/gradio_api/file={path}", "orig_name": "a.png", "meta": META}
    for url in (own["url"], f"/gradio_api/file={path}", None):
        assert "complete" in called(client, "cooked_image", own | {"url": url})
        assert "fox: an image" in called(client, "generate", own | {"url": url}, "fox")
    assert client.get(f"/gradio_api/file={path}").content == picture_file("a.png").read_bytes()


def test_prompts_may_speak_of_addresses(client: TestClient) -> None:
    """Catches a guard that reads a sentence as a file."""
    for prompt in ("a sign that says https://example.org in neon", "http is // not a place", "2 // 3", "and/or"):
        assert f"{prompt}: nothing" in called(client, "generate", None, prompt)


def test_gradio_client_says_why(guard: Callable[..., Any], outside: Outside, picture_file: Callable[..., Path]) -> None:
    """Catches a refusal of which a Python caller only sees "Client error 400"; and a local file that would not pass."""
    with served(guard()) as url:
        client = Client(url, verbose=False, analytics_enabled=False)
        with pytest.raises(ValidationError, match="Give the file itself, not its address"):
            client.predict({"path": f"{outside.url}/a.png", "meta": META}, "fox", api_name="/generate")
        image = handle_file(str(picture_file("a.png")))
        assert client.predict(image, "fox", api_name="/generate") == "fox: an image"
        client.close()
    assert outside.asked == []


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ({"prompt": "a fox", "content_image": "https://example.org/a.png"}, True),
        ({"prompt": "a fox", "content_image": {"path": "https://example.org/a.png"}}, True),
        ({"prompt": "see https://example.org", "content_image": "data:image/png;base64,AAAA"}, False),
    ],
)
def test_tools_are_given_files_too(arguments: dict[str, Any], refused: bool) -> None:
    """Catches the way through MCP, where an image is a plain string; and a client that may not say where it is from."""
    hello = {"method": "initialize", "params": {"clientInfo": {"websiteUrl": "https://example.org"}}}
    call = {"method": "tools/call", "params": {"name": "generate", "arguments": arguments}}
    assert examine(json.dumps(hello).encode(), "/gradio_api/mcp/", set()).fault is None
    for body in (call, [hello, call]):
        assert examine(json.dumps(body).encode(), "/gradio_api/mcp", set()).fault == (
            GIVE_THE_FILE if refused else None
        )


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=x",
        "/gradio_api/vibe-edit",
        "/gradio_api/vibe-code",
        "/gradio_api/run-history/buckets",
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/dev/reload",
        "/gradio_api/custom_component/a/client/b/c",
        "/gradio_api/process_recording",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/mcp",
        "/gradio_api/runs",
    ],
)
def test_routes_that_nobody_needs_are_closed(client: TestClient, path: str) -> None:
    """Catches routes of Gradio's that fetch, that print what a stranger says, or that hold a connection for ever."""
    for method in ("GET", "POST"):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "There is nothing at this address."})
