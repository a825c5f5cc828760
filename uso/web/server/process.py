"""How the process listens and how it ends: uvicorn's server with our manners. Knows nothing of the page behind it.

The first SIGTERM or SIGINT ends in order: who waits is told, what runs is finished and delivered within the grace
time. A second one ends the process at once; finished pictures are on the disk by then, and no file is torn.
"""

import asyncio
import logging
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import uvicorn

from uso.web.server.port import address
from uso.web.server.starting import Front
from uso.web.store import uploads as scratch

logger = logging.getLogger(__name__)

LAST_SECONDS = 15
"""After the grace time: the end of its step, telling its page, closing; what stops a container must wait for both."""

CLOSING_SECONDS = 5
"""For connections to end when nothing runs any more: a slow upload holds nobody up."""

FETCH_SECONDS = 2.0
"""After the last picture: for its page to hear of it, and to fetch the file."""

TWICE_SECONDS = 0.5
"""One wish to stop can arrive as two signals (`timeout` sends them to a process and to its group); from a person the
second one takes longer than this."""


class Server(uvicorn.Server):
    """uvicorn, but the address is logged when the page is there, and SIGTERM ends it with tabs open too.

    Args:
        grace: seconds that a running job has to finish.
        uploads: the folder of `scratch.py`, kept small, and removed at the end.
    """

    def __init__(self, front: Front, grace: float, uploads: Path | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                front,
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # the guard believes some of them, of trusted proxies
                timeout_graceful_shutdown=CLOSING_SECONDS,
            )
        )
        self._front = front
        self._uploads = uploads
        self._grace = grace
        self._asked_at: float | None = None
        self._signal = 0
        self._busy_at = 0.0
        """When something was last seen to run, after the end was asked for."""
        self._announcing: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """No locks and no logging in here: it may interrupt whoever holds them."""
        if self._asked_at is None:
            self._asked_at, self._signal = time.monotonic(), sig
            self._front.close()
            if not self._front.busy():
                super().handle_exit(sig, frame)
        elif time.monotonic() - self._asked_at > TWICE_SECONDS:
            self._remove_uploads()
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: goes on serving until what runs is finished, and its page has fetched the picture."""
        if self._asked_at is not None and not self.should_exit and self._is_finished(self._asked_at):
            super().handle_exit(self._signal, None)
        return await super().on_tick(counter)

    def _is_finished(self, asked_at: float) -> bool:
        now = time.monotonic()
        if self._front.busy():
            self._busy_at = now
        return now - self._busy_at > FETCH_SECONDS or now - asked_at > self._grace + LAST_SECONDS

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        addresses = [address(listener) for listener in sockets or []]
        logger.info("Listening at %s.", ", ".join(addresses))
        self._announcing = asyncio.create_task(self._announce(addresses))

    async def _announce(self, addresses: list[str]) -> None:
        if await self._front.arrived():
            for url in addresses:
                logger.info("USO is at %s", url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._front.end()
        try:
            await super().shutdown(sockets)
        finally:
            self._remove_uploads()

    def _remove_uploads(self) -> None:
        if self._uploads is not None:
            scratch.remove(self._uploads)
