"""What happens when somebody does something on the page. What programs may call is in `programs.py`.

Every verb goes through the desk (`desk.py`), which knows what may be asked for and by whom; pictures that were made
before are found by `history.py`, and brought back into the fields by `restore.py`.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from uso.errors import OutputError, RequestError, USOError
from uso.images import keep_input_size, upright_size
from uso.request import RANDOM_SEED
from uso.web.access.identity import Asker, asker_of
from uso.web.api.calls import Calls, Inputs, handed_out, uploaded
from uso.web.jobs.job import NAME_LETTERS, Job, JobStatus, Picture
from uso.web.page import history_html, html
from uso.web.page.restore import KEEP, Restored, brought, entitled, restored
from uso.web.page.texts import EXAMPLES
from uso.web.store import history, prune
from uso.web.store.ledger import Remembered

logger = logging.getLogger(__name__)

FORGET = "none"
"""In place of a job's id in the tab's memory: a value, so that the page notices a change from nothing."""


TICK_SECONDS, LATER_TICK_SECONDS = 1.0, 5.0
EAGER_SECONDS = 10.0
"""How often a page looks how far the model is, at first and later: the tabs of a whole office come from one address,
which may do 20 things a second (`crowd.py`)."""


class Shown(NamedTuple):
    """What a job changes on the page, and what a picture does that is looked at again."""

    picture: Any = KEEP
    preview: Any = KEEP
    status: Any = KEEP
    facts: Any = KEEP
    actions: Any = KEEP
    """The row of what can be done with the picture."""
    download: Any = KEEP
    settings: Any = KEEP
    settings_frame: Any = KEEP
    history: Any = KEEP
    generate: Any = KEEP
    stop: Any = KEEP
    job_id: Any = KEEP
    """The job that this page follows."""
    memory: Any = KEEP
    """The job that the tab remembers over a reload."""
    picture_id: Any = KEEP
    """The picture that is shown."""


class Events:
    """The page's verbs, bound to one desk."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.config = calls.config
        self.queue = calls.queue
        self.ledger = calls.ledger

    # Jobs.

    async def run(self, job_id: str | None, request: gr.Request, *values: Any) -> AsyncGenerator[Shown, None]:
        """The Generate button: from the first look at a request to its picture."""
        if job_id is not None and (running := self.queue.find(job_id)) is not None and not running.status.over:
            # Enter in the prompt, or a stream that broke: the page goes on with that one.
            async with aclosing(self._follow(running, request)) as news:
                async for shown in news:
                    yield shown
            return
        try:
            job = await self.calls.submit(Inputs(*values), request)
        except USOError as error:
            yield Shown(status=html.refusal(str(error)))
            return
        async with aclosing(self._follow(job, request)) as news:
            async for shown in news:
                yield shown

    async def come_back(self, job_id: Any, request: gr.Request) -> AsyncGenerator[Shown, None]:
        """After a load of the page: to the job that this tab was at, if there was one."""
        found = await asyncio.to_thread(history.own_job, self.queue, self.ledger, asker_of(request).owner, job_id)
        if found is None:
            yield Shown(memory=FORGET)
            return
        job, status = found
        if job is None or status.over:
            yield await self._ended(job_id, status, request)
            return
        async with aclosing(self._follow(job, request)) as news:
            async for shown in news:
                yield shown

    async def _follow(self, job: Job, request: gr.Request) -> AsyncGenerator[Shown, None]:
        """From a job in line to its end; only what has changed is sent."""
        yield Shown(
            generate=gr.update(interactive=False),
            stop=gr.update(interactive=True, value="Stop"),
            job_id=job.id,
            memory=job.id,
        )
        words, preview, ahead = "", None, -1
        async with aclosing(self.calls.follow(job)) as news:
            async for status, queue in news:
                if status.over:
                    yield await self._ended(job.id, status, request)
                    return
                said, frame = html.job_state(status, queue, status.ahead != ahead), KEEP
                ahead = status.ahead
                if status.preview is not None and status.preview is not preview:
                    preview, size = status.preview, (job.request.width, job.request.height)
                    frame = html.preview(status, size)
                yield Shown(status=KEEP if said == words else said, preview=frame)
                words = said

    async def _ended(self, job_id: str, status: JobStatus, request: gr.Request) -> Shown:
        """What a job came to; the tab goes on remembering one that has a picture."""
        last = status.pictures[-1] if status.pictures else None
        shown = Shown() if last is None else await asyncio.to_thread(self._made, job_id, last, asker_of(request))
        return shown._replace(
            preview="",
            status=html.job_state(status, self.queue.status) if shown.status is KEEP else shown.status,
            generate=gr.update(interactive=True),
            stop=gr.update(interactive=False, value="Stop"),
            job_id=None,
            memory=FORGET if last is None else job_id,
        )

    def _made(self, job_id: str, picture: Picture, asker: Asker) -> Shown:
        """A picture that has just been made, and the history with it. A ledger that cannot be read, as that of a
        server on its way down, costs no picture."""
        try:
            found = history.own(self.ledger, asker.owner, picture.id)
            shown = Shown(history=self._history(asker, picture.id))
        except sqlite3.Error:
            logger.warning("The ledger could not be read after job %s.", job_id[:NAME_LETTERS], exc_info=True)
            found, shown = None, Shown()
        remembered = found or Remembered(picture, job_id, asker.owner, time.time(), b"")
        return self._picture(remembered)._replace(history=shown.history)

    def unlock(self) -> Shown:
        """After something unexpected: the page can be used again."""
        return Shown(generate=gr.update(interactive=True), stop=gr.update(interactive=False, value="Stop"), preview="")

    def stop(self, job_id: str | None) -> Any:
        """The Stop button; the job's own stream says when it has stopped."""
        if job_id is not None and self.queue.cancel(job_id):
            return gr.update(interactive=False, value="Stopping ...")
        return KEEP

    # Inputs.

    async def look(self, content: Any, style: Any, extra_style: Any, keep: Any) -> tuple[str, Any, Any]:
        """Say at once what is wrong with an image, and which size will be used; (note, width, height).

        Only heads are read, for a look is free and a large picture is not; that one is incomplete is told at Generate.
        """
        return await self.calls.read(self._look, content, style, extra_style, keep)

    def _look(self, content: Any, style: Any, extra_style: Any, keep: Any) -> tuple[str, Any, Any]:
        free = gr.update(interactive=not keep)
        try:
            most = self.calls.max_pixels
            reference = uploaded(content, most)
            for value in (style, extra_style):
                uploaded(value, most)
            if not keep:
                return "", free, free
            if reference is None:
                return html.note("Keep input size needs a content image."), free, free
            was = upright_size(reference.data, reference.name, most)
            width, height = keep_input_size(*was, self.config.limits.min_size, self.config.limits.max_size)
        except RequestError as error:
            return html.note(str(error), bad=True), free, free
        said = f"The picture will be {width} × {height}; the content image is {was[0]} × {was[1]}."
        return html.note(said), free, free

    def example(self, index: int) -> Inputs:
        """All inputs of an example; what it does not name goes back to the model's default."""
        example, defaults = EXAMPLES[self.config.examples][index], self.config.defaults
        return Inputs(
            prompt=example.prompt,
            content_image=_path(example.path(example.content)),
            style_image=_path(example.path(example.style)),
            extra_style_image=_path(example.path(example.extra_style)),
            width=defaults.width,
            height=defaults.height,
            keep_input_size=example.keep_input_size,
            num_inference_steps=defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale,
            content_size=defaults.content_size,
            seed=RANDOM_SEED,
        )

    async def restore(self, file: Any, request: gr.Request) -> tuple[Any, ...]:
        """All inputs from a PNG that somebody brings; (what is said, inputs)."""
        unchanged = Inputs(*[KEEP] * len(Inputs._fields))
        if file is None:  # taken out again
            return "", *unchanged
        try:
            name, saved = await self.calls.read(brought, file, self.calls.max_pixels)
        except (RequestError, OutputError) as error:
            return html.note(str(error), bad=True), *unchanged
        source = await asyncio.to_thread(entitled, self.ledger, asker_of(request), saved)
        found = await asyncio.to_thread(restored, self.config, saved, source, self.queue.settings.output)
        return html.note(_told(f"The settings of {name} are filled in.", found)), *found.inputs

    # Pictures.

    async def arrive(self, request: gr.Request) -> tuple[str, str]:
        """On a load of the page: (who is logged in, the history)."""
        asker = asker_of(request)
        account = html.account(asker.name, self.queue.settings.accounts is not None)
        return account, await asyncio.to_thread(self._history, asker)

    async def select(self, chosen: gr.EventData, job_id: str | None, request: gr.Request) -> Shown:
        """A picture of the history, in full."""
        picture_id = chosen._data.get("picture") if isinstance(chosen._data, dict) else None
        found = await asyncio.to_thread(history.own, self.ledger, asker_of(request).owner, picture_id)
        if found is None:
            return Shown(status=html.refusal("That picture is no longer on the server."))
        shown = await asyncio.to_thread(self._picture, found)
        said = html.idle("A picture from before.") if shown.status is KEEP and job_id is None else shown.status
        return shown._replace(preview="", status=said)

    async def reuse_all(self, picture_id: Any, request: gr.Request) -> tuple[Any, ...]:
        """All inputs of the picture that is shown, its images too; (what is said, Advanced, inputs)."""
        unchanged = KEEP, *Inputs(*[KEEP] * len(Inputs._fields))
        found = await asyncio.to_thread(history.own, self.ledger, asker_of(request).owner, picture_id)
        saved = await asyncio.to_thread(history.record_of, found) if found else None
        if saved is None:
            return html.refusal("That picture is no longer on the server."), *unchanged
        filled = await asyncio.to_thread(restored, self.config, saved, saved, self.queue.settings.output)
        said = _told("The settings of this picture are filled in.", filled)
        return html.idle(said), gr.update(open=True), *filled.inputs

    def reuse_seed(self, picture_id: Any, request: gr.Request) -> tuple[Any, Any, Any]:
        """(what is said, the seed field, Advanced where it is)."""
        found = history.own(self.ledger, asker_of(request).owner, picture_id)
        if found is None:
            return html.refusal("That picture is no longer on the server."), KEEP, KEEP
        seed = found.picture.seed
        return html.idle(f"The seed {seed} is filled in."), seed, gr.update(open=True)

    def as_content(self, picture_id: Any, request: gr.Request) -> tuple[Any, Any]:
        """(what is said, the content image)."""
        said, path = self._as_input(picture_id, request, "This picture is the content image now.")
        return said, path

    def as_style(self, picture_id: Any, style: Any, extra_style: Any, request: gr.Request) -> tuple[Any, Any, Any]:
        """Into the first free place, else into the first; (what is said, both style images)."""
        second = style is not None and extra_style is None
        name = "extra style image" if second else "style image"
        said, path = self._as_input(picture_id, request, f"This picture is the {name} now.")
        return (said, KEEP, path) if second else (said, path, KEEP)

    def _as_input(self, picture_id: Any, request: gr.Request, said: str) -> tuple[str, Any]:
        found = history.own(self.ledger, asker_of(request).owner, picture_id)
        try:
            if found is not None:
                return html.idle(said), handed_out(found.picture)
        except OSError:
            pass
        return html.refusal("That picture is no longer on the server."), KEEP

    # What there is to see.

    def tick(self, job_id: str | None) -> tuple[str, Any, Any]:
        """Again and again until the model is ready: (its state, the Generate button, the timer).

        It never frees the button: its answer may arrive after that of `come_back`, which locks it for a running job.
        """
        status = self.queue.status
        device = str(self.queue.provenance.get("device", ""))
        state = html.model_state(status, self.queue.loading_seconds, device)
        settled = status.state in ("ready", "failed")
        over = all(worker.status.state in ("ready", "failed") for worker in self.queue.workers)
        words = "Generate" if settled else "Generate when ready"
        useless = status.state == "failed" and not job_id
        button = gr.update(value=words, interactive=False) if useless else gr.update(value=words)
        every = TICK_SECONDS if self.queue.loading_seconds < EAGER_SECONDS else LATER_TICK_SECONDS
        return state, button, gr.update(value=every, active=not over)

    def _history(self, asker: Asker, current: str = "") -> str:
        rule = prune.notice(self.queue.settings)
        return history_html.history(history.recent(self.ledger, asker.owner), rule, current, asker.owner is not None)

    def _picture(self, remembered: Remembered) -> Shown:
        """A picture and all that is known of it."""
        picture, saved = remembered.picture, history.record_of(remembered)
        shown = Shown(
            facts=history_html.facts(remembered),
            actions=gr.update(visible=True),
            settings=history_html.settings(saved.record) if saved else "",
            settings_frame=gr.update(visible=saved is not None),
            picture_id=picture.id,
        )
        try:
            path = handed_out(picture)
        except OSError as error:
            sentence = f"The picture is saved as {picture.path.name} on the server, but cannot be shown"
            return shown._replace(status=html.refusal(f"{sentence} ({error.strerror})."))
        return shown._replace(picture=path, download=gr.update(value=path))


def _told(sentence: str, found: Restored) -> str:
    return " ".join([sentence, *found.remarks])


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
