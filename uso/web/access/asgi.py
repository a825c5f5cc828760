"""What the layers before the page share: Gradio's paths, headers, answers, bodies. Plain ASGI."""

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from uso.language import told

Headers = Iterable[tuple[str, str]]

API = "/gradio_api"
MCP = f"{API}/mcp"
MCP_BYTES = 4_000_000
"""Of one message to a tool, with the images in it as Base64. The package mcp takes 4 MiB."""


def is_mcp(path: str) -> bool:
    return path == MCP or path.startswith(MCP + "/")


def path_of(scope: Scope) -> str:
    """The path within this server, decoded once, as Starlette's routes see it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path or "/"


def header(scope: Scope, name: str) -> str:
    """A header's values, joined by commas (cookies by semicolons); empty where it is missing."""
    wanted = name.encode()
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == wanted]
    return ("; " if name == "cookie" else ", ").join(values)


def drop_headers(scope: Scope, unwanted: Callable[[str], bool]) -> None:
    """Take headers away before anything inside sees them."""
    scope["headers"] = [pair for pair in scope["headers"] if not unwanted(pair[0].decode("latin-1").lower())]


def is_navigation(scope: Scope) -> bool:
    """Whether a browser requests a page, to show it in a tab."""
    return scope["method"] == "GET" and "text/html" in header(scope, "accept")


async def answer(send: Send, status: int, body: str, kind: str, headers: Headers = ()) -> None:
    """Send a whole answer; `kind` is its media type."""
    data = body.encode()
    pairs = [("content-type", f"{kind}; charset=utf-8"), ("content-length", str(len(data))), *headers]
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": data})


async def refuse(scope: Scope, send: Send, status: int, detail: Any, headers: Headers = ()) -> None:
    """Answer with one sentence on what is wrong: as text to a person, as `{"detail": ...}` to a program."""
    pairs = [("cache-control", "no-store"), *headers]
    detail = told(detail) if isinstance(detail, str) else detail
    if is_navigation(scope):
        await answer(send, status, str(detail), "text/plain", pairs)
    else:
        await answer(send, status, json.dumps({"detail": detail}, ensure_ascii=False), "application/json", pairs)


class Arriving:
    """A `receive` that knows whether the body is here: the next message comes only when the caller has gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.complete = not message.get("more_body", False)
        return message


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None if it is larger than `limit` bytes.

    Raises:
        ConnectionError: the caller has gone.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the caller has gone")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body which was read already, then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    def again() -> Awaitable[Message]:
        return _ready(first.pop()) if first else receive()

    return again


async def _ready(message: Message) -> Message:
    return message
