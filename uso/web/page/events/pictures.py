"""The pictures that are made: shown, listed, used again."""

import asyncio
import logging
import sqlite3
import time
from typing import Any, NamedTuple

import gradio as gr

from uso.language import Text
from uso.request.request import RANDOM_SEED
from uso.web.access.identity import asker_of
from uso.web.api.calls import Calls, Inputs
from uso.web.api.files import handed_out
from uso.web.jobs.job import NAME_LETTERS
from uso.web.page import html
from uso.web.page.compare import content_of
from uso.web.page.inputs import KEEP, UNCHANGED
from uso.web.page.record import facts, settings
from uso.web.page.restore import restored, unless_held, with_remarks
from uso.web.store import history
from uso.web.store.ledger import Remembered

logger = logging.getLogger(__name__)

GONE = Text("That picture is no longer on the server.")


class Shown(NamedTuple):
    """The components that show one picture."""

    picture: Any = KEEP
    message: Any = KEEP
    """What a click has done, or why not."""
    grid: Any = KEEP
    """All pictures of its job, if there are several."""
    facts: Any = KEEP
    actions: Any = KEEP
    """The row of buttons under the picture."""
    download: Any = KEEP
    before: Any = KEEP
    """The button that compares it with its content image."""
    settings: Any = KEEP
    settings_frame: Any = KEEP
    picture_id: Any = KEEP
    """The picture that is shown."""


class PictureEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.config = calls.config
        self.queue = calls.queue
        self.ledger = calls.ledger

    def arrive(self, request: gr.Request) -> str:
        """When the page loads: who is logged in."""
        return html.account(asker_of(request).name, self.queue.settings.accounts is not None)

    async def select(self, chosen: gr.EventData, request: gr.Request) -> Shown:
        """A picture that was clicked, in full."""
        picture_id = chosen._data.get("picture") if isinstance(chosen._data, dict) else None
        found = await asyncio.to_thread(history.own, self.ledger, asker_of(request).owner, picture_id)
        return Shown(message=html.refusal(GONE)) if found is None else await asyncio.to_thread(self.picture, found)

    async def show(self, chosen: gr.EventData, tab: Any, request: gr.Request) -> Shown:
        """A picture that has just been made for a tab. It is shown even if the ledger cannot be read, as in a server
        that is shutting down."""
        try:
            return (await self.select(chosen, request))._replace(message=KEEP)
        except sqlite3.Error:
            logger.warning("The ledger could not be read for a new picture.", exc_info=True)
        owner = asker_of(request).owner
        for job in self.queue.of_tab(owner, tab) if history.is_id(tab) else ():
            for picture in job.status.pictures:
                if picture.id == chosen._data.get("picture"):
                    found = Remembered(picture, job.id, owner, time.time(), b"")
                    return await asyncio.to_thread(self.picture, found)
        return Shown()

    async def repeat(self, picture_id: Any, request: gr.Request, *held: Any) -> tuple[Any, ...]:
        """All inputs of the picture that is shown, its images and its seed too: (message, Advanced, inputs).

        Args:
            held: what the inputs hold now.
        """
        said = Text("The settings of this picture are filled in, with its seed.")
        return await self._reused(picture_id, request, said, held)

    async def remix(self, picture_id: Any, request: gr.Request, *held: Any) -> tuple[Any, ...]:
        """The same with a random seed."""
        said = Text("The settings of this picture are filled in, with a random seed.")
        message, advanced, *values = await self._reused(picture_id, request, said, held)
        inputs = Inputs(*values)
        return message, advanced, *(inputs if inputs == UNCHANGED else inputs._replace(seed=RANDOM_SEED))

    async def _reused(self, picture_id: Any, request: gr.Request, said: str, held: tuple[Any, ...]) -> tuple[Any, ...]:
        found = await asyncio.to_thread(history.own, self.ledger, asker_of(request).owner, picture_id)
        saved = await asyncio.to_thread(history.record_of, found) if found else None
        if saved is None:
            return html.refusal(GONE), KEEP, *UNCHANGED
        filled = await asyncio.to_thread(restored, self.config, saved, saved, self.queue.settings.output)
        message = html.idle(with_remarks(said, filled))
        inputs = await asyncio.to_thread(unless_held, filled.inputs, Inputs(*held))
        return message, gr.update(open=True), *inputs

    def reuse_seed(self, picture_id: Any, request: gr.Request) -> tuple[Any, Any, Any]:
        """(message, the seed, Advanced)."""
        found = history.own(self.ledger, asker_of(request).owner, picture_id)
        if found is None:
            return html.refusal(GONE), KEEP, KEEP
        seed = found.picture.seed
        return html.idle(Text("The seed {} is filled in; Random is off.", seed)), seed, gr.update(open=True)

    def as_content(self, picture_id: Any, request: gr.Request) -> tuple[Any, Any]:
        """(message, the content image)."""
        return self._as_input(picture_id, request, Text("content image"))

    def as_style(self, picture_id: Any, style: Any, extra_style: Any, request: gr.Request) -> tuple[Any, Any, Any]:
        """Into the first free field, or else into the first: (message, both style images)."""
        second = style is not None and extra_style is None
        message, path = self._as_input(
            picture_id, request, Text("extra style image") if second else Text("style image")
        )
        return (message, KEEP, path) if second else (message, path, KEEP)

    def _as_input(self, picture_id: Any, request: gr.Request, field: str) -> tuple[str, Any]:
        found = history.own(self.ledger, asker_of(request).owner, picture_id)
        try:
            if found is not None:
                return html.idle(Text("This picture is now the {}.", field)), handed_out(found.picture)
        except OSError:
            pass
        return html.refusal(GONE), KEEP

    def picture(self, remembered: Remembered) -> Shown:
        """A picture with everything that is known about it."""
        picture, saved = remembered.picture, history.record_of(remembered)
        shown = Shown(
            message="",
            grid=self._grid(remembered),
            facts=facts(remembered),
            actions=gr.update(visible=True),
            before=gr.update(interactive=content_of(saved, self.queue.settings.output) is not None),
            settings=settings(saved.record) if saved else "",
            settings_frame=gr.update(visible=saved is not None),
            picture_id=picture.id,
        )
        try:
            path = handed_out(picture)
        except OSError as error:
            sentence = Text(
                "The picture is saved as {} on the server, but cannot be shown ({}).", picture.path.name, error.strerror
            )
            return shown._replace(message=html.refusal(sentence))
        return shown._replace(picture=path, download=gr.update(value=path))

    def _grid(self, remembered: Remembered) -> str:
        try:
            return html.grid(history.siblings(self.ledger, remembered), remembered.picture.id)
        except sqlite3.Error:
            logger.warning("The pictures of job %s could not be listed.", remembered.job[:NAME_LETTERS], exc_info=True)
            return ""
