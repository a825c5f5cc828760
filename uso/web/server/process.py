"""How the process listens and ends: uvicorn's server with signals of its own. Knows nothing of the page behind it.

The first SIGTERM, SIGHUP or SIGINT ends in order: queued jobs are cancelled with a message, running ones are finished
and delivered within the grace time. A second one ends the process at once. No file is left half-written by either.
"""

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from uso.web.server.connections import AT_ONCE, Limits, connection_class, most_connections, raise_file_limit
from uso.web.server.port import address
from uso.web.server.starting import StartingApp
from uso.web.store import uploads as upload_folder

logger = logging.getLogger(__name__)

LAST_SECONDS = 15
"""After the grace time, to end the step, inform the page and close. Whatever stops a container must wait for both."""

CLOSING_SECONDS = 5
"""For connections to end when nothing runs any more: a slow upload must not delay the end."""

QUIET_SECONDS = 3.0
"""After the last picture, and after each request that follows it: its page learns of it, asks where it is, and fetches
the file."""

FETCH_SECONDS = 10.0
"""After the last picture, whatever is asked for."""

TWICE_SECONDS = 0.5
"""One stop can arrive as two signals: `timeout` sends them to a process and to its group. A person's second signal
takes longer than this."""


class Server(uvicorn.Server):
    """uvicorn, but the address is logged when the page is there, and SIGTERM ends it even with tabs open.

    Args:
        grace: seconds that a running job has to finish.
        uploads: the private folder of uploads, removed at the end.
        proxies: addresses and networks of trusted proxies, which may have any number of connections.
    """

    def __init__(
        self, app: StartingApp, grace: float, uploads: Path | None = None, proxies: Iterable[str] = ()
    ) -> None:
        self._limits = Limits(proxies, most=most_connections(raise_file_limit()))
        super().__init__(
            uvicorn.Config(
                app,
                http=connection_class(self._limits),
                backlog=AT_ONCE,
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # the access stack trusts some of them, from trusted proxies
                timeout_graceful_shutdown=CLOSING_SECONDS,
            )
        )
        self._app = app
        self._uploads = uploads
        self._grace = grace
        self._stopped_at: float | None = None
        self._signal = 0
        self._busy_at = float("-inf")
        """When a job was last seen to run."""
        self._announcing: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGHUP too: a terminal that is closed sends it. Under nohup it stays ignored."""
        with super().capture_signals():
            before = signal.getsignal(signal.SIGHUP)
            hears = before is not signal.SIG_IGN and threading.current_thread() is threading.main_thread()
            if hears:
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                if hears:
                    signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """No locks and no logging in here: it may interrupt code that holds them."""
        if self._stopped_at is None:
            self._stopped_at, self._signal = time.monotonic(), sig
            self._app.close()
            if self._is_finished(self._stopped_at):
                super().handle_exit(sig, frame)
        elif time.monotonic() - self._stopped_at > TWICE_SECONDS:
            self._remove_uploads()
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: serve on until the running job is finished and its page has fetched the picture."""
        self._look()
        if self._stopped_at is not None and not self.should_exit and self._is_finished(self._stopped_at):
            super().handle_exit(self._signal, None)
        if counter % 10 == 0:
            self._limits.close_late(time.monotonic())
        return await super().on_tick(counter)

    def _is_finished(self, stopped_at: float) -> bool:
        """Whether nothing runs, and nobody fetches what has just been made."""
        now = time.monotonic()
        if now - stopped_at > self._grace + LAST_SECONDS:
            return True
        if self._look():
            return False
        return now - max(self._busy_at, self._app.asked_at) > QUIET_SECONDS or now - self._busy_at > FETCH_SECONDS

    def _look(self) -> bool:
        """Whether a job runs."""
        if running := self._app.busy():
            self._busy_at = time.monotonic()
        return running

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._limits.on_loop_error)
        await super().startup(sockets)
        addresses = [address(listener) for listener in sockets or []]
        logger.info("Listening at %s.", ", ".join(addresses))
        self._announcing = asyncio.create_task(self._announce(addresses))

    async def _announce(self, addresses: list[str]) -> None:
        if await self._app.arrived():
            for url in addresses:
                logger.info("USO is at %s", url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.end()
        try:
            await super().shutdown(sockets)
        finally:
            self._remove_uploads()

    def _remove_uploads(self) -> None:
        if self._uploads is not None:
            upload_folder.remove(self._uploads)
