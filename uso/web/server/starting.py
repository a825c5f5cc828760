"""What answers while the program is still being imported: the port is open at once, the page takes seconds.

`StartingApp` is an ASGI application that needs no other library. It answers `/healthz` and `/readyz` itself and shows
people the starting page until the real application is built in a thread of its own. Every other request waits for that.
Then everything is passed on. It knows nothing of models, pages and Gradio.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

from uso.config import ROOT
from uso.errors import USOError
from uso.language import Text, asked_for, speak, text_of, told
from uso.system.packages import import_problem

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

STARTING_PAGE = ROOT / "deploy" / "starting.html"
"""Proxies show it too while nothing answers behind them, so it must not depend on who serves it."""

STAGE = "importing the page"
CLOSING = Text("The server is shutting down. Send it again in a moment.")
RETRY_SECONDS = 5
SETTLE_POLL_SECONDS = 0.1

OPEN_PATHS = ("/healthz", "/readyz", "/metrics")
"""They need no login: probes cannot log in. A proxy keeps the last one to itself (deploy/nginx.conf)."""


@dataclass(frozen=True, kw_only=True)
class BuiltApp:
    """The real application."""

    app: ASGIApp
    stop: Callable[[], None] = lambda: None
    """Called once, in the event loop, when the process is to end; returns at once. No more jobs are accepted, and
    running ones have their grace time."""
    busy: Callable[[], bool] = lambda: False
    """Whether a job runs that is to be finished, and fetched, before the process ends."""
    end: Callable[[], None] = lambda: None
    """Called once, in the event loop, when nothing runs any more; returns at once. Ends streams that would go on."""
    settled: Callable[[], bool] = lambda: True
    """Whether the model is ready or has failed."""


class StartingApp:
    """The application that the server serves from its first moment.

    Args:
        build: makes the real application, in a thread of its own; what it raises is the answer to every request.
        hold: let the server listen only when the model is ready, or it or the page has failed.
    """

    def __init__(self, build: Callable[[], BuiltApp], hold: bool = False) -> None:
        self._build = build
        self._hold = hold
        self._began = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decided = asyncio.Event()
        """Set when waiting is over: the real application is there or has failed, or the process ends."""
        self._built: BuiltApp | None = None
        self._lifespan: Lifespan | None = None
        self._error = ""
        self._closing = threading.Event()
        self._ended = False
        self.asked_at = float("-inf")
        """When somebody's last request began or was answered, by `time.monotonic()`. Probes do not count."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope.get("path") in OPEN_PATHS:
            await self._answer(scope, receive, send)
        else:
            self.asked_at = time.monotonic()
            try:
                await self._answer(scope, receive, send)
            finally:
                self.asked_at = time.monotonic()

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        speak(asked_for(_header(scope, b"accept-language")))
        if self._built is None:
            reply = self._own_reply(scope)
            if reply is None:
                await self._decided.wait()
            if self._built is None:
                reply = reply or Reply(503, _json({"error": told(self._error or CLOSING)}), "application/json")
                await reply.send(scope, send)
                return
        await self._built.app(scope, receive, send)

    async def arrived(self) -> bool:
        """Wait until the real application takes the requests; False if it never will."""
        await self._decided.wait()
        return self._built is not None

    def close(self) -> None:
        """The process is to end: waiting requests are answered, and the real application's `stop` is called. Returns at
        once. Any thread may call it, and a signal's handler."""
        if self._loop is None:
            self._closing.set()
        else:
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            self._decided.set()
            if self._built is not None:
                self._built.stop()

    def busy(self) -> bool:
        """Whether the real application still has something to finish."""
        return self._built is not None and self._built.busy()

    def end(self) -> None:
        """End the real application's streams. For the event loop."""
        if self._built is not None and not self._ended:
            self._ended = True
            self._built.end()

    # Answers until then

    def _own_reply(self, scope: MutableMapping[str, Any]) -> "Reply | None":
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return None
        if scope["path"] == "/healthz":
            return Reply(200, _json({"status": "alive"}), "application/json")
        if scope["path"] == "/readyz":
            return Reply(503, _json(self._state()), "application/json")
        if _is_navigation(scope):
            return Reply(503, starting_page(told(self._error)).encode(), "text/html; charset=utf-8")
        return None

    def _state(self) -> dict[str, Any]:
        """As the real `/readyz` answers."""
        return {
            "status": "failed" if self._error else "starting",
            "progress": 0.0,
            "stage": STAGE,
            "elapsed": round(time.monotonic() - self._began, 1),
            "workers": 0,
            "workers_ready": 0,
            "error": told(self._error) or None,
        }

    # The real application's start and end

    async def _live(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The server's lifespan: started at once (or held), ended when the real application has ended."""
        await receive()
        self._loop = asyncio.get_running_loop()
        built = self._start_building()
        starting = asyncio.create_task(self._start(built, scope.get("state", {})))
        if self._closing.is_set():
            self._decided.set()
        if self._hold:
            await self._settle()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._close()
        self.end()
        if not built.done():
            starting.cancel()  # nothing to end in order: the thread ends with the process
        with suppress(asyncio.CancelledError):
            await starting
        if self._lifespan is not None:
            await self._lifespan.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    def _start_building(self) -> "asyncio.Future[BuiltApp | BaseException]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[BuiltApp | BaseException] = loop.create_future()

        def deliver(result: BuiltApp | BaseException) -> None:
            if not future.done():
                future.set_result(result)

        def work() -> None:
            result: BuiltApp | BaseException
            try:
                result = self._build()
            except BaseException as error:  # an import may even end in SystemExit
                result = error
            with suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(deliver, result)

        threading.Thread(target=work, name="build", daemon=True).start()
        return future

    async def _start(self, built: "asyncio.Future[BuiltApp | BaseException]", state: dict[str, Any]) -> None:
        """Take over the real application as soon as it is built, and start its lifespan."""
        result = await built
        if self._closing.is_set():
            return
        try:
            if isinstance(result, BaseException):
                raise result
            lifespan = Lifespan(result.app, state)
            await lifespan.startup()
        except BaseException as error:
            logger.error("The page could not be built.", exc_info=None if isinstance(error, USOError) else error)
            self._error = Text("The page could not be built. {}", _sentence(error))
            logger.error("%s", str(self._error))
        else:
            self._lifespan, self._built = lifespan, result
            if self._closing.is_set():
                result.stop()
        self._decided.set()

    async def _settle(self) -> None:
        await self._decided.wait()
        while not self._closing.is_set() and self._built is not None and not self._built.settled():
            await asyncio.sleep(SETTLE_POLL_SECONDS)


class Lifespan:
    """The lifespan of an ASGI application, seen from the server's side; one task from its start to its end.

    Args:
        state: what the application keeps in its lifespan's state; its requests find it in their scope.
    """

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        self._task = asyncio.ensure_future(app(scope, self._inbox.get, self._outbox.put))

    async def startup(self) -> None:
        await self._send("startup")

    async def shutdown(self) -> None:
        """Wait for the application's end. Errors are logged, because nobody is left to be answered."""
        try:
            await self._send("shutdown")
        except Exception as error:
            logger.error("The page did not end in order: %s", error, exc_info=error)

    async def _send(self, what: str) -> None:
        await self._inbox.put({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and answer.result()["type"] == f"lifespan.{what}.complete":
            return
        answer.cancel()
        await self._task  # raises what went wrong
        raise RuntimeError(f"the application gave up at its {what}")


@dataclass(frozen=True)
class Reply:
    """A whole answer that no cache may keep: all of it changes in a moment."""

    status: int
    body: bytes
    content_type: str

    async def send(self, scope: MutableMapping[str, Any], send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1013})  # "try again later"
            return
        headers = {"content-type": self.content_type, "content-length": len(self.body), "cache-control": "no-store"}
        if self.status != 200:
            headers["retry-after"] = RETRY_SECONDS
        encoded = [(name.encode(), str(value).encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


def starting_page(error: str = "") -> str:
    """The page that waits for the program; with an error, the page that shows it."""
    page = STARTING_PAGE.read_text(encoding="utf-8")
    if not error:
        return page
    return page.replace('data-state="starting"', 'data-state="failed"').replace(
        '<p id="error" role="alert"></p>', f'<p id="error" role="alert">{escape(error)}</p>'
    )


def _sentence(error: BaseException) -> str:
    """What people read of an error; without paths of this machine."""
    if isinstance(error, USOError):
        return text_of(error)
    problem = import_problem(error)
    if problem is not None:
        return Text("{} The server's log says more.", problem)
    return Text("Something unexpected happened ({}); the server's log says more.", type(error).__name__)


def _is_navigation(scope: MutableMapping[str, Any]) -> bool:
    """Whether a person's browser requests a page; programs and a page's own requests accept anything."""
    return "text/html" in _header(scope, b"accept")


def _header(scope: MutableMapping[str, Any], wanted: bytes) -> str:
    return ", ".join(value.decode("latin-1") for name, value in scope.get("headers", ()) if name == wanted)


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()
