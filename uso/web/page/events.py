"""What happens when somebody does something on the page. The endpoints for programs are in `api/endpoints.py`.

Every job goes through `api/calls.py`. Ids of jobs and pictures come from the browser, so each is checked for its owner
(`store/history.py`): whoever sends another person's id gets nothing.
"""

import asyncio
import json
import logging
import sqlite3
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple

import gradio as gr

from uso.errors import OutputError, RequestError, USOError
from uso.images import keep_input_size, upright_size
from uso.web.access.identity import Asker, asker_of
from uso.web.api.calls import Calls, Inputs, handed_out, uploaded
from uso.web.jobs.job import NAME_LETTERS, Job, JobStatus, Picture
from uso.web.page import html
from uso.web.page.inputs import KEEP, UNCHANGED, element_of, example_values, sides_class
from uso.web.page.renditions import renditions
from uso.web.page.restore import Restored, brought, entitled, restored
from uso.web.store import history, prune
from uso.web.store.ledger import Remembered

logger = logging.getLogger(__name__)

FORGET = "none"
"""In place of a job's id in the tab's memory. It is a value, so that the page notices the change."""

GONE = "That picture is no longer on the server."

TICK_SECONDS, LATER_TICK_SECONDS = 1.0, 5.0
EAGER_SECONDS = 10.0
"""How often a page asks whether the model is ready, in the first `EAGER_SECONDS` and later. All tabs of an office may
come from one address, which has a rate limit (`access/limits.py`)."""


class Shown(NamedTuple):
    """The components that a job or a picture changes."""

    picture: Any = KEEP
    preview: Any = KEEP
    status: Any = KEEP
    facts: Any = KEEP
    actions: Any = KEEP
    """The row of buttons under the picture."""
    download: Any = KEEP
    settings: Any = KEEP
    settings_frame: Any = KEEP
    history: Any = KEEP
    generate: Any = KEEP
    stop: Any = KEEP
    job_id: Any = KEEP
    """The job that this page follows; empty without one."""
    memory: Any = KEEP
    """The job that the tab remembers over a reload."""
    picture_id: Any = KEEP
    """The picture that is shown."""


class Events:
    """The page's events, bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.config = calls.config
        self.queue = calls.queue
        self.ledger = calls.ledger

    # Jobs.

    async def run(self, job_id: Any, request: gr.Request, *values: Any) -> AsyncGenerator[Shown, None]:
        """The Generate button: from a request to its picture."""
        job = self._active(job_id, asker_of(request))  # Enter in the prompt, or a broken stream: go on with that job
        if job is None:
            try:
                job = await self.calls.submit(Inputs(*values), request)
            except USOError as error:
                yield Shown(status=html.refusal(str(error), element_of(error)))
                return
        async with aclosing(self._follow(job, request)) as news:
            async for shown in news:
                yield shown

    async def come_back(self, job_id: Any, request: gr.Request) -> AsyncGenerator[Shown, None]:
        """After a reload of the page: back to the job of this tab, if it had one."""
        found = await asyncio.to_thread(history.own_job, self.queue, self.ledger, asker_of(request).owner, job_id)
        if found is None:
            yield Shown(memory=FORGET)
            return
        job, status = found
        if job is None or status.over:
            shown = await self._ended(job_id, status, request)
            yield shown._replace(memory=job_id) if status.elsewhere else shown
            return
        async with aclosing(self._follow(job, request)) as news:
            async for shown in news:
                yield shown

    def _active(self, job_id: Any, asker: Asker) -> Job | None:
        """This asker's job of that id, if it is not over."""
        job = self.queue.find(job_id) if history.is_id(job_id) else None
        return job if job is not None and job.asker.owner == asker.owner and not job.status.over else None

    async def _follow(self, job: Job, request: gr.Request) -> AsyncGenerator[Shown, None]:
        """From a queued job to its end. Only what has changed is sent."""
        yield Shown(
            generate=gr.update(interactive=False),
            stop=gr.update(interactive=True, value="Stop"),
            job_id=job.id,
            memory=job.id,
        )
        sent, preview, ahead = "", None, -1
        async with aclosing(self.calls.follow(job)) as news:
            async for status, server in news:
                if status.over:
                    yield await self._ended(job.id, status, request)
                    return
                state, frame = html.job_state(status, server, status.ahead != ahead), KEEP
                ahead = status.ahead
                if status.preview is not None and status.preview is not preview:
                    preview, size = status.preview, (job.request.width, job.request.height)
                    frame = html.preview(status, size)
                yield Shown(status=KEEP if state == sent else state, preview=frame)
                sent = state

    async def _ended(self, job_id: str, status: JobStatus, request: gr.Request) -> Shown:
        """The result of a job. The tab goes on remembering a job that has a picture."""
        last = status.pictures[-1] if status.pictures else None
        shown = Shown() if last is None else await asyncio.to_thread(self._made, job_id, last, asker_of(request))
        return shown._replace(
            preview="",
            status=html.job_state(status, self.queue.status) if shown.status is KEEP else shown.status,
            generate=gr.update(interactive=True),
            stop=gr.update(interactive=False, value="Stop"),
            job_id="",
            memory=FORGET if last is None else job_id,
        )

    def _made(self, job_id: str, picture: Picture, asker: Asker) -> Shown:
        """A new picture, and the history with it. It is shown even if the ledger cannot be read, as in a server that is
        shutting down."""
        try:
            found = history.own(self.ledger, asker.owner, picture.id)
            shown = Shown(history=self._history(asker, picture.id))
        except sqlite3.Error:
            logger.warning("The ledger could not be read after job %s.", job_id[:NAME_LETTERS], exc_info=True)
            found, shown = None, Shown()
        remembered = found or Remembered(picture, job_id, asker.owner, time.time(), b"")
        return self._picture(remembered)._replace(history=shown.history)

    def unlock(self) -> Shown:
        """After an unexpected error: the page can be used again."""
        return Shown(generate=gr.update(interactive=True), stop=gr.update(interactive=False, value="Stop"), preview="")

    def stop(self, job_id: Any, request: gr.Request) -> Any:
        """The Stop button. The stream of the job reports when it has stopped."""
        job = self._active(job_id, asker_of(request))
        if job is not None and self.queue.cancel(job.id):
            return gr.update(interactive=False, value="Stopping ...")
        return KEEP

    # Inputs.

    async def check_images(
        self, content: Any, style: Any, extra_style: Any, keep: Any, request: gr.Request
    ) -> tuple[str, Any, Any]:
        """What is wrong with an image, or the size of the picture with Keep input size: (note, width, height).

        Reads image headers only, because this costs people nothing and decoding is expensive. A file that is cut off
        is noticed at Generate.
        """
        return await self.calls.read(request, self._check_images, content, style, extra_style, keep)

    def _check_images(self, content: Any, style: Any, extra_style: Any, keep: Any) -> tuple[str, Any, Any]:
        field = gr.update(interactive=not keep)
        try:
            most = self.calls.max_pixels
            reference = uploaded(content, most)
            for value in (style, extra_style):
                uploaded(value, most)
            if not keep:
                return "", field, field
            if reference is None:
                return html.note("Keep input size needs a content image."), field, field
            size = upright_size(reference.data, reference.name, most)
            width, height = keep_input_size(*size, *self.config.limits.kept_range)
        except RequestError as error:
            return html.note(str(error), bad=True), field, field
        note = f"The picture will be {width} × {height}; the content image is {size[0]} × {size[1]}."
        if self.config.limits.trained_size:  # its sliders are for sizes that it draws badly
            return html.note(note), field, field
        kept = (gr.update(interactive=False, value=side) for side in (width, height))
        return html.note(note), *kept

    async def renditions(self, content: Any, style: Any, extra_style: Any, request: gr.Request) -> Any:
        """What image fields show in place of files that browsers cannot show, such as TIFF: JSON, by path a data URL.

        The fields keep the files themselves. What is refused is left to `check_images`. Nothing changes where nothing
        is missing: the answer changes fields, and each change of a field asks again.
        """
        images = (content, style, extra_style)
        found = await self.calls.read(request, renditions, images, self.calls.max_pixels)
        return json.dumps({"id": uuid.uuid4().hex, "urls": found}) if found else KEEP  # the id: as new each time

    def sides(self, width: Any, height: Any) -> Any:
        """The row of width and height, which a model with one good size shows only with another."""
        return gr.update(elem_classes=sides_class(self.config, width, height))

    def example(self, index: int) -> Inputs:
        """All inputs of an example."""
        return example_values(self.config, index)

    async def restore(self, file: Any, request: gr.Request) -> tuple[Any, ...]:
        """All inputs from a PNG that somebody drops: (note, inputs)."""
        if file is None:  # removed again
            return "", *UNCHANGED
        try:
            name, saved = await self.calls.read(request, brought, file, self.calls.max_pixels)
        except (RequestError, OutputError) as error:
            return html.note(str(error), bad=True), *UNCHANGED
        source = await asyncio.to_thread(entitled, self.ledger, asker_of(request), saved)
        found = await asyncio.to_thread(restored, self.config, saved, source, self.queue.settings.output)
        return html.note(_with_remarks(f"The settings of {name} are filled in.", found)), *found.inputs

    # Pictures.

    async def arrive(self, request: gr.Request) -> tuple[str, str]:
        """When the page loads: (who is logged in, the history)."""
        asker = asker_of(request)
        account = html.account(asker.name, self.queue.settings.accounts is not None)
        return account, await asyncio.to_thread(self._history, asker)

    async def select(self, chosen: gr.EventData, job_id: Any, request: gr.Request) -> Shown:
        """A picture of the history, in full."""
        picture_id = chosen._data.get("picture") if isinstance(chosen._data, dict) else None
        found = await asyncio.to_thread(history.own, self.ledger, asker_of(request).owner, picture_id)
        if found is None:
            return Shown(status=html.refusal(GONE))
        shown = await asyncio.to_thread(self._picture, found)
        status = html.idle("An earlier picture.") if shown.status is KEEP and not job_id else shown.status
        return shown._replace(preview="", status=status)

    async def reuse_all(self, picture_id: Any, request: gr.Request) -> tuple[Any, ...]:
        """All inputs of the picture that is shown, its images too: (status, Advanced, inputs)."""
        found = await asyncio.to_thread(history.own, self.ledger, asker_of(request).owner, picture_id)
        saved = await asyncio.to_thread(history.record_of, found) if found else None
        if saved is None:
            return html.refusal(GONE), KEEP, *UNCHANGED
        filled = await asyncio.to_thread(restored, self.config, saved, saved, self.queue.settings.output)
        status = html.idle(_with_remarks("The settings of this picture are filled in.", filled))
        return status, gr.update(open=True), *filled.inputs

    def reuse_seed(self, picture_id: Any, request: gr.Request) -> tuple[Any, Any, Any]:
        """(status, the seed, Advanced)."""
        found = history.own(self.ledger, asker_of(request).owner, picture_id)
        if found is None:
            return html.refusal(GONE), KEEP, KEEP
        seed = found.picture.seed
        return html.idle(f"The seed {seed} is filled in."), seed, gr.update(open=True)

    def as_content(self, picture_id: Any, request: gr.Request) -> tuple[Any, Any]:
        """(status, the content image)."""
        return self._as_input(picture_id, request, "content image")

    def as_style(self, picture_id: Any, style: Any, extra_style: Any, request: gr.Request) -> tuple[Any, Any, Any]:
        """Into the first free field, or else into the first: (status, both style images)."""
        second = style is not None and extra_style is None
        status, path = self._as_input(picture_id, request, "extra style image" if second else "style image")
        return (status, KEEP, path) if second else (status, path, KEEP)

    def _as_input(self, picture_id: Any, request: gr.Request, field: str) -> tuple[str, Any]:
        found = history.own(self.ledger, asker_of(request).owner, picture_id)
        try:
            if found is not None:
                return html.idle(f"This picture is now the {field}."), handed_out(found.picture)
        except OSError:
            pass
        return html.refusal(GONE), KEEP

    # What the page shows.

    def tick(self, job_id: Any) -> tuple[str, Any, Any]:
        """Repeated until the model is ready: (its state, the Generate button, the timer).

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
        return html.history(history.recent(self.ledger, asker.owner), rule, current, asker.owner is not None)

    def _picture(self, remembered: Remembered) -> Shown:
        """A picture with everything that is known about it."""
        picture, saved = remembered.picture, history.record_of(remembered)
        shown = Shown(
            facts=html.facts(remembered),
            actions=gr.update(visible=True),
            settings=html.settings(saved.record) if saved else "",
            settings_frame=gr.update(visible=saved is not None),
            picture_id=picture.id,
        )
        try:
            path = handed_out(picture)
        except OSError as error:
            sentence = f"The picture is saved as {picture.path.name} on the server, but cannot be shown"
            return shown._replace(status=html.refusal(f"{sentence} ({error.strerror})."))
        return shown._replace(picture=path, download=gr.update(value=path))


def _with_remarks(sentence: str, found: Restored) -> str:
    return " ".join([sentence, *found.remarks])
