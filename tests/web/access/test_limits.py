"""The window that limits count with, on a clock of the test's own; requests and open streams of one person."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse

from tests.support.behind import connected
from tests.support.scripted import until
from tests.support.served import served
from uso.web.access.limits import AT_ONCE, OPEN_STREAMS, REMEMBERED_KEYS, RateLimits, Window, request_window
from uso.web.access.stack import Answers, guarded
from uso.web.settings import ServerSettings


def bare() -> FastAPI:
    app = FastAPI()

    @app.post("/gradio_api/{rest:path}")
    async def event(rest: str) -> str:
        return rest

    @app.get("/gradio_api/heartbeat/{session}")
    async def heartbeat(session: str) -> StreamingResponse:
        async def parts() -> Any:
            yield "ALIVE"
            await asyncio.sleep(3600)

        return StreamingResponse(parts())

    @app.get("/gradio_api/file")
    async def file() -> str:
        return "a file"

    return app


def test_a_bucket_empties_and_fills() -> None:
    """Catches a limit that never lets go, one that saves up for ever, and people who pay for each other."""
    now = [0.0]
    window = Window(5, 2.5, steady=True, clock=lambda: now[0])  # two a second
    assert [window.take("a") for _ in range(6)] == [0, 0, 0, 0, 0, 0.5]
    assert window.take("b") == 0
    now[0] = 0.5
    assert window.take("a") == 0 and window.take("a") == 0.5
    now[0] = 1000
    assert [window.take("a") for _ in range(6)][-2:] == [0, 0.5]


def test_wrong_tries_count_for_a_while() -> None:
    """Catches a limit that never lets go, counts for ever, or mixes people up."""
    now = [0.0]
    window = Window(3, 60, clock=lambda: now[0])
    for second in (0, 10, 20):
        now[0] = second
        assert window.wait("a") == 0
        window.count("a")
    assert window.wait("a") == 40 and window.wait("b") == 0
    now[0] = 60.0
    assert window.wait("a") == 0
    until = window.count("a")
    assert window.wait("a") == 10
    window.correct("a", until, -1)
    assert window.wait("a") == 0


def test_a_window_of_tries_has_bounded_memory() -> None:
    """Catches a server that is filled up by somebody with many addresses or made-up names."""
    window = Window(2, 60, keys=100)
    for number in range(1000):
        window.wait("x" * 10_000 + str(number))
        window.wait(f"asked only {number}")
        window.count("x" * 10_000 + str(number))
    for _ in range(50):
        window.count("x" * 10_000 + "999")
    assert len(window._used) == 100
    assert max(len(key) for key in window._used) == 16 and max(map(len, window._used.values())) == 2
    assert window.wait("x" * 10_000 + "999") > 0
    window.correct("somebody who never tried", 0.0, -1)
    assert len(window._used) == 100


def test_a_window_has_bounded_memory() -> None:
    """Catches a server that is filled up by somebody with many addresses."""
    window = request_window()
    for number in range(REMEMBERED_KEYS + 500):
        window.take(str(number))
    assert len(window._used) == REMEMBERED_KEYS


def test_a_flood_of_events_is_refused_in_words(tmp_path: Path) -> None:
    """Catches one caller who keeps the server busy with what the page itself does; others, and files, go on."""
    now = [0.0]
    app = bare()
    limits = RateLimits(app, request_window(clock=lambda: now[0]))
    with TestClient(Answers(limits, app)) as client:
        paths = ("queue/join", "call/generate", "run/predict", "upload", "queue/join/")
        for number in range(AT_ONCE):
            assert client.post(f"/gradio_api/{paths[number % 5]}").status_code == 200
        for path in paths:
            answer = client.post(f"/gradio_api/{path}")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert answer.json()["detail"].startswith("More than 20 requests a second came from you.")
        assert client.get("/gradio_api/file").json() == "a file"
        assert client.get("/gradio_api/heartbeat/x").status_code == 429
        now[0] = 1.0
        assert client.post("/gradio_api/queue/join").status_code == 200
    guard = guarded(app, ServerSettings(output=tmp_path, host="0.0.0.0"))
    with TestClient(guard, client=("198.51.100.7", 1)) as flood, TestClient(guard, client=("203.0.113.9", 1)) as other:
        assert 429 in {flood.post("/gradio_api/cancel").status_code for _ in range(AT_ONCE * 2)}
        assert other.post("/gradio_api/cancel").status_code == 200


def test_open_streams_are_counted_and_given_back(tmp_path: Path) -> None:
    """Catches one caller who takes all connections, and streams that count after they are closed."""
    app = bare()
    limits = RateLimits(app, most_open=3)

    def opened(url: str) -> tuple[Any, str]:
        connection = connected(url)
        connection.sendall(b"GET /gradio_api/heartbeat/abc HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith((b"ALIVE\r\n", b"}")):
            answer += connection.recv(65536)
        return connection, answer.decode()

    with served(Answers(limits, app)) as url, ExitStack() as stack:
        for number in range(4):
            connection, answer = opened(url)
            stack.enter_context(connection)
            assert (" 200 " in answer) is (number < 3), answer
        assert "3 streams of yours are open, and no more can be." in answer
        stack.close()
        until(lambda: not limits._open)
        connection, answer = opened(url)
        connection.close()
        assert " 200 " in answer
    assert OPEN_STREAMS >= 50  # tabs and programs of one office
