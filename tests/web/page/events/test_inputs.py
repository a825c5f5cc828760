"""The input fields' events: checks of images, and what is shown in place of files that browsers cannot show."""

import asyncio
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from tests.support.visitor import Events, visitor
from uso.images.pixels import open_image
from uso.web.api.calls import Inputs, request_from
from uso.web.page.inputs import KEEP
from uso.web.page.scripts import RENDERED


def test_a_look_at_the_images_tells_size_and_trouble(events: Events, upload: Any, uploads: Path) -> None:
    """Catches a size that differs from the one which is then used, and junk that is noticed only at the end."""

    def look(*images: Any, keep: bool) -> tuple[Any, ...]:
        content, style, extra_style = images
        return asyncio.run(events.inputs.check_images(content, style, extra_style, keep, visitor()))

    content = upload("wide.png", 640, 427)
    note, width, height, *others = look(content, None, None, keep=True)
    request = request_from(events.config, Inputs(content_image=content, keep_input_size=True))
    assert f"The picture will be {request.width} × {request.height}; the content image is 640 × 427." in note
    assert width["interactive"] is False and height["interactive"] is False
    assert others == [KEEP] * 4
    assert look(content, None, None, keep=False)[0] == ""
    assert "needs a content image" in look(None, None, None, keep=True)[0]
    whole = (uploads / "wide.png").read_bytes()
    (uploads / "wide.png").write_bytes(whole[: len(whole) // 2])
    assert "the content image is 640 × 427" in look(content, content, content, keep=True)[0]  # nothing is decoded
    (uploads / "junk.png").write_text("no picture")
    junk = {"path": str(uploads / "junk.png"), "orig_name": "my <file>.png"}
    for place, field in enumerate(("content", "style", "extra-style")):
        *_, message, one, two, three = look(*(junk if place == at else content for at in range(3)), keep=True)
        assert "my &lt;file&gt;.png is not a picture this program can read (try PNG, JPEG or WebP)." in message
        assert 'role="alert"' in message and f'data-field="{field}"' in message
        assert [one, two, three] == [None if place == at else KEEP for at in range(3)]


def test_keep_input_size_keeps_to_the_limits_of_the_model(events: Events, upload: Any) -> None:
    """Catches 304 x 208 from a model whose limit is 256, and a note that says another size than is made."""
    content = upload("wide.png", 300, 200)
    note = asyncio.run(events.inputs.check_images(content, None, None, True, visitor()))[0]
    assert "The picture will be 256 × 176; the content image is 300 × 200." in note
    request = request_from(events.config, Inputs(content_image=content, keep_input_size=True))
    assert (request.width, request.height) == (256, 176)
    note = asyncio.run(events.inputs.check_images(upload("long.png", 500, 100), None, None, True, visitor()))[0]
    assert "Keep input size cannot keep 500 x 100: at most 256:64 (4 to 1) is supported." in note


@pytest.mark.parametrize(("name", "form"), [("a scan.tif", "TIFF"), ("x.png", "TIFF"), ("map.jp2", "JPEG2000")])
def test_what_browsers_cannot_show_gets_a_rendition(events: Events, uploads: Path, name: str, form: str) -> None:
    """Catches a broken picture in a field whose file is fine, and a rendition that replaces the file."""
    Image.new("RGB", (800, 400), (200, 40, 90)).save(uploads / name, form)
    value = {"path": str(uploads / name), "url": f"http://here/file={name}", "orig_name": name}
    found = json.loads(asyncio.run(events.inputs.renditions(None, value, None, visitor())))["urls"]
    assert list(found) == [value["path"]]
    shown = open_image(b64decode(found[value["path"]].removeprefix("data:image/webp;base64,")))
    assert shown.size == (384, 192)
    pixel: Any = shown.getpixel((100, 100))
    assert max(abs(one - other) for one, other in zip(pixel, (200, 40, 90), strict=True)) <= 4
    assert (
        asyncio.run(events.inputs.renditions(value | {"mime_type": RENDERED}, None, None, visitor())) == gr.skip()
    )  # once


def test_nothing_else_gets_a_rendition(events: Events, upload: Any, uploads: Path, tmp_path: Path) -> None:
    """Catches files decoded for nothing, an error for what is refused elsewhere, and a file of the server shown."""
    (uploads / "junk.tif").write_bytes(b"II*\0 no picture")
    Image.new("RGB", (16, 16)).save(tmp_path / "secret.tif")
    junk, secret = {"path": str(uploads / "junk.tif")}, {"path": str(tmp_path / "secret.tif")}
    assert asyncio.run(events.inputs.renditions(upload("wide.png", 64, 64), junk, secret, visitor())) == gr.skip()
