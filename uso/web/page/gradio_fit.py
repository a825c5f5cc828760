"""Everything that is patched in Gradio, made for version 6.31.0: one function for each patch, with its reason.

These patches reach into what Gradio does not promise to keep. Look at each again before another version is taken.
"""

from typing import Any

import gradio as gr
from fastapi import FastAPI

# The page and the app that it is mounted in

MAX_SESSIONS = 1000
"""Tabs and calls whose state Gradio keeps, 0.1 MB each; the one that was quiet for longest goes first."""

QUEUE_POLL_SECONDS = 0.02
"""How often Gradio's queue looks for something to do."""

MAX_EVENTS = 1000
"""Events at the same time: everybody who waits, or is shown something."""

RANKS_SECONDS = 3600.0
"""How often Gradio sends everybody their place in its own queue, where nobody waits."""


def fit_queue(page: gr.Blocks) -> None:
    """Gradio's queue passes everything on at once, because jobs wait in our own queue.

    - At Gradio's own poll interval of 0.001 s an idle server takes 6 % of a core.
    - At its own 40 events the next ones wait before they are in our queue, unseen, and their Stop with them.
    - It sends places "after each event" in the loop that starts all events, and that loop ends for good if one of the
      people has just gone.
    """
    page.queue(default_concurrency_limit=None, api_open=False, status_update_rate=RANKS_SECONDS)
    for name, value in (
        ("sleep_when_free", QUEUE_POLL_SECONDS),
        ("progress_update_sleep_when_free", QUEUE_POLL_SECONDS),
        ("max_thread_count", MAX_EVENTS),
    ):
        if hasattr(page._queue, name):
            setattr(page._queue, name, value)


def accept_uploads_only(page: gr.Blocks) -> None:
    """Gradio checks that a file which a client names was uploaded by a client, but only on pages that were launched. A
    mounted page never is: without this, `{"path": "/etc/passwd"}` is opened."""
    page.has_launched = True


def limit_sessions(page: gr.Blocks) -> None:
    """Mounting has no parameter for it. At Gradio's own 10,000 a server that programs call fills a gigabyte with
    sessions that are over."""
    page.state_session_capacity = MAX_SESSIONS


def end_streams(app: FastAPI) -> None:
    """End the streams of the Gradio app that is mounted in `app`: an open tab would keep the process alive."""
    for route in app.routes:
        ended: Any = getattr(getattr(route, "app", None), "stop_event", None)
        if ended is not None:
            ended.set()
