"""The proxy's own files in Debian's nginx, in front of the real program: what people and programs get through it.

Only ports, addresses and folders are put into `deploy/*.conf`. Without an nginx on the machine the tests are skipped;
where CI is set they must run.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from gradio_client import Client
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.support.browsing import chromium
from tests.support.running import LONG, PERSON, Program, Started, Stream, ask, free_port, listens, program
from tests.support.scripted import PATIENCE, until
from tools.stress.browsers import CHROMIUM
from uso.config import ROOT
from uso.web.server.starting import STARTING_PAGE

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("proxy"),
    pytest.mark.skipif(NGINX is None and not os.environ.get("CI"), reason="there is no nginx on this machine"),
]

MAIN = """
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/server.conf;
}}
"""


def adapted(name: str, folder: Path, port: int, behind: int) -> str:
    """A file of `deploy/` for this machine; every place that is replaced must be there."""
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("http://app:7860", f"http://127.0.0.1:{behind}"),
        ("resolver 127.0.0.11 ", "resolver 127.0.0.1 "),
        ("/srv/starting.html", str(folder / "starting.html")),
    ):
        assert text.count(old) == 1, f"{name}: {old}"
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(name: str, folder: Path, behind: int) -> Iterator[int]:
    """The port of an nginx with a file of `deploy/`, in front of the port `behind`."""
    assert NGINX is not None, "CI is set, and there is no nginx: install nginx-light"
    port = free_port()
    shutil.copy(STARTING_PAGE, folder)
    (folder / "server.conf").write_text(adapted(name, folder, port, behind), encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker may not look into the test's folder
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user), encoding="utf-8")
    log = folder / "nginx.log"
    command = [NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(log), "-g", "daemon off;"]
    running = Started(command)
    try:
        until(lambda: listens(port) or running.poll() is not None)
        assert running.poll() is None, log.read_text()
        yield port
    finally:
        running.end()


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Program]]:
    """The proxy's port, and the program behind it, its model loaded."""
    folder, behind = tmp_path_factory.mktemp("root"), free_port()
    (folder / "proxy").mkdir()
    with nginx("nginx.conf", folder / "proxy", behind) as port, program(folder, port=behind, paced=True) as running:
        running.wait_until("ready")
        yield port, running


@pytest.fixture(scope="module")
def under_a_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a proxy that shows the program at /uso/."""
    folder, behind = tmp_path_factory.mktemp("subpath"), free_port()
    (folder / "proxy").mkdir()
    with (
        nginx("nginx-subpath.conf", folder / "proxy", behind) as port,
        program(folder, port=behind, ROOT_PATH="/uso") as running,
    ):
        running.wait_until("ready")
        yield port


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("there is no Chromium on this machine")
    with chromium() as made:
        yield made


@pytest.mark.parametrize(("name", "start"), [("nginx.conf", "/"), ("nginx-subpath.conf", "/uso/")])
def test_before_the_program_there_is_our_page(tmp_path: Path, name: str, start: str) -> None:
    """Catches nginx' own Bad Gateway, a status that fools health checks, and an error page that somebody keeps."""
    with nginx(name, tmp_path, free_port()) as port:
        for path in (start, f"{start}healthz", f"{start}readyz", f"{start}gradio_api/info"):
            answer = ask(port, path, PERSON)
            assert (answer.status, answer.body) == (502, STARTING_PAGE.read_bytes())
            assert int(answer.headers["retry-after"]) > 0 and answer.headers["cache-control"] == "no-store"
        assert b"model is being initialised" in answer.body and b"one to three minutes" in answer.body
        assert ask(port, "/_starting.html").status == 404


def test_the_proxy_says_who_asks_and_hides_the_figures(tmp_path: Path) -> None:
    """Catches an address that a caller can choose for himself, and figures of the server in front of strangers."""
    seen: list[dict[str, str]] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({"path": self.path} | {name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Recorder) as upstream:
        Thread(target=upstream.serve_forever, daemon=True).start()
        with nginx("nginx-subpath.conf", tmp_path, upstream.server_port) as port:
            lies = {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Host": "evil.example", "Forwarded": "for=9.9.9.9"}
            lies |= {"X-Forwarded-User": "root", "X-Remote-User": "root", "Remote-User": "root"}
            assert ask(port, "/uso/gradio_api/file=a%20b%3Fc%25.png?x=%2F", lies).status == 204
            assert ask(port, "/uso/metrics").status == 404 == ask(port, "/elsewhere").status
        (tmp_path / "root").mkdir()
        with nginx("nginx.conf", tmp_path / "root", upstream.server_port) as other:
            assert ask(other, "/config?y=1", lies).status == 204
            assert ask(other, "/metrics").status == 404
        upstream.shutdown()
    assert [request["path"] for request in seen] == ["/gradio_api/file=a%20b%3Fc%25.png?x=%2F", "/config?y=1"]
    for request, own in zip(seen, (port, other), strict=True):
        assert request["x-forwarded-for"] == "127.0.0.1" and "forwarded" not in request
        assert "root" not in request.values()  # who is logged in
        assert request["host"] == request["x-forwarded-host"] == f"127.0.0.1:{own}"
        assert request["x-forwarded-proto"] == "http"


@pytest.mark.parametrize("name", ["nginx.conf", "nginx-subpath.conf"])
def test_a_stream_passes_word_by_word(tmp_path: Path, name: str) -> None:
    """Catches buffering: the second word is only said when the first one has arrived."""
    heard, in_time = Event(), []

    class Talker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: first\n")
            in_time.append(heard.wait(PATIENCE))
            self.wfile.write(b"data: second\n")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Talker) as upstream:
        Thread(target=upstream.serve_forever, daemon=True).start()
        with nginx(name, tmp_path, upstream.server_port) as port:
            stream = Stream(port, "/uso/stream" if "subpath" in name else "/stream")
            try:
                until(lambda: stream.lines)
            finally:
                heard.set()
            assert stream.ended.wait(LONG) and stream.lines == ["data: first\n", "data: second\n"]
            assert in_time == [True]
        upstream.shutdown()


def test_the_program_is_reached(through: tuple[int, Program]) -> None:
    """Catches a proxy that answers for the program, or an address of the page that leads past the proxy."""
    port, running = through
    assert ask(port, "/", PERSON).body == ask(port, "/").body
    answer = ask(port, "/readyz")
    assert (answer.status, answer.json()["status"]) == (200, "ready")
    root = ask(port, "/config").json()["root"]
    assert root == f"http://127.0.0.1:{port}" != f"http://127.0.0.1:{running.port}"


def test_a_picture_is_made_through_it(through: tuple[int, Program], tmp_path: Path) -> None:
    """Catches an upload, a stream or a download that the proxy cuts off."""
    port, running = through
    make_picture(f"http://127.0.0.1:{port}/", tmp_path)
    assert running.pictures()


def make_picture(url: str, folder: Path) -> None:
    """Upload a style image, make a picture, download it."""
    style = folder / "style.png"
    Image.effect_noise((900, 900), 90).convert("RGB").save(style)
    client = Client(url, download_files=str(folder / "downloads"), verbose=False)
    given = {"path": str(style), "meta": {"_type": "gradio.FileData"}}
    job = client.submit("A fox", style_image=given, num_inference_steps=2, api_name="/generate")
    picture = job.result(timeout=LONG)[0]
    with Image.open(picture) as image:
        image.load()


def parameters(port: int) -> tuple[int, list[str], list[Any]]:
    """Gradio's number of the endpoint, the names of its parameters, and their defaults."""
    (number,) = (each["id"] for each in ask(port, "/config").json()["dependencies"] if each["api_name"] == "generate")
    told = ask(port, "/gradio_api/info").json()["named_endpoints"]["/generate"]["parameters"]
    return number, [each["parameter_name"] for each in told], [each.get("parameter_default") for each in told]


def test_progress_arrives_while_the_picture_is_made(through: tuple[int, Program]) -> None:
    """Catches progress that comes in one lump, when the picture is there."""
    port, running = through
    before = running.pictures()
    number, names, data = parameters(port)
    for name, value in {"prompt": "A fox", "num_inference_steps": 20}.items():
        data[names.index(name)] = value
    session = uuid.uuid4().hex
    wanted = {"data": data, "fn_index": number, "session_hash": session}
    body = json.dumps(wanted).encode()
    assert ask(port, "/gradio_api/queue/join", {"Content-Type": "application/json"}, "POST", body).status == 200
    stream = Stream(port, f"/gradio_api/queue/data?session_hash={session}")

    def messages(kind: str) -> list[Any]:
        told = [json.loads(line.removeprefix("data: ")) for line in list(stream.lines) if line.startswith("data: {")]
        return [each for each in told if each["msg"] == kind]

    until(lambda: messages("progress"), LONG)
    assert running.pictures() == before  # the first word of it came before there was a picture
    until(lambda: messages("process_completed"), LONG)
    assert stream.ended.wait(LONG)
    steps = {part["index"] for each in messages("progress") for part in each["progress_data"]}
    assert len(steps) > 3 and len(running.pictures()) == len(before) + 1


def test_an_upload_over_the_limit_is_refused_at_the_door(through: tuple[int, Program]) -> None:
    """Catches a proxy with a limit of its own, which people read as HTML, and which no flag of the program moves."""
    port, running = through
    answer = ask(port, "/gradio_api/upload", method="POST", body=bytes(90 * 10**6))
    assert answer.status == 413 and b"The file is larger than 64 MB. Choose a smaller one." in answer.body
    assert running.state() == "ready"


def test_under_a_path_programs_find_everything(under_a_path: int, tmp_path: Path) -> None:
    """Catches an address of the page that forgets the path it lives under."""
    port = under_a_path
    answer = ask(port, "/uso?a=b")
    assert answer.status == 308 and answer.headers["location"] == "/uso/"
    assert ask(port, "/uso/readyz").json()["status"] == "ready"
    assert ask(port, "/uso/config").json()["root"] == f"http://127.0.0.1:{port}/uso"
    make_picture(f"http://127.0.0.1:{port}/uso/", tmp_path)


def test_under_a_path_the_page_finds_everything(under_a_path: int, browser: Browser) -> None:
    """Catches a script, font or example picture that is asked for at the root of the host."""
    wrong: list[str] = []
    page = browser.new_page()
    start = f"http://127.0.0.1:{under_a_path}/uso/"
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda request: None if belongs(request.url, start) else wrong.append(request.url))
    page.goto(start)
    expect(page.locator("#generate")).to_be_enabled(timeout=LONG * 1000)
    expect(page.locator("#model-state")).to_contain_text("ready", timeout=LONG * 1000, ignore_case=True)
    pictures = page.locator("#examples img")
    until(lambda: pictures.evaluate_all("all => all.length > 0 && all.every(one => one.naturalWidth > 0)"), LONG)
    page.close()
    assert not wrong, wrong


def belongs(url: str, start: str) -> bool:
    return url.startswith((start, "data:", "blob:"))


@pytest.mark.parametrize(("name", "start"), [("nginx.conf", "/"), ("nginx-subpath.conf", "/uso/")])
def test_a_browser_moves_into_the_program_by_itself(tmp_path: Path, browser: Browser, name: str, start: str) -> None:
    """Catches a starting page that people have to reload, one that moves on too early, and one that never stays."""
    behind = free_port()
    (tmp_path / "proxy").mkdir()
    with nginx(name, tmp_path / "proxy", behind) as port:
        outside: list[str] = []
        page = browser.new_page()
        url = f"http://127.0.0.1:{port}{start}"
        page.on("request", lambda request: None if belongs(request.url, url) else outside.append(request.url))
        page.goto(url)
        expect(page.locator("h1")).to_have_text(re.compile("The model is being initialised"))
        expect(page.locator("[role=status]")).to_have_text("Waiting for the program.")
        loads: list[str] = []
        page.on("load", lambda loaded: loads.append(loaded.url))
        with page.expect_response(lambda answer: answer.url.endswith("healthz") and answer.status == 502):
            pass
        assert not loads  # it asks, and stays where it is
        with program(tmp_path, port=behind, ROOT_PATH=start.rstrip("/")):
            expect(page.locator("#generate")).to_be_visible(timeout=LONG * 1000)
            assert page.url == url and len(loads) == 1
        page.close()
        assert not outside, outside
