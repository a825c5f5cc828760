"""Request bodies: how large they may be, and that nothing in them makes this server fetch from elsewhere.

Gradio downloads a file whose "path" is a URL, and proxies URLs in two of its routes. URLs in "path" are refused in
every body that could be JSON. The proxying routes, and others that the page does not use, are blocked by path.
"""

import asyncio
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uso.errors import RequestError
from uso.web.access.asgi import API, Headers, header, is_mcp, path_of, read_body, refuse, replayed
from uso.web.access.hosts import host_of, own_hosts
from uso.web.access.identity import asker_in
from uso.web.access.uploads import Refused, Uploads

UPLOAD = f"{API}/upload"
JOIN = f"{API}/queue/join"

JSON_BYTES = 1_000_000
MCP_BYTES = 32_000_000
"""Tools take images inside the message, in Base64."""
FORM_BYTES = 1_000_000
"""Of the form around an uploaded file."""
MAX_DEPTH = 64
"""Of lists and objects inside each other."""
DRAIN_SECONDS = 10.0
"""How long a refused body is still read, and thrown away: a caller who is cut off while sending sees a broken
connection, not the reason."""

GIVE_THE_FILE = "Give the file itself, not its address: this server fetches nothing from elsewhere."

ADDRESS = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]{2}\S", re.ASCII)
"""`https://...`, and what a browser or a file system would take for a host as well (`//host`, `\\\\host`)."""
WEB_ADDRESS = re.compile(r"\s*(?:https?|ftp):[/\\]{2}\S+\s*", re.ASCII | re.IGNORECASE)

CLOSED = re.compile(
    rf"{API}/(?:proxy=|vibe-|undo-vibe|run-history|runs(?:/|$)|dev/|custom_component/|process_recording|deep_link"
    r"|profiling/)|/monitoring(?:/|$)"
)
"""Gradio's routes that fetch, that stream without end, or that this page does not use."""
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Gradio joins a session's name with others, and splits them again."""
FILE = re.compile(rf"{API}/file[=/](.*)", re.DOTALL)


class Bodies:
    """A layer that refuses bodies with 400, 404 or 413, and uploads also with 429 or 507.

    Args:
        max_upload: bytes of one file.
        mcp: whether the endpoints are offered as MCP tools.
    """

    def __init__(self, inner: ASGIApp, uploads: Uploads, *, max_upload: int, mcp: bool) -> None:
        self._inner, self._uploads = inner, uploads
        self._max_upload, self._mcp = max_upload, mcp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope)
        if CLOSED.match(path) or (is_mcp(path) and not self._mcp):
            return await refuse(scope, send, 404, "There is nothing at this address.")
        file = FILE.match(path)
        if file and ADDRESS.match(file[1]):
            return await refuse(scope, send, 400, GIVE_THE_FILE)
        upload = path.rstrip("/") == UPLOAD and scope["method"] == "POST"
        limit = self._max_upload + FORM_BYTES if upload else MCP_BYTES if is_mcp(path) else JSON_BYTES
        declared = header(scope, "content-length")
        if declared.isdecimal() and int(declared) > limit:
            return await self._too_large(scope, receive, send, limit, upload)
        if upload:
            return await self._admitted(scope, receive, send, limit)
        if not declared and not header(scope, "transfer-encoding"):
            return await self._inner(scope, receive, send)
        return await self._json(scope, receive, send, limit)

    async def _json(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        try:
            body = await read_body(receive, limit)
        except ConnectionError:
            return None
        if body is None:
            return await self._too_large(scope, receive, send, limit, upload=False)
        sentence = fault(body, path_of(scope), own_hosts(scope))
        if sentence is None:
            return await self._with_images(scope, receive, send, body)
        if path_of(scope).rstrip("/") == JOIN:  # the form in which gradio_client shows a sentence to its caller
            invalid = {"__type__": "validate", "is_valid": False, "parameter_name": "request", "message": sentence}
            return await refuse(scope, send, 422, [invalid])
        return await refuse(scope, send, 400, sentence)

    async def _with_images(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Images inside a message to a tool become files, so they count as uploads."""
        images = _images(body) if is_mcp(path_of(scope)) else 0
        if not images:
            return await self._inner(scope, replayed(body, receive), send)
        upload = await self._uploads.begin(asker_in(scope), len(body))
        if isinstance(upload, Refused):
            return await refuse(scope, send, upload.status, upload.sentence, _later(upload))
        try:
            await self._inner(scope, replayed(body, receive), send)
        finally:
            self._uploads.end(upload, images, len(body))

    async def _admitted(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        declared = header(scope, "content-length")
        upload = await self._uploads.begin(asker_in(scope), int(declared) if declared.isdecimal() else None)
        if isinstance(upload, Refused):
            return await _drained(scope, receive, send, upload.status, upload.sentence, _later(upload))
        size, answer = 0, bytearray()

        async def measured() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        async def noted(message: Message) -> None:
            if len(answer) < JSON_BYTES:
                answer.extend(message.get("body", b""))
            await send(message)

        try:
            await self._upload(scope, measured, noted, limit)
        finally:
            self._uploads.end(upload, _files(answer), size)

    async def _upload(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        """Count an upload while it streams. Gradio removes the files of a broken upload for one kind of exception only,
        so that one is raised inside it, also where the caller goes away in the middle."""
        size = 0
        refused = False
        begun = False

        async def counted() -> Message:
            nonlocal size, refused
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MultiPartException("The upload was broken off.")
            size += len(message.get("body", b""))
            if size > limit:
                refused = True
                raise MultiPartException("The upload is larger than the maximum allowed size.")
            return message

        async def passed_on(message: Message) -> None:
            nonlocal refused, begun
            if message["type"] == "http.response.start" and message["status"] == 413:
                refused = True  # by Gradio, which counts each file; the sentence is ours
            if not refused or begun:
                begun = True
                await send(message)

        await self._inner(scope, _until_complete(receive, counted), passed_on)
        if refused and not begun:
            await self._too_large(scope, receive, send, limit, upload=True)

    async def _too_large(self, scope: Scope, receive: Receive, send: Send, limit: int, upload: bool) -> None:
        if upload:
            sentence = f"The file is larger than {self._max_upload / 1e6:g} MB. Choose a smaller one."
        else:
            sentence = f"The request is larger than {limit / 1e6:g} MB. Upload images first, and name them in it."
        await _drained(scope, receive, send, 413, sentence)


async def _drained(
    scope: Scope, receive: Receive, send: Send, status: int, sentence: str, headers: Headers = ()
) -> None:
    """Refuse a body that is still being sent, after throwing the rest of it away."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await _drain(receive)
    except TimeoutError:
        pass
    await refuse(scope, send, status, sentence, [("connection", "close"), *headers])


def _later(refused: Refused) -> Headers:
    return [] if refused.seconds is None else [("retry-after", str(math.ceil(refused.seconds)))]


def _images(body: bytes) -> int:
    """How many images a message to a tool holds, as data URLs in its arguments."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return 0
    found = (value for part in _tool_arguments(content) for value, *_ in _walk(part))
    return sum(isinstance(value, str) and value.startswith("data:") for value in found)


def _files(answer: bytearray) -> int:
    """How many files an answer to an upload names; one that is no such answer counts as one."""
    try:
        named = json.loads(answer)
    except (ValueError, RecursionError):
        return 1
    return max(1, len(named)) if isinstance(named, list) else 1


def _until_complete(receive: Receive, counted: Receive) -> Receive:
    """`counted` while a body arrives, then the plain `receive`: a caller may go away after it."""
    complete = False

    async def either() -> Message:
        nonlocal complete
        if complete:
            return await receive()
        message = await counted()
        complete = not message.get("more_body", False)
        return message

    return either


async def _drain(receive: Receive) -> None:
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)


def fault(body: bytes, path: str, hosts: set[str]) -> str | None:
    """Why a body is refused, as a sentence; None if it is not. A body that is no JSON is left to the app."""
    try:
        content = json.loads(body, parse_constant=_no_number)
    except RecursionError:
        return f"The request is nested deeper than {MAX_DEPTH} levels."
    except RequestError as error:
        return str(error)
    except ValueError:
        return None
    parts = _tool_arguments(content) if is_mcp(path) else [content]
    for value, key, holder, depth in (found for part in parts for found in _walk(part)):
        if depth > MAX_DEPTH:
            return f"The request is nested deeper than {MAX_DEPTH} levels."
        if key == "session_hash" and value is not None and not (isinstance(value, str) and SESSION.fullmatch(value)):
            return "The session has a name that no page gives itself. Load the page again."
        if isinstance(value, str) and _points_elsewhere(value, key, holder, hosts):
            return GIVE_THE_FILE
    return None


def _no_number(name: str) -> None:
    """Python's parser accepts NaN and infinities; Gradio would fail where it writes them back."""
    raise RequestError(f"The request holds {name}, which is no number that JSON has.")


def _points_elsewhere(value: str, key: str, holder: Any, hosts: set[str]) -> bool:
    if key == "path":
        return ADDRESS.match(value) is not None
    if key == "url" and isinstance(holder, dict):  # where a browser shows a file from; it may be on this server
        return ADDRESS.match(value) is not None and host_of(value) not in hosts
    return WEB_ADDRESS.fullmatch(value) is not None


def _tool_arguments(content: Any) -> list[Any]:
    """The parts of MCP messages that are checked: the arguments of calls. A client may name its own site elsewhere."""
    calls = content if isinstance(content, list) else [content]
    parameters = [call.get("params") for call in calls if isinstance(call, dict)]
    return [part.get("arguments") for part in parameters if isinstance(part, dict)]


def _walk(content: Any) -> Iterator[tuple[Any, str, Any, int]]:
    """Every value with its key (empty in a list), what holds it, and how deep it lies. No recursion: it may be deep."""
    todo: list[tuple[Any, str, Any, int]] = [(content, "", None, 0)]
    while todo:
        value, key, holder, depth = todo.pop()
        yield value, key, holder, depth
        if isinstance(value, dict):
            todo += [(inner, str(name), value, depth + 1) for name, inner in value.items()]
        elif isinstance(value, list):
            todo += [(inner, "", value, depth + 1) for inner in value]
