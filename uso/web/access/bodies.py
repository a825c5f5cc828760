"""Request bodies: how large they may be, and that nothing in them makes this server fetch from elsewhere.

Gradio downloads a file whose "path" is a URL, and proxies URLs in two of its routes. URLs in "path" are refused in
every body that could be JSON (`contents.py`, in a few threads). The proxying routes, and others that the page does not
use, are blocked by path. Where no route takes a body, none is read.
"""

import asyncio
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor

from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uso.language import Text, told
from uso.web.access.asgi import API, MCP_BYTES, Arriving, Headers, header, is_mcp, path_of, read_body, refuse, replayed
from uso.web.access.contents import ADDRESS, GIVE_THE_FILE, examine
from uso.web.access.hosts import own_hosts
from uso.web.access.identity import asker_in
from uso.web.access.uploads import Refused, Uploads

UPLOAD = f"{API}/upload"
JOIN = f"{API}/queue/join"

JSON_BYTES = 1_000_000
FORM_BYTES = 1_000_000
"""Of the form around an uploaded file."""
READ_SECONDS = 60.0
"""Until a body that is no upload must be there."""
EXAMINERS = 2
"""Threads in which bodies are examined, each for milliseconds."""
DRAIN_SECONDS = 10.0
"""How long a refused body is still read, and thrown away: a caller who is cut off while sending sees a broken
connection, not the reason."""

CLOSED = re.compile(
    rf"{API}/(?:proxy=|vibe-|undo-vibe|run-history|runs(?:/|$)|dev/|custom_component/|process_recording|deep_link"
    r"|profiling/)|/monitoring(?:/|$)"
)
"""Gradio's routes that fetch, that stream without end, or that this page does not use."""
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
        self._examiners = ThreadPoolExecutor(EXAMINERS, "examine")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, receive = path_of(scope), Arriving(receive)
        if CLOSED.match(path) or (is_mcp(path) and not self._mcp):
            return await refuse(scope, send, 404, Text("There is nothing at this address."))
        file = FILE.match(path)
        if file and ADDRESS.match(file[1]):
            return await refuse(scope, send, 400, GIVE_THE_FILE)
        if not takes_body(scope):
            return await self._inner(scope, replayed(b"", receive), send)
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

    async def _json(self, scope: Scope, receive: Arriving, send: Send, limit: int) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await read_body(receive, limit)
        except ConnectionError:
            return None
        except TimeoutError:
            late = Text("The request was not here within {:g} s. Send it again.", READ_SECONDS)
            return await refuse(scope, send, 408, late, [("connection", "close")])
        if body is None:
            return await self._too_large(scope, receive, send, limit, upload=False)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._examiners, examine, body, path_of(scope), own_hosts(scope))
        sentence = found.fault
        if sentence is None:
            return await self._with_images(scope, receive, send, body, found.images)
        if path_of(scope).rstrip("/") == JOIN:  # the form in which gradio_client shows a sentence to its caller
            invalid = {
                "__type__": "validate",
                "is_valid": False,
                "parameter_name": "request",
                "message": told(sentence),
            }
            return await refuse(scope, send, 422, [invalid])
        return await refuse(scope, send, 400, sentence)

    async def _with_images(self, scope: Scope, receive: Receive, send: Send, body: bytes, images: int) -> None:
        """Images inside a message to a tool become files, so they count as uploads."""
        if not images:
            return await self._inner(scope, replayed(body, receive), send)
        upload = await self._uploads.begin(asker_in(scope), len(body))
        if isinstance(upload, Refused):
            return await refuse(scope, send, upload.status, upload.sentence, _later(upload))
        try:
            await self._inner(scope, replayed(body, receive), send)
        finally:
            self._uploads.end(upload, images, len(body))

    async def _admitted(self, scope: Scope, receive: Arriving, send: Send, limit: int) -> None:
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
            await self._upload(scope, Arriving(measured), noted, limit)
        finally:
            self._uploads.end(upload, _files(answer), size)

    async def _upload(self, scope: Scope, receive: Arriving, send: Send, limit: int) -> None:
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

    async def _too_large(self, scope: Scope, receive: Arriving, send: Send, limit: int, upload: bool) -> None:
        if upload:
            sentence = Text("The file is larger than {:g} MB. Choose a smaller one.", self._max_upload / 1e6)
        else:
            remedy = Text("Upload images first, and name them in it.")
            if is_mcp(path_of(scope)):
                remedy = Text("Use smaller images.")
            sentence = Text("The request is larger than {:g} MB. {}", limit / 1e6, remedy)
        await _drained(scope, receive, send, 413, sentence)


def takes_body(scope: Scope) -> bool:
    """Whether a route may take the body: Gradio's alone do, and a login's form is read by `login.py`."""
    return scope["method"] not in ("GET", "HEAD", "OPTIONS") and path_of(scope).startswith(API + "/")


async def _drained(
    scope: Scope, receive: Arriving, send: Send, status: int, sentence: str, headers: Headers = ()
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


def _files(answer: bytearray) -> int:
    """How many files an answer to an upload names; one that is no such answer counts as one."""
    try:
        named = json.loads(answer)
    except (ValueError, RecursionError):
        return 1
    return max(1, len(named)) if isinstance(named, list) else 1


def _until_complete(receive: Arriving, counted: Receive) -> Receive:
    """`counted` while a body arrives, then the plain `receive`: a caller may go away after it."""

    async def either() -> Message:
        return await (receive() if receive.complete else counted())

    return either


async def _drain(receive: Arriving) -> None:
    while not receive.complete:
        await receive()
