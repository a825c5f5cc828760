"""`StartingApp` around small applications, called as a server calls it: what answers first, and the end."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.scripted import PATIENCE, until
from uso.errors import USOError
from uso.web.server.app import Readiness
from uso.web.server.starting import CLOSING, BuiltApp, Message, StartingApp, starting_page

NAVIGATION = [(b"accept", b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")]


class Visit:
    """What a server sees of one request."""

    def __init__(self, app: StartingApp, path: str, method: str = "GET", body: bytes = b"", headers: Any = ()) -> None:
        self.sent: list[Message] = []
        self.body_was_asked_for = False
        self._body = body
        scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "state": {}}
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        self.body_was_asked_for = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        await asyncio.wait_for(self.task, PATIENCE)
        headers = {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}
        return self.sent[0]["status"], headers, b"".join(part["body"] for part in self.sent[1:])


class Small:
    """A real application with a lifespan, which notes what happens to it and sends bodies back."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.may_start = threading.Event()
        self.may_start.set()
        self.broken: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await asyncio.to_thread(self.may_start.wait, PATIENCE)
            if self.broken is not None:
                raise self.broken
            scope["state"]["made"] = "at the start"
            self.events.append("startup")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.events.append(scope["path"])
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"real " + body})


class Served:
    """A `StartingApp` between its lifespan's start and end; the building goes on when `build_on` is set."""

    def __init__(self, result: BuiltApp | BaseException, hold: bool = False, built: bool = False) -> None:
        self.build_on = threading.Event()
        if built:
            self.build_on.set()
        self.state: dict[str, Any] = {}
        self._result = result
        self.app = StartingApp(self._build, hold)
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.outbox: asyncio.Queue[Message] = asyncio.Queue()

    def _build(self) -> BuiltApp:
        assert self.build_on.wait(PATIENCE)
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def begin(self) -> None:
        scope = {"type": "lifespan", "state": self.state}
        self._life = asyncio.ensure_future(self.app(scope, self._inbox.get, self.outbox.put))
        self._inbox.put_nowait({"type": "lifespan.startup"})

    async def begun(self) -> None:
        assert (await asyncio.wait_for(self.outbox.get(), PATIENCE))["type"] == "lifespan.startup.complete"

    async def end(self) -> None:
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        assert (await asyncio.wait_for(self.outbox.get(), PATIENCE))["type"] == "lifespan.shutdown.complete"
        await self._life

    def visit(self, path: str, method: str = "GET", body: bytes = b"", headers: Any = ()) -> Visit:
        return Visit(self.app, path, method, body, headers)


@asynccontextmanager
async def serving(result: BuiltApp | BaseException, built: bool = False) -> AsyncIterator[Served]:
    served = Served(result, built=built)
    served.begin()
    await served.begun()
    yield served
    served.build_on.set()
    await served.end()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


async def soon(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)


def test_health_and_readiness_are_answered_before_there_is_a_page() -> None:
    """Catches a port that is silent while Gradio is imported, and a /readyz in another form than the real one."""

    async def test() -> None:
        async with serving(BuiltApp(app=Small())) as served:
            status, _, body = await served.visit("/healthz").answer()
            assert (status, json.loads(body)) == (200, {"status": "alive"})
            status, headers, body = await served.visit("/readyz").answer()
            shown = json.loads(body)
            assert status == 503 and headers["cache-control"] == "no-store" and int(headers["retry-after"]) > 0
            assert set(shown) == set(Readiness.model_fields)
            assert shown.pop("elapsed") >= 0 and shown.pop("workers") == shown.pop("workers_ready") == 0
            assert shown == {"status": "starting", "progress": 0.0, "stage": "importing the page", "error": None}
            status, headers, body = await served.visit("/readyz", "HEAD").answer()
            assert (status, body) == (503, b"") and int(headers["content-length"]) > 0

    run(test)


def test_a_person_sees_the_starting_page_and_then_the_real_one() -> None:
    """Catches a browser that stares at nothing, and one that goes on seeing the starting page."""

    async def test() -> None:
        async with serving(BuiltApp(app=Small())) as served:
            status, headers, body = await served.visit("/", headers=NAVIGATION).answer()
            assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
            assert int(headers["retry-after"]) > 0 and headers["cache-control"] == "no-store"
            assert int(headers["content-length"]) == len(body) and body.decode() == starting_page()
            served.build_on.set()
            assert await served.app.arrived()
            assert await served.visit("/", headers=NAVIGATION).answer() == (200, {}, b"real ")

    run(test)


def test_every_other_request_waits_and_then_goes_through() -> None:
    """Catches a program whose call is refused because it came seconds too early, or loses its body."""

    async def test() -> None:
        small = Small()
        async with serving(BuiltApp(app=small)) as served:
            waiting = [
                served.visit("/gradio_api/upload", "POST", b"a picture"),
                served.visit("/config"),
                served.visit("/healthz", "POST"),
                served.visit("/", "POST", headers=NAVIGATION),
            ]
            await served.visit("/healthz").answer()
            assert not any(visit.task.done() or visit.body_was_asked_for for visit in waiting)
            served.build_on.set()
            assert [await visit.answer() for visit in waiting[:2]] == [
                (200, {}, b"real a picture"),
                (200, {}, b"real "),
            ]
            assert [(await visit.answer())[0] for visit in waiting[2:]] == [200, 200]
            assert small.events[0] == "startup"  # nobody comes in before
        assert small.events[-1] == "shutdown" and served.state == {"made": "at the start"}

    run(test)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("No module named 'gradio'", name="gradio"), "gradio cannot be imported. Run pip install"),
        (SystemExit("/secret/place"), "Something unexpected happened (SystemExit); the server's log says more."),
        (StopIteration(), "Something unexpected happened (StopIteration); the server's log says more."),
        (USOError("Choose <another>."), "Choose <another>."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_page_that_cannot_be_built_says_so_everywhere(
    error: BaseException, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a crash loop, a wait without end, and a traceback or a path in front of strangers."""

    async def test() -> None:
        async with serving(error) as served:
            waiting = served.visit("/config")
            await served.visit("/healthz").answer()
            served.build_on.set()
            assert not await served.app.arrived()
            assert (await served.visit("/healthz").answer())[0] == 200
            shown = json.loads((await served.visit("/readyz").answer())[2])
            assert shown["status"] == "failed"
            assert shown["error"].startswith(f"The page could not be built. {sentence}")
            for visit in (waiting, served.visit("/gradio_api/call/generate", "POST", b"{}")):
                status, _, body = await visit.answer()
                assert (status, json.loads(body)) == (503, {"error": shown["error"]})
            status, _, body = await served.visit("/", headers=NAVIGATION).answer()
            assert status == 503 and body.decode() == starting_page(shown["error"])
            assert b"/secret" not in body and b"Traceback" not in body

    run(test)
    assert sentence in caplog.text
    assert ("Traceback" in caplog.text) == (not isinstance(error, USOError))


def test_a_failed_page_is_shown_on_the_page() -> None:
    """Catches words of the page that changed, so that the error is put nowhere; and markup in it that runs."""
    plain, failed = starting_page(), starting_page("A <b>reason</b>.")
    assert 'data-state="starting"' in plain and 'data-state="starting"' not in failed
    assert '<html lang="en" data-state="failed">' in failed
    assert '<p id="error" role="alert">A &lt;b&gt;reason&lt;/b&gt;.</p>' in failed


def test_a_lifespan_that_fails_is_shown_too() -> None:
    """Catches an application that is served although it never started."""

    async def test() -> None:
        small = Small()
        small.broken = USOError("The folder is gone.")
        async with serving(BuiltApp(app=small), built=True) as served:
            assert not await served.app.arrived()
            shown = json.loads((await served.visit("/readyz").answer())[2])
            assert shown["error"] == "The page could not be built. The folder is gone."

    run(test)


def test_closing_while_the_page_is_being_built_tells_who_waits() -> None:
    """Catches SIGTERM that is held up by an import, and an engine that is started after it."""

    async def test() -> None:
        small, stops = Small(), []
        served = Served(BuiltApp(app=small, stop=lambda: stops.append("stop")))
        served.begin()
        await served.begun()
        waiting = served.visit("/config")
        await served.visit("/healthz").answer()
        threading.Thread(target=served.app.close).start()  # from wherever the signal arrives
        status, headers, body = await waiting.answer()
        assert (status, json.loads(body)) == (503, {"error": CLOSING}) and int(headers["retry-after"]) > 0
        await served.end()
        served.build_on.set()  # too late
        until(lambda: not any(thread.name == "build" for thread in threading.enumerate()))
        await asyncio.sleep(0)
        assert (small.events, stops) == ([], [])

    run(test)


def test_a_lifespan_that_was_entered_is_left() -> None:
    """Catches an engine that is started while the process ends, and that nobody waits for."""

    async def test() -> None:
        small, stops = Small(), []
        small.may_start.clear()
        served = Served(BuiltApp(app=small, stop=lambda: stops.append("stop")), built=True)
        served.begin()
        await served.begun()
        await asyncio.sleep(0.05)
        served.app.close()
        ending = asyncio.ensure_future(served.end())
        await asyncio.sleep(0.05)
        assert not ending.done()
        small.may_start.set()
        await ending
        assert (small.events, stops) == (["startup", "shutdown"], ["stop"])

    run(test)


def test_stop_is_called_once_and_before_the_end() -> None:
    """Catches streams that are not ended, so that an open tab keeps the process alive."""

    async def test() -> None:
        small = Small()
        async with serving(BuiltApp(app=small, stop=lambda: small.events.append("stop")), built=True) as served:
            await served.app.arrived()
            served.app.close()
            served.app.close()
            await soon(lambda: "stop" in small.events)
            assert (await served.visit("/last").answer())[0] == 200  # what runs is still delivered
        assert small.events == ["startup", "stop", "/last", "shutdown"]

    run(test)


@pytest.mark.parametrize("how", ["ready", "failed", "closed"])
def test_hold_keeps_the_port_closed_until_there_is_news(how: str) -> None:
    """Catches a server that listens before the model is loaded, and one that never listens when it failed or ends."""

    async def test() -> None:
        news: list[str] = []
        real = BuiltApp(app=Small(), settled=lambda: bool(news))
        served = Served(USOError("No.") if how == "failed" else real, hold=True)
        served.begin()
        await asyncio.sleep(0.02)
        assert served.outbox.empty()
        served.build_on.set()
        if how != "failed":
            await served.app.arrived()
            await asyncio.sleep(0.2)
            assert served.outbox.empty()
        if how == "ready":
            news.append("ready")
        elif how == "closed":
            served.app.close()
        await served.begun()
        await served.end()

    run(test)
