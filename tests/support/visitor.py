"""Somebody in front of the page, as Gradio gives them to a handler: a real request with a browser's cookie."""

from dataclasses import replace
from typing import Any

import gradio as gr
from starlette.requests import Request

from tests.support.scripted import submit, until
from uso.request.request import GenerationRequest
from uso.web.access.identity import BROWSER_COOKIE, asker_of, remember
from uso.web.api.calls import Calls
from uso.web.jobs.job import Job, Picture
from uso.web.page.events.inputs import InputEvents
from uso.web.page.events.jobs import JobEvents
from uso.web.page.events.pictures import PictureEvents

ANN, BEN = "a" * 43, "b" * 43
"""Keys of two browsers."""

TAB = "7" * 32
"""Id of a tab."""


class Events:
    """All events of a page."""

    def __init__(self, calls: Calls) -> None:
        self.calls, self.config, self.queue, self.ledger = calls, calls.config, calls.queue, calls.ledger
        self.jobs, self.inputs, self.pictures = JobEvents(calls), InputEvents(calls), PictureEvents(calls)


def visitor(key: str | None = ANN, session: str = "tab", local: bool = False, host: str = "127.0.0.1") -> gr.Request:
    """A request from the browser with this key, or from one that keeps no cookies; `local`: on the server's machine."""
    headers = [] if key is None else [(b"cookie", f"{BROWSER_COOKIE}={key}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": (host, 1)}
    if local:
        remember(scope, replace(asker_of(Request(scope)), local=True))
    return gr.Request(Request(scope), session_hash=session)


def made(events: Events, key: str | None = ANN, tab: str = "", **values: Any) -> tuple[Job, Picture]:
    """The last picture of a job that the owner of a browser has made."""
    request = GenerationRequest.create(events.config, **{"num_inference_steps": 2, **values})
    job = submit(events.queue, request, asker_of(visitor(key)), tab)
    until(lambda: job.status.over and job.ended_at)
    assert job.status.state == "done", job.status.error
    return job, job.status.pictures[-1]
