"""`generate --server`: what is sent, shown, kept and refused.

The server is in this process with a script for its model; the slow tests have the real program.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from huggingface_hub import constants

from tests.support.offered import Offered, offered
from tests.support.running import program
from tests.support.scripted import Script, until
from uso import output
from uso.cli.main import main
from uso.cli.remote_server import RemoteServer
from uso.config import ROOT
from uso.errors import USOError
from uso.request import ReferenceImage
from uso.web.access.accounts import put_account

SMALL = ("--width", "128", "--height", "128", "--steps", "2")


class Ran(NamedTuple):
    status: int
    out: list[str]
    err: str

    @property
    def pictures(self) -> list[Path]:
        return [Path(line) for line in self.out]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's uploads in a folder of their own, and nobody's login or proxy; what the client sets ends."""
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("USO_SERVER_LOGIN", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def uso(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`uso(server, ...)` runs `generate --server URL` in an empty folder."""

    def run(server: Any, *argv: object) -> Ran:
        capsys.readouterr()
        status = main(["generate", "--server", getattr(server, "url", server), *map(str, argv)])
        captured = capsys.readouterr()
        return Ran(status, captured.out.splitlines(), captured.err)

    return run


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(tmp_path: Path, script: Script) -> Generator[Offered, None, None]:
    with offered(tmp_path / "server", script, max_upload_mb=1) as made:
        yield made


def request_of(path: Path) -> dict[str, Any]:
    return dict(output.read(path).record["request"])


# Making pictures.


def test_pictures_are_the_servers_files_and_their_references_are_kept(
    uso: Callable[..., Ran], server: Offered, picture_file: Callable[..., Path]
) -> None:
    """Catches a picture that is encoded again and loses its record, an image sent as another, and a picture that cannot
    be repeated because its references stayed on the server."""
    who, how, too = (picture_file(f"{name}.png", seed=seed) for seed, name in enumerate(("who", "how (1)", "too")))
    images = ("--content", who, "--style", how, "--style", too)
    ran = uso(server, *SMALL, *images, "--prompt", "a fox & 狐", "--seed", 40, "--images", 3, "--guidance", 2)
    assert (ran.status, ran.err) == (0, "")
    theirs = {path.read_bytes() for path in server.settings.output.glob("*.png")}
    assert {path.read_bytes() for path in ran.pictures} == theirs and len(theirs) == 3
    assert all(re.fullmatch(r"outputs/[0-9-]+_seed4[0-2]_a-fox\.png", line) for line in ran.out)
    for path, seed in zip(ran.pictures, (40, 41, 42), strict=True):
        request = request_of(path)
        assert (request["prompt"], request["seed"], request["guidance_scale"]) == ("a fox & 狐", seed, 2.0)
        assert [entry["name"] for entry in request["content_images"]] == ["who.png"]
        assert [entry["name"] for entry in request["style_images"]] == ["how (1).png", "too.png"]
    kept = {path.name for path in Path("outputs/references").iterdir()}
    assert kept == {ReferenceImage.from_path(path).sha256 for path in (who, how, too)}


def test_a_picture_is_repeated_with_its_recorded_references(
    uso: Callable[..., Ran], server: Offered, picture_file: Callable[..., Path]
) -> None:
    """Catches a repetition that leaves out what the record has, and one that differs without a word."""
    who = picture_file("who.png", 200, 150)
    (first,) = uso(server, "--content", who, "--keep-size", "--steps", 2, "--prompt", "fox").pictures
    who.unlink()
    ran = uso(server, "--from", first, "--output", "again")
    assert (ran.status, ran.err) == (0, "") and request_of(ran.pictures[0]) == request_of(first)
    (changed,) = uso(server, "--from", first, "--seed", 3, "--output", "again").pictures
    assert request_of(changed) == request_of(first) | {"seed": 3}
    Script.provenance = {"name": "script", "device": "cpu", "dtype": "bfloat16"}
    try:
        with offered(server.settings.output.parent / "other", Script()) as other:
            ran = uso(other, "--from", first, "--output", "again")
    finally:
        Script.provenance = {"name": "script", "device": "cpu"}
    assert "not promised: dtype was None, is bfloat16." in ran.err


def test_output_names_a_file_that_is_not_there_yet(uso: Callable[..., Ran], server: Offered, script: Script) -> None:
    """Catches a picture of somebody's that is overwritten, and a refusal that comes after the server has worked."""
    assert uso(server, *SMALL, "--output", "new/fox.png").out == ["new/fox.png"]
    seen = len(script.seen)
    ran = uso(server, *SMALL, "--output", "new/fox.png")
    assert ran.status == 2 and "new/fox.png exists already, and nothing is overwritten." in ran.err
    assert "cannot hold several pictures" in uso(server, *SMALL, "--images", 2, "--output", "two.png").err
    assert len(script.seen) == seen


def test_a_terminal_sees_who_is_ahead_and_the_steps(
    uso: Callable[..., Ran], server: Offered, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a command that waits for minutes without a word."""
    script.steps = Script(free=False).steps
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    client = server.client()
    first = client.submit(num_inference_steps=1, api_name="/generate")
    until(first.outputs)
    until(lambda: server.queue.status.running == 1)

    def release() -> None:
        until(lambda: server.queue.status.waiting == 1)
        for wanted in (1, 2, 3):
            threading.Event().wait(0.6)  # longer than the server and the command take to look again
            script.steps.release(1)
            assert wanted

    threading.Thread(target=release, daemon=True).start()
    ran = uso(server, *SMALL)
    client.close()
    assert ran.status == 0
    assert "One picture is ahead of yours." in ran.err and "denoise" in ran.err and "1/2" in ran.err


@pytest.mark.parametrize("state", ["running", "queued"])
def test_ctrl_c_stops_the_job_on_the_server(
    uso: Callable[..., Ran], server: Offered, script: Script, state: str
) -> None:
    """Catches a command that goes away and lets the server work for nobody."""
    script.steps = Script(free=False).steps
    if state == "queued":
        client = server.client()
        until(client.submit(num_inference_steps=1, api_name="/generate").outputs)
        client.close()
    ours: list[str] = []

    def interrupt() -> None:
        def found() -> bool:
            jobs = [job for job in server.queue.roll._open.values() if job.request.prompt == "ours"]
            ours.extend(job.id for job in jobs if job.status.state == state)
            return bool(ours)

        until(found)
        os.kill(os.getpid(), signal.SIGINT)
        job = server.queue.find(ours[0])
        assert job is not None
        until(lambda: job.stop.is_set() or job.status.over)
        script.steps.release(5)

    threading.Thread(target=interrupt, daemon=True).start()
    ran = uso(server, *SMALL, "--prompt", "ours")
    assert (ran.status, ran.out) == (130, [])
    assert ran.err == "The server stops it.\nStopped. Pictures that were finished are kept.\n"
    until(lambda: server.queue.outcome(ours[0]).state == "cancelled")  # type: ignore[union-attr]


# Refusals.


def test_the_servers_refusal_is_shown(uso: Callable[..., Ran], server: Offered, tmp_path: Path) -> None:
    """Catches a limit of another model than the server's, and words around its sentence."""
    ran = uso(server, "--width", 1000)
    assert (ran.status, ran.out) == (2, [])
    assert ran.err == "Width is 1000; a whole number from 128 to 384 is allowed.\n"
    junk = tmp_path / "junk.png"
    junk.write_text("no picture")
    assert uso(server, "--style", junk).err.startswith("junk.png is not a picture this program can read")
    junk.write_bytes(os.urandom(1_200_000))
    ran = uso(server, "--style", junk)
    assert ran.status == 2 and ran.err.startswith("The file is larger than 1 MB.")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--memory", "full"), "--memory cannot be sent to a server, which has its own model and settings."),
        (("--model", "flux-dev", "--vae", "x"), "--model, --vae cannot be sent to a server"),
        (("--batch", "jobs.json"), "--batch cannot be sent"),
        (("--no-tiled-decode", "--schedule", "flux"), "--schedule, --tiled-decode cannot be sent"),
        (("--offline", "--device", "cpu", "--lora-scale", 1), "--lora-scale, --offline, --device cannot be sent"),
        (("--content", "a.png", "--content", "a.png"), "A server takes at most 1 content image and 2 style images; 2"),
        (("--seed", 2**32 - 1, "--images", 2), "Seed is 4294967295; 0 to 4294967294 is allowed for 2 images"),
        (("--images", 65), "Number of images is 65; a whole number from 1 to 64 is allowed."),
        (("--prompt", "a\0b"), "The prompt holds a NUL character."),
        (("--keep-size", "--width", 128), "--keep-size takes the size from the content image"),
        (("--content", "nowhere.png"), "The image nowhere.png could not be read"),
        (("--from", "nowhere.png"), "There is no file nowhere.png."),
        (("--output", "a.jpg"), "a.jpg does not end in .png"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anybody_is_asked(
    uso: Callable[..., Ran], picture_file: Callable[..., Path], flags: tuple[object, ...], sentence: str
) -> None:
    """Catches a flag that is dropped in silence: the picture would be another one."""
    Path("a.png").write_bytes(picture_file("b.png").read_bytes())
    ran = uso("http://127.0.0.1:1", *flags)
    assert (ran.status, ran.out) == (2, []) and ran.err.startswith(sentence) and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:1", "Nothing answers at http://127.0.0.1:1 ("),
        ("http://no.such.host.invalid", "Nothing answers at http://no.such.host.invalid ("),
        (
            "someone/space",
            "--server someone/space is not the address of a server. Give one like http://127.0.0.1:7860.",
        ),
        ("http://127.0.0.1:x", "--server http://127.0.0.1:x is not the address of a server ("),
        ("", "--server  is not the address of a server."),
    ],
)
def test_a_server_that_is_not_there_is_said(uso: Callable[..., Ran], url: str, sentence: str) -> None:
    """Catches a traceback, and a name that is looked up on the Hugging Face Hub."""
    ran = uso(url)
    assert ran.status == 2 and ran.err.startswith(sentence) and ran.err.count("\n") == 1


@contextmanager
def answering(status: int, body: bytes = b"{}", **headers: str) -> Iterator[str]:
    """Somebody else's server, with one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"status": 404}, r"What answers at \S+ is not a server of this program \(404\)\."),
        ({"status": 200, "body": b"<html>"}, r"What answers at \S+ is not a server of this program \(200\)\."),
        (
            {"status": 502, "body": b"<html>"},
            r"The server at \S+ is starting, or down \(502\)\. Try again in a minute\.",
        ),
        (
            {"status": 301, "Location": "https://there/"},
            r"\S+ is elsewhere now: it leads to https://there/\. Give that.",
        ),
        (
            {"status": 503, "body": b'{"status": "failed", "error": "Fetch the weights."}'},
            r"The server at \S+ cannot make pictures\. Fetch the weights\.",
        ),
        (
            {"status": 503, "body": b'{"status": "starting", "error": null}'},
            r"The server is still starting\.\nThe server at \S+ refused it: .*",
        ),
    ],
)
def test_another_server_or_one_that_cannot_work_is_said(
    uso: Callable[..., Ran], answer: dict[str, Any], sentence: str
) -> None:
    """Catches a wait for something that will never come, and somebody else's page taken for an answer."""
    with answering(**answer) as url:
        ran = uso(url)
    assert ran.status == 2 and re.match(sentence, ran.err), ran.err


def test_a_login_is_taken_from_the_environment(
    uso: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a password that is asked for on the command line, one that is wrong without a word, and a download or an
    upload that is not logged in."""
    accounts = tmp_path / "accounts"
    put_account(accounts, "alice", "correct horse")
    with offered(tmp_path / "server", Script(), accounts=accounts) as server:
        ran = uso(server, *SMALL)
        assert ran.status == 2 and "requires a login. Set USO_SERVER_LOGIN=name:password." in ran.err
        monkeypatch.setenv("USO_SERVER_LOGIN", "alice")
        assert uso(server, *SMALL).err == "USO_SERVER_LOGIN has the form name:password.\n"
        monkeypatch.setenv("USO_SERVER_LOGIN", "alice:wrong horse")
        ran = uso(server, *SMALL)
        assert ran.status == 2 and ran.err == "The name or the password is wrong. It was taken from USO_SERVER_LOGIN.\n"
        monkeypatch.setenv("USO_SERVER_LOGIN", "alice:correct horse")
        style = tmp_path / "ink.png"
        style.write_bytes((ROOT / "assets/examples/woodcut.jpg").read_bytes())
        assert uso(server, *SMALL, "--style", style).status == 0


def test_nobody_is_told_of_a_hugging_face_account(
    uso: Callable[..., Ran], server: Offered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Catches the client's default: to send the token that lies on this machine to whatever server is asked."""
    token = tmp_path / "token"
    token.write_text("hf_secret")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(token))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen: list[str] = []
    send = httpx.Client.send

    def watched(client: Any, request: Any, **options: Any) -> Any:
        seen.append(f"{request.url} {request.headers}")
        return send(client, request, **options)

    monkeypatch.setattr(httpx.Client, "send", watched)
    assert uso(server, *SMALL).status == 0
    assert seen and not [line for line in seen if "hf_secret" in line or not line.startswith(server.url)]


# The real program.


@pytest.mark.slow
def test_a_server_that_is_killed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a command that waits for ever for a server that is gone, and a traceback of the client's."""
    with program(tmp_path) as running:
        running.wait_until("ready")
        with RemoteServer(f"http://127.0.0.1:{running.port}") as server, pytest.raises(USOError) as broken:
            server.picture({"num_inference_steps": 50}, lambda details: running.process.kill())
    assert re.match(r"The connection to http://127.0.0.1:\d+ broke. A picture", str(broken.value))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_command_line_and_a_server_make_the_same_picture(tmp_path: Path, uso: Callable[..., Ran]) -> None:
    """Catches a default, or a value, that is not the same on both ways; a request that comes before the model waits."""
    values = ("--prompt", "a fox", "--style", ROOT / "assets/examples/woodcut.jpg", "--steps", 2, "--seed", 7)
    with program(tmp_path) as running:
        running.wait_until_listening()
        ran = uso(f"http://127.0.0.1:{running.port}", *values)
    assert ran.status == 0, ran.err
    theirs = ran.pictures[0]
    assert main(["generate", "--model", "demo", "--device", "cpu", *map(str, values), "--output", "own"]) == 0
    (ours,) = Path("own").glob("*.png")
    assert request_of(ours) == request_of(theirs)
    assert output.read(ours).model["components"] == output.read(theirs).model["components"]
