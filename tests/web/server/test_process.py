"""How a process begins and ends: a small application first, then the real program."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from gradio_client import Client

from tests.support.running import LONG, PERSON, Started, Stream, ask, free_port, listens, program
from tests.support.scripted import PATIENCE, until
from uso.config import ROOT
from uso.errors import ConfigError
from uso.web.server.port import reserve
from uso.web.server.process import FETCH_SECONDS, QUIET_SECONDS

# How a process ends, with a small application in the place of the page

SCRIPT = """
import asyncio, sys
from uso.web.server.starting import StartingApp, BuiltApp
from uso.web.server.port import listen
from uso.web.server.process import Server

stopped = asyncio.Event()
jobs = {"running"} & set(sys.argv)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            what = (await receive())["type"]
            await send({"type": what + ".complete"})
            if what.endswith("shutdown"):
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] in ("/finish", "/fetch", "/healthz"):
        if scope["path"] == "/finish":
            jobs.clear()
        await send({"type": "http.response.body", "body": b"here"})
        return
    await send({"type": "http.response.body", "body": b"first\\n", "more_body": True})
    await stopped.wait()
    await asyncio.sleep(1 if scope["path"] == "/short" else 10**6)
    await send({"type": "http.response.body", "body": b"last\\n"})

front = StartingApp(lambda: BuiltApp(app=app, end=stopped.set, busy=lambda: bool(jobs)))
Server(front, grace=45.0).run(sockets=[listen("127.0.0.1", int(sys.argv[1]))])
"""


def small_process(*jobs: str) -> tuple[Started, int]:
    port = free_port()
    started = Started([sys.executable, "-c", SCRIPT, str(port), *jobs], cwd=ROOT)
    until(lambda: listens(port) or started.poll() is not None)
    return started, port


def test_a_stop_that_arrives_twice_at_once_is_one_stop() -> None:
    """Catches `timeout`, which signals a process and its group, losing what it meant to let finish."""
    started, port = small_process()
    try:
        stream = Stream(port, "/short")
        until(lambda: stream.lines)
        started.send_signal(signal.SIGTERM)
        started.send_signal(signal.SIGTERM)
        assert started.wait(LONG) == -signal.SIGTERM
        assert stream.ended.wait(PATIENCE) and stream.lines == ["first\n", "last\n"]
    finally:
        started.end()


@pytest.mark.parametrize("path", ["/fetch", "/healthz"])
def test_after_the_last_picture_it_serves_those_who_fetch_it(path: str) -> None:
    """Catches a page on a busy machine that hears "Done." and comes too late for the picture, a monitor that holds the
    process up like a person, and a person who holds it up for ever."""
    started, port = small_process("running")
    try:
        assert ask(port, "/fetch").body == b"here"
        started.send_signal(signal.SIGTERM)
        assert ask(port, "/finish").body == b"here"
        finished, served = time.monotonic(), 0.0
        with suppress(OSError):
            while time.monotonic() - finished < PATIENCE:
                ask(port, path)
                served = time.monotonic() - finished
                time.sleep(0.1)
        assert started.wait(PATIENCE) == -signal.SIGTERM
        assert served < 3 * FETCH_SECONDS and (served > 2 * QUIET_SECONDS) == (path == "/fetch"), served
    finally:
        started.end()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_stop_forces(second: signal.Signals) -> None:
    """Catches a process that can only be killed with -9 where something in it does not end."""
    started, port = small_process()
    try:
        stream = Stream(port, "/endless")
        until(lambda: stream.lines)
        started.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(1)  # it waits for the answer in flight
        started.send_signal(second)
        assert started.wait(PATIENCE) == -second
        assert stream.ended.wait(PATIENCE) and stream.lines == ["first\n"]
    finally:
        started.end()


def test_a_hangup_is_a_stop_unless_it_is_ignored() -> None:
    """Catches a terminal that is closed and takes the running picture with it, and nohup that no longer helps."""
    started, port = small_process()
    try:
        stream = Stream(port, "/short")
        until(lambda: stream.lines)
        started.send_signal(signal.SIGHUP)
        assert started.wait(LONG) == -signal.SIGHUP
        assert stream.ended.wait(PATIENCE) and stream.lines == ["first\n", "last\n"]
    finally:
        started.end()
    port = free_port()
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + SCRIPT
    started = Started([sys.executable, "-c", script, str(port)], cwd=ROOT)
    try:
        until(lambda: listens(port) or started.poll() is not None)
        started.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(1)
        assert listens(port)
    finally:
        started.end()


# The real program


@pytest.mark.slow
@pytest.mark.xdist_group("process")
class TestRealProgram:
    def test_it_answers_before_the_page_and_keeps_who_came_early(self, tmp_path: Path) -> None:
        """Catches a heavy import in front of the port, and a first request that is refused."""
        with program(tmp_path, fresh=True) as running:
            running.wait_until_listening()
            told = running.ask("/readyz").json()
            assert (told["status"], told["stage"]) == ("starting", "importing the page")
            assert running.ask("/", PERSON).status == 503
            early = running.ask("/config")
            assert early.status == 200 and "USO is at" in running.log()
            assert running.ask("/", PERSON).status == 200
            running.wait_until("ready")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("moment", ["importing", "loading", "idle"])
    def test_a_signal_ends_it_at_any_moment(self, tmp_path: Path, moment: str, number: signal.Signals) -> None:
        """Catches an import or a loading model that holds the end up or aborts in it, and folders left behind."""
        with program(tmp_path, fresh=True) as running:
            running.wait_until_listening()
            if moment != "importing":
                running.wait_until("loading" if moment == "loading" else "ready")
                tab = Stream(running.port, "/gradio_api/heartbeat/somebody")
                until(lambda: tab.lines)
            status = running.signal(number)
            assert moment == "importing" or tab.ended.wait(PATIENCE)
            assert status == (-number if number == signal.SIGTERM else 0), running.log()
            assert "Traceback" not in running.log() and "terminate called" not in running.log()
            assert not list(running.scratch.glob("uso-page-*"))

    def test_what_runs_is_finished_and_delivered(self, tmp_path: Path) -> None:
        """Catches a picture that is lost because the server was told to stop."""
        with program(tmp_path, "--grace", str(LONG)) as running:
            running.wait_until("ready")
            client = Client(f"http://127.0.0.1:{running.port}/", download_files=False, verbose=False)
            job = client.submit("A fox", width=256, height=256, num_inference_steps=50, api_name="/generate")
            until(lambda: job.outputs() and job.outputs()[-1][1]["state"] == "running", LONG)
            assert running.signal() == -signal.SIGTERM
            picture, _ = job.result(timeout=LONG)
            assert picture and len(running.pictures()) == 1

    def test_bind_when_ready_refuses_until_the_model_is_loaded(self, tmp_path: Path) -> None:
        """Catches a port that is open, or taken by somebody else, before the model is there."""
        with program(tmp_path, "--bind-when-ready", fresh=True) as running:
            until(lambda: "Demo" in running.log(), LONG)
            assert not listens(running.port)
            with pytest.raises(ConfigError):
                reserve("127.0.0.1", running.port)
            running.wait_until_listening()
            assert running.ask("/readyz").status == 200
            assert running.signal() == -signal.SIGTERM

    def test_bind_when_ready_tells_of_a_model_that_cannot_be_loaded(self, tmp_path: Path, golden_folder: Path) -> None:
        """Catches a container that starts again and again, and nobody is told why."""
        with program(tmp_path, "--bind-when-ready", "--vae", str(golden_folder / "ae.safetensors")) as running:
            running.wait_until_listening()
            answer = running.ask("/readyz")
            assert answer.status == 503 and answer.json()["status"] == "failed"
            assert answer.json()["error"]
            assert running.ask("/", PERSON).status == 200

    def test_sigterm_while_it_is_held_ends_it(self, tmp_path: Path) -> None:
        """Catches a process that waits for its model before it listens to anybody."""
        with program(tmp_path, "--bind-when-ready", fresh=True) as running:
            until(lambda: "Demo" in running.log(), LONG)
            assert running.signal() == -signal.SIGTERM
            assert "USO is at" not in running.log()
