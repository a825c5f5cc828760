"""No request to any outside address: the server's sockets and the browser's network log are watched from start to end.

The server runs with an audit hook that Python calls before each connection and each look-up of a name; what libraries
do below Python is seen in the list of the process's sockets.
"""

import ast
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
from gradio_client import Client, handle_file
from playwright.sync_api import expect

from tests.support.browsing import PATIENCE_MS, chromium, needs_chromium
from tests.support.running import Program, program

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]

HOOK = r'''
"""Writes down every connection, message and look-up of a name that is asked of the system."""
import json, os, socket, sys

WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
log = open(os.environ["USO_TEST_SOCKETS"], "a", buffering=1)

def hook(event, details):
    if event in WATCHED:
        named = details[1:] if event.startswith(("socket.connect", "socket.send")) else details[:1]
        log.write(json.dumps([event, *map(repr, named)]) + "\n")

sys.addaudithook(hook)
'''

OWN_NAMES = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")


def hooked(folder: Path) -> dict[str, str]:
    """The environment in which a Python process writes its sockets down."""
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    return {"PYTHONPATH": str(folder / "hook"), "USO_TEST_SOCKETS": str(folder / "sockets")}


def outside(folder: Path) -> list[Any]:
    """What was asked of the system that leaves this machine."""
    found = []
    for line in (folder / "sockets").read_text().splitlines():
        event, *values = json.loads(line)
        target = ast.literal_eval(values[0]) if values else None
        host = target[0] if isinstance(target, tuple) else target
        if isinstance(target, tuple) or event in ("socket.getaddrinfo", "socket.gethostbyname"):
            name = host.decode() if isinstance(host, bytes) else host
            if name is not None and name not in OWN_NAMES and not _loopback(name):
                found.append([event, target])
    return found


def _loopback(host: Any) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Sockets:
    """Looks at a process's connections again and again; remembers the addresses that are not this machine's."""

    def __init__(self, running: Program) -> None:
        self._process = psutil.Process(running.process.pid)
        self._ended = threading.Event()
        self.looks = 0
        self.strange: set[str] = set()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            try:
                for one in self._process.net_connections():
                    if one.raddr and not _loopback(one.raddr.ip):
                        self.strange.add(one.raddr.ip)
                self.looks += 1
            except psutil.Error:
                return

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def test_the_hook_sees_a_connection(tmp_path: Path) -> None:
    """Catches a watch that is blind: it sees a connection and a look-up that leave the machine."""
    script = (
        "import socket\n"
        "probe = socket.socket(); probe.settimeout(0.01)\n"
        "try: probe.connect(('192.0.2.1', 9))\n"
        "except OSError: pass\n"
        "try: socket.getaddrinfo('no.such.host.invalid', 80)\n"
        "except OSError: pass\n"
        "home = socket.create_server(('127.0.0.1', 0)); socket.create_connection(home.getsockname())"
    )
    subprocess.run([sys.executable, "-c", script], env=os.environ | hooked(tmp_path), check=True)
    assert outside(tmp_path) == [
        ["socket.connect", ("192.0.2.1", 9)],
        ["socket.getaddrinfo", "no.such.host.invalid"],
    ]
    assert "127.0.0.1" in (tmp_path / "sockets").read_text()


@needs_chromium
def test_nothing_asks_outside(tmp_path: Path, picture_file: Callable[..., Path]) -> None:
    """Catches statistics, fonts, look-ups of models and every other call home, of the server and of the page."""
    content, style = picture_file("content.png", 160, 128, 1), picture_file("style.png", 96, 96, 2)
    with program(tmp_path, port=None, fresh=True, paced=False, **hooked(tmp_path)) as running:
        sockets = Sockets(running)
        running.wait_until("ready")
        url = f"http://127.0.0.1:{running.port}"
        requests = browse(url, content, style)
        caller = Client(url, verbose=False, analytics_enabled=False, download_files=str(tmp_path / "downloads"))
        caller.predict(
            prompt="a fox", style_image=handle_file(style), width=128, height=128, num_inference_steps=2,
            api_name="/generate",
        )  # fmt: skip
        caller.close()
        time.sleep(1.0)  # what somebody would send after a call
        running.signal()
        sockets.end()
        assert len(running.pictures()) == 2, running.log()
    assert outside(tmp_path) == []
    assert sockets.looks > 10 and sockets.strange == set()
    assert len(requests) > 20 and not [one for one in requests if not one.startswith((f"{url}/", "data:", "blob:"))]


def browse(url: str, content: Path, style: Path) -> list[str]:
    """Look at every corner of the page and make a picture from references; all that the browser asked for."""
    requests: list[str] = []
    with chromium() as browser:
        context = browser.new_context()
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#model-state")).not_to_contain_text("starting", timeout=PATIENCE_MS)
        page.set_input_files("#content input[type=file]", content)
        page.set_input_files("#style input[type=file]", style)
        for field in ("content", "style"):
            expect(page.locator(f"#{field} img")).to_be_visible(timeout=PATIENCE_MS)
        page.click("#generate")
        expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
        page.locator("#history button[data-picture]").first.click()
        expect(page.locator("#facts")).to_contain_text("Seed", timeout=PATIENCE_MS)
        page.reload()
        expect(page.locator("#history button[data-picture]")).to_have_count(1, timeout=PATIENCE_MS)
        for view in ("/?view=api", "/?__theme=dark"):
            page.goto(url + view)
            expect(page.locator("#generate")).to_be_attached(timeout=PATIENCE_MS)
            page.wait_for_timeout(1500)
    return requests
