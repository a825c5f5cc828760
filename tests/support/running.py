"""The real program in a process of its own, for tests that need all of it: `python app.py --model demo`."""

import atexit
import http.client
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.pace import keep_pace
from tests.support.scripted import until
from uso.config import ROOT

LONG = 240.0
"""Seconds until a test gives up on something that takes imports, a model or a browser."""


_REAPER = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    number = int(line)
    groups.add(number) if number > 0 else groups.discard(-number)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""
"""Reads each group's number when it starts, and the number's negative when it has ended; kills the rest at the end of
its input."""


@cache
def _reaper() -> subprocess.Popen[bytes]:
    made = subprocess.Popen([sys.executable, "-S", "-c", _REAPER], stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(made.communicate)
    return made


def _tell_reaper(number: int) -> None:
    pipe = _reaper().stdin
    assert pipe is not None
    pipe.write(b"%d\n" % number)
    pipe.flush()


class Ends:
    """What is said of every process that a test starts, in a group of its own: it does not outlive this one."""

    pid: int

    def watch(self) -> None:
        """Have it killed if this process is."""
        _tell_reaper(self.pid)

    def end(self) -> None:
        """Terminate it; kill what is left of its group."""
        process: Any = self
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=LONG)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            process.wait()
            _tell_reaper(-self.pid)


class Started(Ends, subprocess.Popen[bytes]):
    def __init__(self, command: Sequence[str], **options: Any) -> None:
        super().__init__(command, start_new_session=True, **options)
        self.watch()


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.support.preloaded"])


def _run(arguments: Sequence[str], environment: Mapping[str, str], log: Path, paced: bool, folder: Path) -> None:
    """As `python ARGUMENTS` in a folder, in a group of its own, with its output in a file."""
    os.setsid()
    if paced:
        keep_pace()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # it remembers the environment's
    sys.path[:0] = [str(ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = list(arguments)
    runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")


class Forked(Ends):
    """`app.py` or `uso/__main__.py` in a process that is forked from one that has imported most of what it needs: what
    tests need of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        paced: bool = False,
        folder: Path = ROOT,
    ) -> None:
        values = (arguments, dict(environment), log, paced, folder)
        self._process = FORKS.Process(target=_run, args=values, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.watch()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("app.py", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


PERSON = {"Accept": "text/html"}
"""What tells a browser's navigation from a program's call."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes | None = None
) -> Answer:
    """One request to a port of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class Program:
    """`python app.py --model demo` on a port of its own, in a folder of its own.

    Args:
        forked: start it in a fifth of the time, for tests that say nothing of the start.
        paced: let pictures of many steps take their time in it, if it is forked (`tests.support.pace`).
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        port: int | None = None,
        forked: bool = False,
        paced: bool = False,
        **environment: str,
    ) -> None:
        self.port = port or free_port()
        self.outputs = folder / "outputs"
        self.scratch = folder / "tmp"
        self.scratch.mkdir(exist_ok=True)
        self._log = folder / "log"
        base = ["app.py", "--model", "demo", "--device", "cpu", "--port", str(self.port), "--output", str(self.outputs)]
        command, settings = [*base, *flags], os.environ | {"TMPDIR": str(self.scratch)} | environment
        self._log.write_bytes(b"")
        self.process: Started | Forked
        if forked:
            self.process = Forked(command, settings, self._log, paced)
        else:
            with self._log.open("ab") as log:
                self.process = Started(
                    [sys.executable, *command], cwd=ROOT, env=settings, stdout=log, stderr=subprocess.STDOUT
                )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def ask(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return ask(self.port, path, headers)

    def state(self) -> str:
        status: str = self.ask("/readyz").json()["status"]
        return status

    def wait_until_listening(self) -> None:
        until(lambda: listens(self.port) or self.process.poll() is not None, LONG)
        assert self.process.poll() is None, self.log()

    def wait_until_built(self) -> None:
        """Until the page is there, with or without a model."""
        until(lambda: "USO is at" in self.log() or self.process.poll() is not None, LONG)
        assert self.process.poll() is None, self.log()

    def wait_until(self, *states: str) -> None:
        self.wait_until_listening()
        until(lambda: self.state() in states, LONG)

    def pictures(self) -> list[Path]:
        """In the order in which they were made. One may be deleted meanwhile."""
        made: dict[Path, int] = {}
        for path in self.outputs.glob("*.png"):
            with suppress(FileNotFoundError):
                made[path] = path.stat().st_mtime_ns
        return sorted(made, key=lambda path: made[path])

    def signal(self, number: int = signal.SIGTERM) -> int:
        """Send it, and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=LONG)

    def end(self) -> None:
        self.process.end()


@contextmanager
def program(
    folder: Path, *flags: str, port: int | None = None, fresh: bool = False, paced: bool = False, **environment: str
) -> Iterator[Program]:
    """The program until the end of the block.

    Args:
        fresh: in a new interpreter, for what is said of its start, or of an environment that is read by an import.
        paced: as of `Program`; not where it is fresh.
    """
    made = Program(folder, *flags, port=port, forked=not fresh, paced=paced, **environment)
    try:
        yield made
    finally:
        made.end()


class Stream:
    """An answer without end, read in a thread until the server ends it: what an open tab has."""

    def __init__(self, port: int, path: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
        self._connection.request("GET", path)
        self.status = (answer := self._connection.getresponse()).status
        self.lines: list[str] = []
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(answer,), daemon=True)
        self._thread.start()

    def _read(self, answer: http.client.HTTPResponse) -> None:
        try:
            for line in answer:
                self.lines.append(line.decode())
        except (OSError, http.client.HTTPException, ValueError):
            pass
        finally:
            answer.close()
            self._connection.close()
            self.ended.set()
