"""Sends a hostile call byte for byte, and reads what comes back, streams for a moment only."""

import http.client
import json
import socket
import time
from contextlib import suppress
from typing import NamedTuple

from tools.stress.calls import Call

CONNECT_SECONDS = 20.0
READ_SECONDS = 1.5
"""How long an answer may take that is not a stream, in silence."""

STREAM_SECONDS = 0.6
MAX_BYTES = 4_000_000


class Answer(NamedTuple):
    status: int
    """0: there was none."""
    head: str
    body: bytes


NONE = Answer(0, "", b"")


def send(port: int, call: Call, address: str) -> list[Answer]:
    """The answer, and that of the stream which it leads to.

    Args:
        address: for whom the request is counted, unless the call says something else.

    Raises:
        ConnectionRefusedError: the server does not listen.
    """
    answers = [_once(port, _bytes(call, port, address))]
    if call.follow and answers[0].status == 200:
        try:
            event = json.loads(answers[0].body)["event_id"]
            session = json.loads(call.body).get("session_hash", "x") if "session_hash" in call.follow else event
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return answers
        if isinstance(session, str) and session.isascii() and session.isprintable() and " " not in session:
            answers.append(_once(port, _bytes(Call("GET", call.follow + session), port, address), STREAM_SECONDS))
    return answers


def _bytes(call: Call, port: int, address: str) -> bytes:
    named = {name.lower() for name, _ in call.headers}
    lines = [f"{call.method} {call.target} HTTP/1.1"]
    if "host" not in named:
        lines.append(f"Host: 127.0.0.1:{port}")
    if "x-forwarded-for" not in named:
        lines.append(f"X-Forwarded-For: {address}")
    if "content-length" not in named and "transfer-encoding" not in named and (call.body or call.method == "POST"):
        lines.append(f"Content-Length: {len(call.body)}")
    for name, value in call.headers:
        lines.append(f"{name}: " + "".join(letter for letter in value if letter not in "\r\n")[:5000])
    head = "\r\n".join([*lines, "Connection: close", "", ""])
    return head.encode("utf-8", "surrogatepass") + call.body


def _once(port: int, request: bytes, seconds: float = READ_SECONDS) -> Answer:
    with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS) as connection:
        with suppress(OSError):  # an answer may be there all the same
            connection.sendall(request)
        connection.settimeout(seconds)
        try:
            answer = http.client.HTTPResponse(connection, method=request.split(b" ", 1)[0].decode())
            answer.begin()
        except (OSError, http.client.HTTPException, ValueError):
            return NONE
        return Answer(answer.status, str(answer.headers), _read(answer, seconds))


def _read(answer: http.client.HTTPResponse, seconds: float) -> bytes:
    """As much as comes in time."""
    end, parts, size = time.monotonic() + seconds, [], 0
    try:
        while time.monotonic() < end and size < MAX_BYTES:
            part = answer.read1(65536)
            if not part:
                break
            parts.append(part)
            size += len(part)
    except (OSError, http.client.HTTPException, ValueError):
        pass
    return b"".join(parts)
