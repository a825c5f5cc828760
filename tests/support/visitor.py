"""Somebody in front of the page, as Gradio hands them to a handler: a real request with a browser's cookie."""

from dataclasses import replace

import gradio as gr
from starlette.requests import Request

from uso.web.access.identity import BROWSER_COOKIE, asker_of, remember

ANN, BEN = "a" * 43, "b" * 43
"""Keys of two browsers."""


def visitor(key: str | None = ANN, session: str = "tab", local: bool = False) -> gr.Request:
    """A request from the browser with this key, or from one that keeps no cookies; `local`: on the server's machine."""
    headers = [] if key is None else [(b"cookie", f"{BROWSER_COOKIE}={key}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": ("127.0.0.1", 1)}
    if local:
        remember(scope, replace(asker_of(Request(scope)), local=True))
    return gr.Request(Request(scope), session_hash=session)
