"""Connections to the port: how many there may be, and how long one may keep the server waiting for a request.

uvicorn limits neither, so half a header holds a file descriptor for ever, and without descriptors nothing is accepted,
answered or saved. Here some of them are always left for pictures.
"""

import asyncio
import ipaddress
import logging
import resource
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

HEADER_SECONDS = 20.0
"""Until the headers of a request must be complete, from the connection or from their first byte on."""
BODY_SECONDS = 60.0
"""How long the sender of a body may be silent."""

PER_ADDRESS = 256
"""Connections of one address. A page has six at most; an office or a school may share an address."""
MOST = 4096
"""Connections in all, where there are descriptors enough."""

FILES = 65_536
"""File descriptors that the process asks for, where it may have so many."""
SPARE_FILES = 512
"""Left for pictures, the ledger, uploads and the model; at most half of all."""

AT_ONCE = 16
"""Connections that are accepted in one go. asyncio goes on after a failure, and reports every one."""
LOG_SECONDS = 60.0
"""Between two log lines on the same kind of refusal."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files as far as it may be; returns how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS has a limit of its own below `hard`
        logger.warning("The limit of open files stays at %d (%s).", soft, error)
        return soft
    return wanted


class Limits:
    """The connections of one server, counted. For its event loop.

    Args:
        proxies: addresses and networks through which many people come; like this machine, they have no limit each.
    """

    def __init__(self, proxies: Iterable[str] = (), *, most: int = MOST, per_address: int = PER_ADDRESS) -> None:
        networks = [*proxies, "127.0.0.0/8", "::1"]
        self._everybody = "*" in networks
        self._exempt = [ipaddress.ip_network(entry, strict=False) for entry in networks if entry != "*"]
        self.most, self.per_address = most, per_address
        self.open: dict[Connection, str] = {}
        """Every connection, oldest first, with whom it counts for."""
        self._by_address: Counter[str] = Counter()
        self._logged: dict[str, float] = {}

    def admit(self, connection: "Connection", host: str | None) -> str | None:
        """Count a new connection; why not, as a sentence, if there are too many."""
        address = self._counted(host)
        if address and self._by_address[address] >= self.per_address:
            self.log(f"More than {self.per_address} connections came from one address ({address}).")
            return f"More than {self.per_address} connections of yours are open. Close pages or programs."
        if len(self.open) >= self.most and not self._make_room():
            self.log(f"All {self.most} connections are in use.")
            return "All connections of this server are in use. Try again in a moment."
        self.open[connection] = address
        self._by_address[address] += 1
        return None

    def gone(self, connection: "Connection") -> None:
        address = self.open.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def close_late(self, now: float) -> None:
        """Close the connections that have kept the server waiting for too long."""
        for connection in [one for one in self.open if one.is_late(now)]:
            connection.give_up()

    def _make_room(self) -> bool:
        """Close the connection that has kept the server waiting for longest; False if none does."""
        waiting = [one for one in self.open if one.waits_since is not None]
        if not waiting:
            return False
        self.log(f"All {self.most} connections are in use; those that send no request are closed.")
        min(waiting, key=lambda one: one.waits_since or 0.0).give_up()
        return True

    def _counted(self, host: str | None) -> str:
        """Whom a connection counts for: an IPv4 address, an IPv6 network of one household; "" for nobody."""
        try:
            address = ipaddress.ip_address((host or "").partition("%")[0])
        except ValueError:
            return ""
        address = getattr(address, "ipv4_mapped", None) or address
        if self._everybody or any(address in network for network in self._exempt):
            return ""
        return str(address) if address.version == 4 else str(ipaddress.ip_network((int(address), 64), strict=False))

    def log(self, sentence: str) -> None:
        """A warning, once a minute for each."""
        now = time.monotonic()
        if now - self._logged.get(sentence, float("-inf")) >= LOG_SECONDS:
            self._logged = {said: at for said, at in self._logged.items() if now - at < LOG_SECONDS} | {sentence: now}
            logger.warning("%s", sentence)

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The event loop's handler of exceptions: it reports each failed accept, thousands in a second."""
        if str(context.get("message", "")).startswith("socket.accept() out of system resource"):
            self.log(f"No connection could be accepted ({context.get('exception')}). It is tried again every second.")
        else:
            loop.default_exception_handler(context)


class Connection(H11Protocol):
    """uvicorn's connection, counted and with deadlines."""

    limits: Limits
    """Of the server; set by a subclass."""

    waits_since: float | None = None
    """Since when the caller owes a header or more of a body; None while it owes nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        refused = self.limits.admit(self, peer[0] if isinstance(peer, tuple) and peer else None)
        if refused is not None:
            self.transport = transport
            transport.write(_refusal(refused))
            transport.close()
            return
        super().connection_made(transport)
        self.waits_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.gone(self)
        self.waits_since = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # refused, or given up
            return
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and self.waits_since is None):
            self.waits_since = time.monotonic()
        elif state is not h11.IDLE:
            self.waits_since = None

    def is_late(self, now: float) -> bool:
        """Whether the caller has owed something for too long. A body that is not read yet is owed nothing."""
        if self.waits_since is None or self.flow.read_paused:
            return False
        limit = BODY_SECONDS if self.conn.their_state is h11.SEND_BODY else HEADER_SECONDS
        return now - self.waits_since > limit

    def give_up(self) -> None:
        """Close it at once; whoever still reads an answer on it sees it broken off."""
        self.limits.gone(self)
        self.transport.abort()


def most_connections(files: int) -> int:
    """How many connections there may be where so many files may be open."""
    return min(MOST, max(files - SPARE_FILES, files // 2))


def connection_class(limits: Limits) -> type[Connection]:
    """The class of one server's connections."""
    return type("Connection", (Connection,), {"limits": limits})


def _refusal(sentence: str) -> bytes:
    head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 5\r\n"
    return f"{head}Content-Length: {len(sentence)}\r\nConnection: close\r\n\r\n{sentence}".encode()
