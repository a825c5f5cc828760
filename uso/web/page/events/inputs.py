"""The input fields: checks of images, examples, settings of a picture that somebody brings."""

import asyncio
import json
import os
import uuid
from typing import Any

import gradio as gr

from uso.errors import OutputError, RequestError
from uso.images.pixels import keep_input_size, upright_size
from uso.language import Text, joined, text_of
from uso.request.references import ReferenceImage
from uso.request.request import refuse_style
from uso.web.access.identity import asker_of
from uso.web.api.calls import IMAGE_FIELDS, Calls, Inputs
from uso.web.api.files import upload_path, uploaded
from uso.web.page import html
from uso.web.page.inputs import KEEP, UNCHANGED, element_of
from uso.web.page.renditions import renditions
from uso.web.page.restore import brought, entitled, restored, unless_held, with_remarks

REFERENCE_NAMES = (Text("Content Reference"), Text("Style Reference"), Text("Extra Style Reference"))


class InputEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.config = calls.config
        self.queue = calls.queue
        self.ledger = calls.ledger

    async def check_images(
        self, content: Any, style: Any, extra_style: Any, keep: Any, request: gr.Request
    ) -> tuple[Any, ...]:
        """What is wrong with an image, or the size of the picture with Keep input size: (note, width, height, message,
        images). An image that cannot be used leaves its field, so that nothing counts it; the message says why.

        Reads image headers only, because this costs people nothing and decoding is expensive. A file that is cut off
        is noticed at Generate.
        """
        return await self.calls.read(request, self._check_images, content, style, extra_style, keep)

    def _check_images(self, content: Any, style: Any, extra_style: Any, keep: Any) -> tuple[Any, ...]:
        most, references = self.calls.max_pixels, {}
        for name, value in zip(IMAGE_FIELDS, (content, style, extra_style), strict=True):
            try:
                references[name] = uploaded(value, most)
                if name == "content_image":
                    refuse_style(references[name])
                else:
                    self.calls.check_style(references[name])
            except RequestError as error:
                message = html.refusal(text_of(error), element_of(RequestError(field=name)))
                return KEEP, KEEP, KEEP, message, *(None if one == name else KEEP for one in IMAGE_FIELDS)
        return *self._size_note(references["content_image"], keep), KEEP, *[KEEP] * len(IMAGE_FIELDS)

    def _size_note(self, reference: ReferenceImage | None, keep: Any) -> tuple[str, Any, Any]:
        """(note, width, height)."""
        field = gr.update(interactive=not keep)
        try:
            size = upright_size(reference.data, reference.name, self.calls.max_pixels) if reference else None
            if not keep:
                return "", field, field
            if size is None:
                return html.note(Text("Keep input size needs a content image.")), field, field
            width, height = keep_input_size(*size, self.config.limits.min_size, self.config.limits.max_size)
        except RequestError as error:
            return html.note(text_of(error), bad=True), field, field
        note = Text("The picture will be {} × {}; the content image is {} × {}.", width, height, size[0], size[1])
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

    async def recall(self, content: Any, style: Any, extra_style: Any, keep: Any) -> tuple[Any, ...]:
        """The images of a page that was loaded again, as far as their uploads are still here: (message, images, keep).

        The browser names them, as it does for Generate: only uploads are looked at.
        """
        return await asyncio.to_thread(self._recall, (content, style, extra_style), keep)

    def _recall(self, values: tuple[Any, ...], keep: Any) -> tuple[Any, ...]:
        found, gone = [], []
        for label, value in zip(REFERENCE_NAMES, values, strict=True):
            path = None if value is None else upload_path(value)
            there = path is not None and os.path.isfile(path)  # False, not an error, for a name that cannot be one
            found.append(str(path) if there else KEEP if value is None else None)
            if value is not None and not there:
                gone.append(label)
        keep = KEEP if keep is not True else found[0] not in (KEEP, None)
        if not gone:
            return KEEP, *found, keep
        sentence = Text("No longer on the server: {}. Choose the files again.", joined(*gone, between=", "))
        return html.refusal(sentence), *found, keep

    async def restore(self, file: Any, request: gr.Request, *held: Any) -> tuple[Any, ...]:
        """All inputs from a PNG that somebody drops: (note, inputs).

        Args:
            held: what the inputs hold now.
        """
        if file is None:  # removed again
            return "", *UNCHANGED
        try:
            name, saved = await self.calls.read(request, brought, file, self.calls.max_pixels)
        except (RequestError, OutputError) as error:
            return html.note(text_of(error), bad=True), *UNCHANGED
        source = await asyncio.to_thread(entitled, self.ledger, asker_of(request), saved)
        found = await asyncio.to_thread(restored, self.config, saved, source, self.queue.settings.output)
        inputs = await asyncio.to_thread(unless_held, found.inputs, Inputs(*held))
        return html.note(with_remarks(Text("The settings of {} are filled in.", name), found)), *inputs
