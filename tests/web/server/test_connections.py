"""How many connections there may be, and how long one may keep the server waiting: real sockets around a small app."""

import asyncio
import errno
import logging
import resource
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.support.running import ask
from tests.support.scripted import PATIENCE, until
from uso.web.server import connections, process
from uso.web.server.connections import FILES, Limits, most_connections, raise_file_limit
from uso.web.server.port import listen
from uso.web.server.process import Server
from uso.web.server.starting import BuiltApp, StartingApp


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            what = (await receive())["type"]
            await send({"type": f"{what}.complete"})
            if what.endswith("shutdown"):
                return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def serving(proxies: tuple[str, ...] = (), **limits: int) -> Generator[int, None, None]:
    """The port of our server around the small app."""
    listener = listen("127.0.0.1", 0)
    server = Server(StartingApp(lambda: BuiltApp(app=app)), grace=1.0, proxies=proxies)
    for name, value in limits.items():
        setattr(server._limits, name, value)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        port: int = listener.getsockname()[1]
        until(lambda: server.started)
        yield port
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def half_open(port: int, data: bytes = b"GET / HTTP/1.1\r\nHost: x\r\n") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    made.sendall(data)
    return made


def is_closed(connection: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def test_half_a_header_is_given_up_and_no_slow_answer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches connections that hold a descriptor for ever, also by a byte now and then, and a long answer cut off."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with serving() as port:
        silent, slow = half_open(port, b""), half_open(port)
        ended = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not ended.wait(0.1):
                    slow.sendall(b"x")

        threading.Thread(target=drip, daemon=True).start()
        assert ask(port, "/slow").body == b"ok"
        assert is_closed(silent) and is_closed(slow)
        ended.set()
        silent.close()
        slow.close()


def test_a_second_request_has_a_deadline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a deadline for the first request of a connection alone."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with serving() as port, half_open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
        began = time.monotonic()
        while not is_closed(connection):
            pass
        assert time.monotonic() - began < 4  # uvicorn's own 5 s are for connections without a request


def test_a_body_may_be_slow_and_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an upload that ends in the middle and is waited for for ever, and a slow one that is cut off."""
    monkeypatch.setattr(connections, "BODY_SECONDS", 1.5)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
    with serving() as port, half_open(port, head) as slow, half_open(port, head + b"ab") as silent:
        for _ in range(4):
            time.sleep(0.7)
            slow.sendall(b"a")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert is_closed(silent)


def test_where_all_connections_are_in_use_the_idle_ones_go(caplog: pytest.LogCaptureFixture) -> None:
    """Catches a server that answers nobody any more because of connections that ask for nothing."""
    with serving(most=8) as port, caplog.at_level(logging.WARNING):
        held = [half_open(port) for _ in range(40)]
        for _ in range(3):
            assert ask(port, "/").body == b"ok"
        assert len([one for one in caplog.records if "All 8 connections are in use" in one.getMessage()]) == 1
        busy = [half_open(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(8)]
        time.sleep(0.5)
        refused = ask(port, "/")
        assert refused.status == 503 and refused.body.startswith(b"All connections of this server are in use.")
        assert all(one.recv(65536).startswith(b"HTTP/1.1 200 ") for one in busy)
        for one in (*held, *busy):
            one.close()


def test_one_address_has_its_share_and_proxies_have_all(caplog: pytest.LogCaptureFixture) -> None:
    """Catches one stranger who holds all connections, and a proxy that is taken for one."""
    limits = Limits(["10.0.0.0/8", "2001:db8:1::/48"], most=100, per_address=2)

    def admitted(host: str | None) -> list[bool]:
        made: list[Any] = [object() for _ in range(3)]
        taken = [limits.admit(one, host) is None for one in made]
        for one in made:
            limits.gone(one)
        return taken

    for host in ("198.51.100.7", "::ffff:198.51.100.7", "2001:db8:2::7"):
        assert admitted(host) == [True, True, False]
    for proxy in ("127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::7", None):
        assert admitted(proxy) == [True, True, True]
    assert limits.open == {} and not limits._by_address
    neighbours: list[Any] = [object() for _ in range(3)]
    said = [limits.admit(one, f"2001:db8:2::{number}") for number, one in enumerate(neighbours)]
    assert said[:2] == [None, None] and str(said[2]).startswith("More than 2 connections of yours are open.")
    assert Limits(["*"], per_address=1)._counted("198.51.100.7") == ""


def test_a_failed_accept_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Catches a full table of descriptors that fills the disk with tracebacks, and other errors that are not told."""
    limits, loop = Limits(), asyncio.new_event_loop()
    error = OSError(errno.EMFILE, "Too many open files")
    for _ in range(1000):
        limits.on_loop_error(loop, {"message": "socket.accept() out of system resource", "exception": error})
    assert [one.getMessage().partition("(")[0] for one in caplog.records] == ["No connection could be accepted "]
    limits.on_loop_error(loop, {"message": "Something else"})
    assert "Something else" in caplog.text
    loop.close()


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [(1024, 4096, 4096), (1024, 10**6, FILES), (1024, resource.RLIM_INFINITY, FILES), (10**6, 10**6, None)],
)
def test_the_soft_limit_of_files_is_raised(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int | None
) -> None:
    """Catches a server that has 1,024 descriptors where it may have more, or takes more than it can use."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: told.append(limits))
    assert raise_file_limit() == (wanted or soft)
    assert told == ([] if wanted is None else [(wanted, hard)])


def test_some_descriptors_are_always_left() -> None:
    """Catches as many connections as descriptors: no picture could be saved then."""
    assert [most_connections(files) for files in (256, 1024, 4096, FILES)] == [128, 512, 3584, connections.MOST]


def test_few_connections_are_accepted_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches asyncio's 2,048: so many are accepted, or fail to be, before the first of them is counted."""
    server = Server(StartingApp(lambda: BuiltApp(app=app)), grace=1.0)
    assert server.config.backlog == process.AT_ONCE == 16
    with listen("127.0.0.1", 0) as listener:
        listener.listen(process.AT_ONCE)
        held = [socket.create_connection(listener.getsockname(), timeout=1) for _ in range(64)]  # they wait in line
        for one in held:
            one.close()
