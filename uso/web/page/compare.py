"""Two pictures compared, and the content image with its picture. The browser does the rest (`static/compare.js`)."""

import asyncio
import io
import json
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from uso import output
from uso.images.pixels import open_image
from uso.language import Text, tr
from uso.request.request import ReferenceImage
from uso.web.access.identity import asker_of
from uso.web.api.calls import Calls
from uso.web.api.handlers import plain_errors
from uso.web.page import html
from uso.web.page.labels import static_html
from uso.web.page.restore import stored
from uso.web.store import history
from uso.web.store.ledger import Remembered

GONE = Text("The content image of this picture is no longer on the server.")

NEAR = 0.1
"""By which share two shapes may differ and still lie over each other: sizes are multiples of 16 pixels."""


class Compare(NamedTuple):
    """The components."""

    two: gr.Button
    """Compare the picture that is shown with another."""
    before: gr.Button
    """Compare it with its content image."""


def compare_view() -> None:
    """The place for both pictures, over that of the one. Hidden until it is needed."""
    gr.HTML(static_html(_view), elem_id="compare")


def _view() -> str:
    choose = tr("Choose the second picture: another one of this request, or one of yours below.")
    return (
        f'<div class="uso-compare" data-part="view" role="group" aria-label="{tr("Two pictures compared")}" hidden>'
        '<div class="uso-compare-frame">'
        '<figure><img data-part="first" alt=""><figcaption></figcaption></figure>'
        '<figure><img data-part="second" alt="" hidden><figcaption></figcaption></figure>'
        '<input type="range" data-part="slider" min="0" max="100" value="50" '
        f'aria-label="{tr("How much of the left picture is shown")}"><p data-part="choose">{choose}</p></div>'
        '<div class="uso-compare-tools">'
        f'<button type="button" data-part="side" aria-pressed="false">{tr("Side by side")}</button>'
        f'<button type="button" data-part="close">{tr("Close")}</button></div></div>'
    )


def compare_buttons() -> Compare:
    return Compare(
        gr.Button(Text("Compare"), min_width=100, elem_id="compare-two"),
        gr.Button(Text("Before and after"), min_width=100, interactive=False, elem_id="before-after"),
    )


def content_of(saved: output.SavedPicture | None, folder: Path) -> ReferenceImage | None:
    """The content image of a picture; None if it has none or several, and if it is gone."""
    entries = (saved.record["request"].get("content_images") or []) if saved else []
    return stored(folder, entries[0]["sha256"]) if len(entries) == 1 else None


def lies_over(size: tuple[int, int], remembered: Remembered, saved: output.SavedPicture) -> bool:
    """Whether a content image of a size can lie over its picture: with the layout kept, and in about the same shape.

    Layouts are kept without a prompt, or in the shape of the content image.
    """
    request, picture = saved.record["request"], remembered.picture
    moved = request.get("prompt") and not request.get("keep_input_size")
    return not moved and abs(size[0] / size[1] * picture.height / picture.width - 1) <= NEAR


class CompareEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def before(self, picture_id: Any, request: gr.Request) -> tuple[str, str]:
        """The content image of a picture: (message, JSON)."""
        found = await asyncio.to_thread(history.own, self.calls.ledger, asker_of(request).owner, picture_id)
        url, over = await self.calls.read(request, self._content, found) if found else ("", False)
        if not url:
            return html.refusal(GONE), ""
        # The id makes it new each time.
        return "", json.dumps({"id": uuid.uuid4().hex, "picture": picture_id, "url": url, "over": over})

    def _content(self, remembered: Remembered) -> tuple[str, bool]:
        """(a data URL, in about the size of the picture; whether it can lie over it). Empty if there is none. Decodes
        the image."""
        picture, saved = remembered.picture, history.record_of(remembered)
        content = content_of(saved, self.calls.queue.settings.output)
        if content is None or saved is None:
            return "", False
        image = open_image(content.data, content.name)
        over = lies_over(image.size, remembered, saved)
        if over:
            image = image.resize((picture.width, picture.height), Image.Resampling.LANCZOS)
        else:
            side = max(picture.width, picture.height)
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=90)
        return html.webp(buffer.getvalue()), over


def wire_compare(events: CompareEvents, compare: Compare, picture_id: gr.HTML, message: gr.HTML) -> None:
    content = gr.Textbox(label="content", visible="hidden", elem_id="content-shown")  # as JSON, for the script
    compare.two.click(None, [picture_id], None, js="id => window.uso.compare(id)")
    compare.before.click(
        plain_errors(events.before),
        [picture_id],
        [message, content],
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    ).then(None, [content], None, js="found => window.uso.beforeAfter(found)")
