"""What happens around the fields: what will be made of what is there, and references as the model sees them."""

import asyncio
from typing import Any

import gradio as gr

from uso.errors import RequestError
from uso.language import Text
from uso.request.checks import MAX_PROMPT_CHARACTERS, check_whole, is_number
from uso.request.readable import foreign_note
from uso.request.request import RANDOM_SEED
from uso.web.access.identity import asker_of
from uso.web.api.calls import Calls, Inputs
from uso.web.api.files import handed_out, uploaded
from uso.web.page import html
from uso.web.page.events.pictures import GONE
from uso.web.page.form import pieces
from uso.web.page.form.views import content_view, style_view
from uso.web.page.inputs import KEEP, REFERENCES, planned
from uso.web.store import history


class FormEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.config = calls.config

    async def describe(self, *values: Any) -> tuple[str, str]:
        """(what will be made, how many tokens the prompt has), from all inputs."""
        inputs, tokens = Inputs(*values), None
        text = inputs.prompt if isinstance(inputs.prompt, str) else ""
        plan = pieces.plan(planned(inputs).plan, inputs.seed if is_pinned(inputs.seed) else None)
        if text and len(text) <= MAX_PROMPT_CHARACTERS:
            tokens = await asyncio.to_thread(self.calls.queue.count_tokens, text)
        note = foreign_note(text, self.config.title)
        if note and self.calls.queue.translator.active:
            note = Text("The prompt will be translated into English.")
        return plan, pieces.tokens(tokens, self.config.max_sequence_length) + html.note(note or "")

    def viewer(self, field: str) -> Any:
        """The event that shows the reference of a field as the model sees it, beside the file's own picture."""

        async def look(value: Any, content_size: Any, request: gr.Request) -> str:
            try:
                return await self.calls.read(request, self._look, field, value, content_size)
            except RequestError as error:
                return pieces.look(field, REFERENCES[field], html.refusal(str(error)))

        return look

    def _look(self, field: str, value: Any, content_size: Any) -> str:
        reference = uploaded(value, self.calls.max_pixels)
        if reference is None:
            raise RequestError(Text("There is no image here any more. Choose its file again."))
        limits = self.config.limits
        if field == "content":
            side = check_whole("content_size", content_size, limits.min_content_size, limits.max_content_size)
            view = content_view(reference, side)
        else:
            view = style_view(self.config, reference)
        width, height = reference.image.size
        given = Text("Your image: {}, {} × {} pixels.", reference.name, width, height)
        return pieces.look(field, REFERENCES[field], pieces.views(given, view))

    def place(self, chosen: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """A picture of this person's that was dragged to an image field: (status, content image, both style images)."""
        data = chosen._data if isinstance(chosen._data, dict) else {}
        field = str(data.get("field"))
        found = history.own(self.calls.ledger, asker_of(request).owner, data.get("picture"))
        try:
            path = handed_out(found.picture) if found is not None and field in _CALLED else None
        except OSError:
            path = None
        if path is None:
            return html.refusal(GONE), *[KEEP] * len(_CALLED)
        said = html.idle(Text("This picture is now the {}.", _CALLED[field]))
        return said, *(path if name == field else KEEP for name in _CALLED)


_CALLED = {"content": Text("content image"), "style": Text("style image"), "extra-style": Text("extra style image")}
"""What sentences call the image fields, by their ids."""


def is_pinned(seed: Any) -> bool:
    """Whether the field holds a seed, and not -1 for a random one."""
    return is_number(seed) and seed != RANDOM_SEED
