"""`generate --server`: what is sent, shown, kept and refused.

The server is in this process with a script for its model; the real program is in test_remote_program.py.
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
from typing import Any

import httpx
import pytest
from huggingface_hub import constants

from tests.support.commands import Ran, request_of
from tests.support.offered import Offered, offered
from tests.support.scripted import Script, until
from uso.config import ROOT
from uso.request.request import ReferenceImage
from uso.web.access.accounts import put_account

pytestmark = pytest.mark.usefixtures("nobodys_machine")

SMALL = ("--width", "128", "--height", "128", "--steps", "2")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(tmp_path: Path, script: Script) -> Generator[Offered, None, None]:
    with offered(tmp_path / "server", script, max_upload_mb=1) as made:
        yield made


# Making pictures.


def test_pictures_are_the_servers_files_and_their_references_are_kept(
    remote: Callable[..., Ran], server: Offered, picture_file: Callable[..., Path]
) -> None:
    """Catches a picture that is encoded again and loses its record, an image sent as another, and a picture that cannot
    be repeated because its references stayed on the server."""
    who, how, too = (picture_file(f"{name}.png", seed=seed) for seed, name in enumerate(("who", "how (1)", "too")))
    images = ("--content", who, "--style", how, "--style", too)
    values = ("--style-strength", 0.5, "--style-strength", 2, "--guidance", 2)
    ran = remote(server, *SMALL, *images, "--prompt", "a fox & 狐", "--seed", 40, "--images", 3, *values)
    assert (ran.status, ran.err) == (0, "")
    theirs = {path.read_bytes() for path in server.settings.output.glob("*.png")}
    assert {path.read_bytes() for path in ran.pictures} == theirs and len(theirs) == 3
    assert all(re.fullmatch(r"outputs/[0-9-]+_seed4[0-2]_a-fox\.png", line) for line in ran.out)
    for path, seed in zip(ran.pictures, (40, 41, 42), strict=True):
        request = request_of(path)
        assert (request["prompt"], request["seed"], request["guidance_scale"]) == ("a fox & 狐", seed, 2.0)
        assert [entry["name"] for entry in request["content_images"]] == ["who.png"]
        assert [entry["name"] for entry in request["style_images"]] == ["how (1).png", "too.png"]
        assert request["style_strengths"] == [0.5, 2.0]
    kept = {path.name for path in Path("outputs/references").iterdir()}
    assert kept == {ReferenceImage.from_path(path).sha256 for path in (who, how, too)}


def test_a_saved_style_is_sent(
    remote: Callable[..., Ran], server: Offered, picture_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Catches a server that takes images alone, and a style's own strength that is lost on the way."""
    style = Script().save_style([ReferenceImage.from_path(picture_file("a.png"))], "Ink", strength=0.7, weights=None)
    (tmp_path / "style.safetensors").write_bytes(style.data)
    ran = remote(server, *SMALL, "--style", tmp_path / "style.safetensors", "--prompt", "a fox")
    assert ran.status == 0, ran.err
    request = request_of(ran.pictures[0])
    assert request["style_images"] == [{"sha256": style.sha256, "name": "Ink.safetensors"}]
    assert request["style_strengths"] == [0.7]


def test_a_picture_is_repeated_with_its_recorded_references(
    remote: Callable[..., Ran], server: Offered, picture_file: Callable[..., Path]
) -> None:
    """Catches a repetition that leaves out what the record has, and one that differs without a word."""
    who = picture_file("who.png", 200, 150)
    (first,) = remote(server, "--content", who, "--keep-size", "--steps", 2, "--prompt", "fox").pictures
    who.unlink()
    ran = remote(server, "--from", first, "--output", "again")
    assert (ran.status, ran.err) == (0, "") and request_of(ran.pictures[0]) == request_of(first)
    (changed,) = remote(server, "--from", first, "--seed", 3, "--output", "again").pictures
    assert request_of(changed) == request_of(first) | {"seed": 3}
    Script.provenance = {"name": "script", "device": "cpu", "dtype": "bfloat16"}
    try:
        with offered(server.settings.output.parent / "other", Script()) as other:
            ran = remote(other, "--from", first, "--output", "again")
    finally:
        Script.provenance = {"name": "script", "device": "cpu"}
    assert "not promised: dtype was None, is bfloat16." in ran.err


def test_output_names_a_file_that_is_not_there_yet(remote: Callable[..., Ran], server: Offered, script: Script) -> None:
    """Catches a picture of somebody's that is overwritten, and a refusal that comes after the server has worked."""
    assert remote(server, *SMALL, "--output", "new/fox.png").out == ["new/fox.png"]
    seen = len(script.seen)
    ran = remote(server, *SMALL, "--output", "new/fox.png")
    assert ran.status == 2 and "new/fox.png exists already, and nothing is overwritten." in ran.err
    assert "cannot hold several pictures" in remote(server, *SMALL, "--images", 2, "--output", "two.png").err
    assert len(script.seen) == seen


def test_a_terminal_sees_who_is_ahead_and_the_steps(
    remote: Callable[..., Ran], server: Offered, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a command that waits for minutes without a word."""
    script.steps = Script(free=False).steps
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    client = server.client()
    first = client.submit(num_inference_steps=1, api_name="/generate")
    until(first.outputs)
    until(lambda: server.queue.status.running == 1)

    def shown() -> str:
        captured: Any = sys.stderr
        text: str = captured.getvalue()
        return text

    def release() -> None:
        until(lambda: "ahead of yours" in shown())
        script.steps.release(1)
        threading.Event().wait(0.6)  # what comes faster may be drawn as one
        script.steps.release(1)
        until(lambda: "1/2" in shown())
        script.steps.release(1)

    threading.Thread(target=release, daemon=True).start()
    ran = remote(server, *SMALL)
    client.close()
    assert ran.status == 0
    assert "One picture is ahead of yours." in ran.err and "denoise" in ran.err and "1/2" in ran.err


@pytest.mark.parametrize("state", ["running", "queued"])
def test_ctrl_c_stops_the_job_on_the_server(
    remote: Callable[..., Ran], server: Offered, script: Script, state: str
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
            jobs = [job for job in server.queue._jobs.open() if job.request.prompt == "ours"]
            ours.extend(job.id for job in jobs if job.status.state == state)
            return bool(ours)

        until(found)
        os.kill(os.getpid(), signal.SIGINT)
        job = server.queue.find(ours[0])
        assert job is not None
        until(lambda: job.stop.is_set() or job.status.over)
        script.steps.release(5)

    threading.Thread(target=interrupt, daemon=True).start()
    ran = remote(server, *SMALL, "--prompt", "ours")
    assert (ran.status, ran.out) == (130, [])
    assert ran.err == "The server stops it.\nStopped. Pictures that were finished are kept.\n"
    until(lambda: server.queue.find(ours[0]).status.state == "cancelled")  # type: ignore[union-attr]


# Refusals.


def test_the_servers_refusal_is_shown(remote: Callable[..., Ran], server: Offered, tmp_path: Path) -> None:
    """Catches a limit of another model than the server's, and words around its sentence."""
    ran = remote(server, "--width", 1000)
    assert (ran.status, ran.out) == (2, [])
    assert ran.err == "Width is 1000; a whole number from 128 to 256 is allowed.\n"
    junk = tmp_path / "junk.png"
    junk.write_text("no picture")
    assert remote(server, "--style", junk).err.startswith("junk.png is not a picture this program can read")
    junk.write_bytes(os.urandom(1_200_000))
    ran = remote(server, "--style", junk)
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
    remote: Callable[..., Ran], picture_file: Callable[..., Path], flags: tuple[object, ...], sentence: str
) -> None:
    """Catches a flag that is dropped in silence: the picture would be another one."""
    Path("a.png").write_bytes(picture_file("b.png").read_bytes())
    ran = remote("http://127.0.0.1:1", *flags)
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
def test_a_server_that_is_not_there_is_said(remote: Callable[..., Ran], url: str, sentence: str) -> None:
    """Catches a traceback, and a name that is looked up on the Hugging Face Hub."""
    ran = remote(url)
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
    remote: Callable[..., Ran], answer: dict[str, Any], sentence: str
) -> None:
    """Catches a wait for something that will never come, and somebody else's page taken for an answer."""
    with answering(**answer) as url:
        ran = remote(url)
    assert ran.status == 2 and re.match(sentence, ran.err), ran.err


def test_a_login_is_taken_from_the_environment(
    remote: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a password that is asked for on the command line, one that is wrong without a word, and a download or an
    upload that is not logged in."""
    accounts = tmp_path / "accounts"
    put_account(accounts, "alice", "correct horse")
    with offered(tmp_path / "server", Script(), accounts=accounts) as server:
        ran = remote(server, *SMALL)
        assert ran.status == 2 and "requires a login. Set USO_SERVER_LOGIN=name:password." in ran.err
        monkeypatch.setenv("USO_SERVER_LOGIN", "alice")
        assert remote(server, *SMALL).err == "USO_SERVER_LOGIN has the form name:password.\n"
        monkeypatch.setenv("USO_SERVER_LOGIN", "alice:wrong horse")
        ran = remote(server, *SMALL)
        assert ran.status == 2 and ran.err == "The name or the password is wrong. It was taken from USO_SERVER_LOGIN.\n"
        monkeypatch.setenv("USO_SERVER_LOGIN", "alice:correct horse")
        style = tmp_path / "ink.png"
        style.write_bytes((ROOT / "assets/examples/woodcut.jpg").read_bytes())
        assert remote(server, *SMALL, "--style", style).status == 0


def test_nobody_is_told_of_a_hugging_face_account(
    remote: Callable[..., Ran], server: Offered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    assert remote(server, *SMALL).status == 0
    assert seen and not [line for line in seen if "hf_secret" in line or not line.startswith(server.url)]
