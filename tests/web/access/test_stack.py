"""The guard around a real app with a real Gradio page: what is refused at the door, in which words, and what passes."""

import asyncio
import itertools
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Generator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import pytest
import safehttpx  # type: ignore[import-untyped]
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from PIL import Image
from starlette.responses import StreamingResponse
from starlette.staticfiles import StaticFiles

from tests.support.scripted import until
from tests.support.served import served
from uso.errors import ConfigError
from uso.web.access.bodies import GIVE_THE_FILE, JSON_BYTES, fault
from uso.web.access.identity import BROWSER_COOKIE, Relay, asker_at, asker_of, request_id_of
from uso.web.access.stack import check_proxies, guarded
from uso.web.settings import ServerSettings

PAGE = {"accept": "text/html,application/xhtml+xml"}
PROXY = ("203.0.113.1", 1)
META = {"_type": "gradio.FileData"}

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


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


@pytest.fixture
def open_app(tmp_path: Path, uploads: Path) -> FastAPI:
    return bare(tmp_path / "app")


@pytest.fixture
def guard(open_app: FastAPI, tmp_path: Path) -> Callable[..., Any]:
    """`guard(user_header=...)`: the app behind a guard with these settings."""

    def make(**settings: Any) -> Any:
        chosen = {"host": "0.0.0.0", "max_upload_mb": 1, **settings}  # its tests call it by any name
        return guarded(open_app, ServerSettings(output=tmp_path, **chosen))

    return make


@pytest.fixture
def client(guard: Callable[..., Any]) -> Generator[TestClient, None, None]:
    with TestClient(guard(), client=("198.51.100.7", 1)) as made:
        yield made


def called(client: TestClient, name: str, data: Any, *more: Any) -> str:
    """The stream of an event of the page, as text; or what it was refused with."""
    answer = client.post(f"/gradio_api/call/{name}", json={"data": [data, *more]})
    if answer.status_code != 200:
        return answer.text
    return client.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text


# Nothing is fetched from elsewhere


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
    assert fault(json.dumps(hello).encode(), "/gradio_api/mcp/", set()) is None
    for body in (call, [hello, call]):
        assert fault(json.dumps(body).encode(), "/gradio_api/mcp", set()) == (GIVE_THE_FILE if refused else None)


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


# How much


@pytest.mark.parametrize("declared", [True, False])
def test_bodies_are_bounded(client: TestClient, declared: bool) -> None:
    """Catches a request that fills the memory, whether it says its size or not."""

    def body(size: int) -> Any:
        data = b"x" * size
        return data if declared else iter([data[: size // 2], data[size // 2 :]])

    assert client.post("/size", content=body(JSON_BYTES)).json() == JSON_BYTES
    answer = client.post("/size", content=body(JSON_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("The request is larger than 1 MB.")


def test_deep_bodies_are_refused_in_words(client: TestClient) -> None:
    """Catches a body that makes a parser run out of stack."""
    for text in ("[" * 500_000 + "]" * 500_000, '{"data": ' + "[" * 100 + "]" * 100 + "}"):
        answer = client.post("/gradio_api/run/raw_image", content=text)
        assert (answer.status_code, answer.json()) == (400, {"detail": "The request is nested deeper than 64 levels."})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"data": [NaN]}', "The request holds NaN, which is no number that JSON has."),
        ('{"data": [1, -Infinity]}', "The request holds -Infinity, which is no number that JSON has."),
        (
            '{"session_hash": "a<gradio-sep>b"}',
            "The session has a name that no page gives itself. Load the page again.",
        ),
        ('{"session_hash": ["a"]}', "The session has a name that no page gives itself. Load the page again."),
    ],
)
def test_what_gradio_stumbles_over_is_refused_in_words(client: TestClient, text: str, sentence: str) -> None:
    """Catches numbers that cannot be written back, and a session's name that Gradio would take apart."""
    answer = client.post("/gradio_api/run/raw_image", content=text)
    assert (answer.status_code, answer.json()) == (400, {"detail": sentence})


@pytest.mark.parametrize("kind", ["declared", "counted", "one file"])
def test_uploads_are_bounded_over_real_sockets(guard: Callable[..., Any], uploads: Path, kind: str) -> None:
    """Catches an upload that fills the disk, leaves its beginning there, or is cut off without a word."""
    size = {"declared": 30_000_000, "counted": 3_000_000, "one file": 1_500_000}[kind]
    with served(guard()) as url:
        status, text = sent_raw(url, upload_head("counted" if kind == "counted" else str(size)), size)
        assert status == 413
        assert '{"detail": "The file is larger than 1 MB. Choose a smaller one."}' in text
    assert [path for path in uploads.rglob("*") if path.is_file()] == []


def upload_head(length: str) -> bytes:
    sizes = "Transfer-Encoding: chunked" if length == "counted" else f"Content-Length: {length}"
    kind = "Content-Type: multipart/form-data; boundary=edge"
    return f"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\n{sizes}\r\n{kind}\r\n\r\n".encode()


PART = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def sent_raw(url: str, head: bytes, size: int) -> tuple[int, str]:
    """Send a body to its end, then read the answer: (status, all of it)."""
    data = (PART + b"x" * size)[: size - 10] + b"\r\n--edge--"
    with connected(url) as connection:
        if b"chunked" in head:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        connection.sendall(head + data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split(b" ")[1]), answer.decode()


def test_an_upload_that_is_broken_off_leaves_nothing(guard: Callable[..., Any], uploads: Path) -> None:
    """Gradio keeps what it has got so far of such a file, under a name that nothing removes: catches a full disk."""
    with served(guard()) as url:
        connection = connected(url)
        connection.sendall(upload_head("900000") + PART + b"x" * 500_000)
        until(lambda: uploads.exists() and list(uploads.iterdir()) != [])
        connection.close()
        until(lambda: list(uploads.iterdir()) == [])


# Who asks


STRANGER = ("198.51.100.7", 1)


def who(app: Any, peer: tuple[str, int] = STRANGER, **headers: str) -> dict[str, Any]:
    with TestClient(app, client=peer) as client:
        answer: dict[str, Any] = client.get("/who", headers={k.replace("_", "-"): v for k, v in headers.items()}).json()
    return answer


def test_only_a_trusted_proxy_says_where_a_caller_is(guard: Callable[..., Any]) -> None:
    """Catches a stranger who is somebody else with each request, by a header."""
    app = guard(trusted_proxies=("203.0.113.0/24",))
    said = {"x_forwarded_for": "192.0.2.9, 192.0.2.5", "x_forwarded_proto": "https", "x_forwarded_host": "example.org"}
    believed = who(app, PROXY, **said)
    assert (believed["person"], believed["scheme"]) == ("at:192.0.2.5", "https")
    assert believed["headers"]["x-forwarded-host"] == "example.org"
    stranger = who(app, STRANGER, **said, forwarded="for=192.0.2.9", x_gradio_server="http://example.org")
    assert (stranger["person"], stranger["scheme"]) == ("at:198.51.100.7", "http")
    assert not {name for name in stranger["headers"] if "forwarded" in name or "gradio" in name}
    assert who(app, ("::ffff:203.0.113.1", 1), **said)["person"] == "at:192.0.2.5"
    assert who(guard(trusted_proxies=()), PROXY, **said)["person"] == "at:203.0.113.1"
    assert who(guard(trusted_proxies=("*",)), STRANGER, **said)["person"] == "at:192.0.2.9"


@pytest.mark.parametrize("entry", ["localhost", "10.0.0.1/8", "", "10.0.0.0-9", "**"])
def test_a_proxy_that_is_no_address_is_refused(entry: str) -> None:
    """Catches a mistyped network that trusts nobody in silence, or everybody."""
    check_proxies(("127.0.0.1", "::1", "10.0.0.0/8", "*"))
    with pytest.raises(ConfigError, match="is no trusted proxy: an address"):
        check_proxies((entry,))


def test_the_proxys_name_is_believed_from_the_proxy_alone(guard: Callable[..., Any]) -> None:
    """Catches a stranger who logs in by sending a name, spelled one way or another."""
    app = guard(user_header="X-Remote-User", trusted_proxies=("203.0.113.1",))
    alice = who(app, PROXY, x_remote_user="alice")
    assert (alice["person"], alice["owner"], alice["name"]) == ("name:alice", "name:alice", "alice")
    assert "x-remote-user" not in alice["headers"]
    assert "Log in at the proxy" in who(app, STRANGER, x_remote_user="alice")["detail"]
    assert "Log in at the proxy" in who(app, PROXY)["detail"]
    with TestClient(app, client=PROXY) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        twin = client.get("/who", headers={"x_remote_user": "root", "X-Remote-User": "alice"}).json()
        assert twin["name"] == "alice" and "x_remote_user" not in twin["headers"]
        assert client.get("/who", headers={"x_remote_user": "root"}).status_code == 401
        twice = client.get("/who", headers=[("x-remote-user", "root"), ("x-remote-user", "alice")])
        assert twice.status_code == 401 and "several x-remote-user headers" in twice.json()["detail"]
        zoe = client.get("/who", headers=[(b"x-remote-user", "Zoë".encode())]).json()
        assert zoe["name"] == "Zoë"
        for name in ("", "a" * 129, "a\x07b"):
            assert client.get("/who", headers={"x-remote-user": name}).status_code == 401
        text = client.get("/", headers=PAGE).text
        assert text == "Log in at the proxy before this server first: it names nobody in x-remote-user."


def test_two_ways_to_log_in_are_one_too_many(guard: Callable[..., Any], tmp_path: Path) -> None:
    """Catches a server that asks the proxy's people for a second password, or forgets the first."""
    with pytest.raises(ConfigError, match="leave one of the two out"):
        guard(user_header="x-user", accounts=tmp_path / "accounts")


def test_a_browser_gets_a_key_with_its_page(client: TestClient) -> None:
    """Catches a history that starts anew with each visit, a program that is taken for a browser, a cached key."""
    assert "set-cookie" not in client.get("/who").headers
    assert client.get("/who").json()["owner"] is None
    first = client.get("/", headers=PAGE)
    assert re.fullmatch(
        rf"{BROWSER_COOKIE}=[\w-]{{43}}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax", first.headers["set-cookie"]
    )
    assert first.headers["cache-control"] == "no-store"
    owner = client.get("/who").json()["owner"]
    assert owner == asker_at(None, cookies=f"{BROWSER_COOKIE}={client.cookies[BROWSER_COOKIE]}").owner
    key = client.cookies[BROWSER_COOKIE]
    again = client.get("/", headers=PAGE).headers["set-cookie"]  # for another year: else all is gone after the first
    assert f"={key}; " in again and "Max-Age=31536000" in again
    client.cookies.clear()
    assert "set-cookie" in client.get("/", headers={**PAGE, "cookie": f"{BROWSER_COOKIE}=name:alice"}).headers


def test_the_cookie_fits_where_the_page_is(guard: Callable[..., Any]) -> None:
    """Catches a cookie that other apps of the same host get, or that travels over plain HTTP."""
    with TestClient(guard(root_path="/uso"), base_url="https://testserver") as client:
        assert "Path=/uso; " in client.get("/", headers=PAGE).headers["set-cookie"]
        assert client.get("/", headers=PAGE).headers["set-cookie"].endswith("; Secure")


def test_keys_are_not_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a log from which histories can be opened."""
    with caplog.at_level(logging.DEBUG, logger="uso"):
        client.get("/", headers=PAGE)
        client.get("/boom")
    assert client.cookies[BROWSER_COOKIE] not in caplog.text


def test_the_server_may_speak_for_its_callers(open_app: FastAPI, tmp_path: Path) -> None:
    """Catches MCP callers that are all one person, and anybody else who claims to be the server."""
    relay = Relay()
    settings = ServerSettings(output=tmp_path, host="0.0.0.0", user_header="x-user", trusted_proxies=())
    app = guarded(open_app, settings, relay=relay)
    alice = asker_at(None, name="alice")
    itself = relay.own_headers()
    with TestClient(app) as client:
        assert client.get("/who", headers={**itself, Relay.CALLER: relay.caller(alice)}).json()["name"] == "alice"
        answer = client.get("/who", headers=itself).json()
        assert answer["name"] == "server" and not {Relay.SELF, Relay.CALLER} & set(answer["headers"])
        assert client.get("/who", headers=Relay().own_headers()).status_code == 401


# Other sites


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "example.org", True),
        ("http://example.org", "example.org", True),
        ("https://example.org", "example.org:443", True),
        ("http://EXAMPLE.org:80", "example.org", True),
        ("http://localhost:7860", "localhost:7860", True),
        ("http://localhost:7861", "localhost:7860", False),
        ("https://evil.example", "example.org", False),
        ("https://example.org.evil.example", "example.org", False),
        ("null", "example.org", False),
        ("http://[", "example.org", False),
    ],
)
def test_other_sites_cannot_act_through_a_browser(client: TestClient, origin: str, host: str, allowed: bool) -> None:
    """Catches a page elsewhere that makes pictures, or stops them, in a visitor's name."""
    headers = {"host": host} | ({"origin": origin} if origin else {})
    answer = client.post("/size", content=b"abc", headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    assert allowed or "This came from another site" in answer.json()["detail"]


def test_behind_a_proxy_the_outer_name_counts(guard: Callable[..., Any]) -> None:
    """Catches a page that refuses its own visitors because the proxy calls the server by another name."""
    headers = {"host": "app:7860", "origin": "https://example.org", "x-forwarded-host": "example.org"}
    with TestClient(guard(trusted_proxies=("203.0.113.1",)), client=PROXY) as client:
        assert client.post("/size", content=b"abc", headers=headers).json() == 3
    with TestClient(guard(trusted_proxies=()), client=PROXY) as client:
        assert client.post("/size", content=b"abc", headers=headers).status_code == 403


def test_other_sites_cannot_read(client: TestClient, open_app: FastAPI) -> None:
    """Gradio lets any site read its answers unless it is on localhost: catches that. Its own preflight is refused."""
    headers = {"origin": "https://evil.example", "host": "example.org"}
    with TestClient(open_app) as bare_client:
        assert bare_client.get("/config", headers=headers).headers["access-control-allow-origin"] == headers["origin"]
    assert "access-control-allow-origin" not in client.get("/config", headers=headers).headers
    preflight = client.options("/gradio_api/upload", headers=headers | {"access-control-request-method": "POST"})
    assert preflight.status_code == 403 and "access-control-allow-origin" not in preflight.headers


# Answers


def test_a_failure_is_a_sentence_and_its_cause_is_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a traceback that strangers see, and one that nobody finds again."""
    with caplog.at_level(logging.ERROR):
        answer = client.get("/boom")
    number = answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert answer.json() == {"detail": f"Something unexpected happened; the server's log has it under {number}."}
    assert number in caplog.text and "a secret of the server" in caplog.text and "Traceback" in caplog.text


def test_what_fails_in_the_middle_is_logged_too(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a second answer inside a first one that has begun."""
    with caplog.at_level(logging.ERROR):
        answer = client.get("/late")
    assert (answer.status_code, answer.text) == (200, "one")
    assert "too late" in caplog.text and answer.headers["x-request-id"] in caplog.text


def test_every_answer_has_an_id_of_its_own_and_careful_headers(client: TestClient) -> None:
    """Catches a request that cannot be found in the log, and a file that a browser takes for a page."""
    answers = [client.get(path) for path in ("/healthz", "/config", "/examples/a.txt", "/nowhere", "/gradio_api/runs")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
    answer = client.get("/who")
    assert answer.json()["id"] == answer.headers["x-request-id"]


def test_no_other_site_shows_a_page_in_its_own(client: TestClient) -> None:
    """Catches a page in an invisible frame, over which somebody elsewhere catches clicks."""
    assert client.get("/", headers=PAGE).headers["content-security-policy"] == "frame-ancestors 'self'"
    assert "content-security-policy" not in client.get("/config").headers


def test_a_header_that_anybody_can_send_is_warned_of(
    guard: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches logins by a proxy's header on a server that takes everybody for the proxy, without a word in the log."""
    guard(user_header="x-user", trusted_proxies=("203.0.113.1",))
    guard(trusted_proxies=("*",))
    assert caplog.text == ""
    guard(user_header="x-user", trusted_proxies=("*",))
    assert "whoever reaches this server can be anybody by sending x-user" in caplog.text


def test_nothing_waits_for_a_stream_to_end(guard: Callable[..., Any]) -> None:
    """Catches a layer that collects an answer before it passes it on: live updates would come all at once."""
    with served(guard()) as url, connected(url) as connection:
        connection.sendall(b"GET /gradio_api/heartbeat/abc HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while b"ALIVE" not in received:
            part = connection.recv(65536)
            assert part
            received += part


def test_websockets_are_not_let_in(client: TestClient) -> None:
    """Catches a connection that no layer looks at."""
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/gradio_api/queue/join"):
        pass
