"""A server in a thread of this process: real sockets around an app that a test has made."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tests.support.scripted import PATIENCE


@contextmanager
def served(app: Any) -> Generator[str, None, None]:
    """`http://127.0.0.1:PORT` of an app while it runs, lifespan included, as our server runs it."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, proxy_headers=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="served", daemon=True)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
