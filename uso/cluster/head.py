"""A Ray cluster of this machine alone, as a child process: `python -m uso.cluster.head FOLDER FLAGS`.

It listens on the loopback address, and asks whoever connects for a token that only its parent knows. It ends with its
parent, however that one ends: at the end of its input. A head in the parent itself would take it along when it dies.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from uso.config import ROOT
from uso.errors import ConfigError

LOOPBACK = "127.0.0.1"

ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}
"""Of Ray's processes on this machine alone. Without the second, which on Linux does nothing else, Ray takes the
loopback address for the one under which others reach this machine, and listens there. Without the third, every fourth
process that Ray's head forks for a client dies before it has begun."""

START_SECONDS = 120.0

STORE_BYTES = 200 * 2**20
"""Ray's shared memory. Requests' images and finished pictures pass through it, each a few megabytes."""

TEMPORARY = Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())
"""Ray's sockets are there, whose paths may have 107 letters."""


class LocalHead:
    """The parent's side. Its environment gets the token, for Ray's client reads it there."""

    def __init__(self, workers: int, gpus: bool) -> None:
        self._workers = workers
        self._gpus = gpus
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.port = 0

    def start(self) -> int:
        """Start it, unless it runs; returns the port for clients.

        Raises:
            ConfigError: it ended at once.
        """
        if self._process is not None and self._process.poll() is None:
            return self.port
        self.end()
        with socket.create_server((LOOPBACK, 0)) as taken:
            self.port = taken.getsockname()[1]
        self._folder = Path(tempfile.mkdtemp(prefix="uso-ray-", dir=TEMPORARY))
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "uso.cluster.head", str(self._folder), json.dumps(self._flags())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | ALONE | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the page, which ends it after the running pictures
            )
        end = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                said = (self._folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                self.end()
                raise ConfigError(f"Ray does not start on this machine: {said[-1] if said else 'it said nothing'}")
            time.sleep(0.1)
        return self.port

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _flags(self) -> list[str]:
        gpus = [] if self._gpus else ["--num-gpus=0"]  # Ray counts those of this machine
        return [
            "start",
            "--head",
            "--block",
            "--port=0",
            f"--node-ip-address={LOOPBACK}",
            f"--ray-client-server-port={self.port}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--num-cpus={self._workers}",
            *gpus,
            f"--object-store-memory={STORE_BYTES}",
            f"--temp-dir={self._folder}",
            "--include-dashboard=false",
            "--disable-usage-stats",
        ]


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> None:
    from ray.scripts.scripts import cli

    folder, flags = sys.argv[1:]

    def end_with_parent() -> None:
        """There is nothing to save, and Ray takes 8 s to end in order."""
        sys.stdin.buffer.read()
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    cli(json.loads(flags))


if __name__ == "__main__":
    main()
