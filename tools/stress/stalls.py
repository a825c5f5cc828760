"""Small requests that are dear to answer, one kind after the other: structure, images of many scans, half a header.

During each of them `/healthz` must answer within a second, and another person's picture must be made.
"""

import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from PIL import Image

from tests.support.running import Program, ask
from tools.stress.sender import Sent, call, hear

HEALTH_SECONDS = 1.0
"""Within which `/healthz` must answer."""

LOOK_SECONDS = 0.05
BODIES, BODY_BYTES = 40, 990_000
SOCKETS, HELD_SECONDS = 1300, 6.0
SCANNED = 4
"""Requests with an image of many scans, at the same time."""

STRANGER = "198.18.250.1"


def stalls(program: Program) -> tuple[dict[str, Any], list[str]]:
    """(seconds that `/healthz` took at most and the picture took, by kind; faults)."""
    figures, wrong = {}, []
    for kind, strike in KINDS.items():
        longest, seconds, end = _meanwhile(program.port, strike)
        figures[kind] = [round(longest, 2), round(seconds, 1)]
        if longest > HEALTH_SECONDS:
            wrong.append(f"/healthz took {longest:.1f} s during {kind}.")
        if end != "done":
            wrong.append(f"Another person's picture was not made during {kind}: {end}.")
    return figures, wrong


def _meanwhile(port: int, strike: Callable[[int], None]) -> tuple[float, float, str]:
    """(longest wait for `/healthz`, seconds that a picture took, how it ended) during a strike."""
    ended, waits = threading.Event(), [0.0]

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            began = time.monotonic()
            with suppress(OSError):
                ask(port, "/healthz")
            waits.append(time.monotonic() - began)

    watching, striking = threading.Thread(target=look), threading.Thread(target=strike, args=(port,))
    watching.start()
    striking.start()
    began = time.monotonic()
    time.sleep(0.2)
    note = Sent(port, prompt="meanwhile", seed=78).note()
    seconds = time.monotonic() - began
    striking.join()
    ended.set()
    watching.join()
    return max(waits), seconds, note["end"] + note["said"]


def _bodies(path: str, value: bytes) -> Callable[[int], None]:
    """Many bodies at once, of as many values as a megabyte holds."""
    values = b",".join([value] * (BODY_BYTES // (len(value) + 1)))
    body = b'{"data":[' + values + b'],"fn_index":0,"session_hash":"abc"}'

    def strike(port: int) -> None:
        def one() -> None:
            with suppress(OSError):
                ask(port, path, {"Content-Type": "application/json", "X-Forwarded-For": STRANGER}, "POST", body)

        _at_once([one] * BODIES)

    return strike


def _scans(port: int) -> None:
    """Requests with an image that is small to send, and a pass over all of its pixels for every few bytes."""
    head = '--b\r\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b", "X-Forwarded-For": STRANGER}
    body = head.encode() + scanned_jpeg() + b"\r\n--b--\r\n"
    (path,) = json.loads(ask(port, "/gradio_api/upload", headers, "POST", body).body)
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    values = ["many scans", image, image, image, 128, 128, False, 1, 4.0, 128, 1]

    def one() -> None:
        with suppress(OSError, ValueError):
            event = call(port, "generate", values, STRANGER)
            if event is not None:
                hear(port, "generate", event, lambda name, data: None)

    _at_once([one] * SCANNED)


def scanned_jpeg(side: int = 3000, extra: int = 120) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True, quality=50)
    data, at, scans = buffer.getvalue(), 2, []
    while data[at + 1] != 0xD9:
        end = at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if data[at + 1] == 0xDA:
            while not (data[end] == 0xFF and data[end + 1] != 0 and not 0xD0 <= data[end + 1] <= 0xD7):
                end += 1
            scans.append(data[at:end])
        at = end
    return data[:at] + scans[-1] * extra + b"\xff\xd9"


def _half_open(port: int) -> None:
    """More connections than a process has descriptors by default, each with half a header."""
    held = []
    with suppress(OSError):
        for _ in range(SOCKETS):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=3))
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    time.sleep(HELD_SECONDS)
    for one in held:
        one.close()


def _at_once(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


KINDS: dict[str, Callable[[int], None]] = {
    "lists": _bodies("/gradio_api/queue/join", b"[]"),
    "numbers": _bodies("/gradio_api/queue/join", b"1"),
    "objects": _bodies("/gradio_api/call/generate", b'{"a":""}'),
    "bodies where none is taken": _bodies("/healthz", b"[]"),
    "images of many scans": _scans,
    "half a header": _half_open,
}
