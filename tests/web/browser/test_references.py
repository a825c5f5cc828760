"""Reference images in the browser: looked at, pasted, dropped, dragged from the page's own pictures."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browsing import FAST, PATIENCE_MS, fill_number, generate, hold_first, needs_chromium, shoot, upload
from tests.support.running import Program
from tests.web.browser.test_fields import SCREENS
from uso.web.page.texts import EXAMPLES_FOLDER, SCRIPT_WORDS

pytestmark = [pytest.mark.slow, needs_chromium]

FOX, CAT = EXAMPLES_FOLDER / "drawn" / "fox.png", EXAMPLES_FOLDER / "cat.jpg"

CARRY = """([event, place, name, type, data]) => {
  const carried = new DataTransfer()
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0))
  carried.items.add(new File([bytes], name, { type }))
  const at = { bubbles: true, cancelable: true }
  const paste = () => new ClipboardEvent('paste', { ...at, clipboardData: carried })
  const drag = kind => new DragEvent(kind, { ...at, dataTransfer: carried })
  const to = document.querySelector(place) ?? document.body
  if (event === 'paste') to.dispatchEvent(paste())
  else {
    document.body.dispatchEvent(drag('dragenter'))
    window.usoDrop = () => to.dispatchEvent(drag('drop'))
  }
}"""
"""A file in somebody's hand, over the page or on the clipboard: browsers let no test hold one."""


def carry(page: Page, event: str, place: str, path: Path) -> None:
    kind = "image/png" if path.suffix == ".png" else "image/jpeg"
    page.evaluate(CARRY, [event, place, path.name, kind, b64encode(path.read_bytes()).decode()])


def drop(page: Page, place: str, path: Path) -> None:
    """Drop a file; `place` is one of the places that lie over the page meanwhile."""
    carry(page, "drag", place, path)
    expect(page.locator("#drop [data-zone=content]")).to_be_visible()
    shoot(page, "drop")
    page.evaluate("usoDrop()")
    expect(page.locator("#drop [data-zone=content]")).not_to_be_visible()


def held(page: Page, field: str, name: str) -> None:
    """Wait until a field holds a file of this name."""
    expect(page.locator(f"#{field} img")).to_have_attribute("src", re.compile(f"/{name}$"), timeout=PATIENCE_MS)


def test_an_image_is_pasted_into_the_first_free_field(visit: Any, server: Program) -> None:
    """Catches a paste that does nothing outside a field, or replaces an image that somebody has chosen."""
    page = visit(server)
    carry(page, "paste", "#prompt textarea", CAT)
    held(page, "content", "cat.jpg")
    carry(page, "paste", "body", FOX)
    held(page, "style", "fox.png")
    page.focus("#content button[aria-label]")
    carry(page, "paste", "#content", FOX)
    held(page, "content", "fox.png")
    expect(page.locator("#extra-style img")).to_have_count(0)
    expect(page.locator("#plan")).to_contain_text("Layout kept, in the style of the style image", timeout=PATIENCE_MS)


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_a_full_row_of_references_takes_no_other_image_by_itself(
    visit: Any, server: Program, width: int, height: int
) -> None:
    """Catches a content image that a paste or a drop replaces without a word."""
    page = visit(server, width, height)
    for field in ("content", "style", "extra-style"):
        carry(page, "paste", "body", FOX)
        held(page, field, "fox.png")
    carry(page, "paste", "body", CAT)
    refusal = page.locator("#refusal")
    expect(refusal).to_have_text(SCRIPT_WORDS["full"])
    expect(refusal).to_be_in_viewport(ratio=1)
    expect(refusal).to_have_attribute("role", "alert")
    expect(page.locator("#paste-hint")).to_contain_text("Ctrl+V")
    shoot(page, f"full-{width}")
    page.locator("#style img").click()
    carry(page, "paste", "body", CAT)
    held(page, "style", "cat.jpg")
    expect(refusal).to_have_count(0)
    page.locator("#paste-hint").click()
    drop(page, "#drop [data-zones] p", CAT)
    expect(refusal).to_have_text(SCRIPT_WORDS["full"])
    held(page, "content", "fox.png")
    page.locator("#content button[aria-label*=emove]").click()
    expect(refusal).to_have_count(0)


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_a_file_that_is_no_picture_is_refused_at_its_field(
    visit: Any, server: Program, tmp_path: Path, width: int, height: int
) -> None:
    """Catches one that stays in its field as a broken image, and is counted until Generate."""
    page = visit(server, width, height)
    junk = tmp_path / "notes.png"
    junk.write_text("no picture")
    refusal = page.locator("#refusal")
    for field in ("content", "extra-style"):
        page.set_input_files(f"#{field} input[type=file]", junk)
        expect(refusal).to_contain_text("notes.png is not a picture this program can read", timeout=PATIENCE_MS)
        expect(refusal).to_be_in_viewport(ratio=1)
        expect(page.locator(f"#{field}.uso-refused").first).to_be_visible()
        expect(page.locator("#message [role=alert]")).to_be_visible()
        expect(page.locator("#references img")).to_have_count(0)
        expect(page.locator("#plan")).to_contain_text("Nothing to draw yet", timeout=PATIENCE_MS)
        page.wait_for_timeout(500)
        expect(refusal).to_be_visible()  # it stays when the field has become empty
        shoot(page, f"junk-{field}-{width}")
        upload(page, field, FOX)
        expect(page.locator("#refusal, #message [role=alert]")).to_have_count(0)
        expect(page.locator("#plan")).not_to_contain_text("Nothing to draw yet", timeout=PATIENCE_MS)
        page.locator(f"#{field} button[aria-label*=emove]").click()
        expect(page.locator("#references img")).to_have_count(0)


def test_a_file_may_be_dropped_anywhere(visit: Any, server: Program) -> None:
    """Catches a browser that leaves the page for the picture, and a picture in another field than the one that was
    pointed at."""
    page = visit(server)
    drop(page, "#drop [data-zone=style]", CAT)
    held(page, "style", "cat.jpg")
    drop(page, "#drop [data-zones] p", FOX)
    held(page, "content", "fox.png")
    carry(page, "drag", "body", CAT)
    expect(page.locator("#drop [data-zone=settings]")).not_to_be_visible()  # a JPEG holds none
    page.evaluate("dispatchEvent(new DragEvent('dragleave', { bubbles: true, relatedTarget: null }))")
    expect(page.locator("#drop [data-zone=content]")).not_to_be_visible()


def make_and_forget(page: Page, server: Program) -> Path:
    """Make a picture of a fox in the snow, and empty the prompt; returns its file."""
    page.fill("#prompt textarea", "A fox in the snow")
    fill_number(page, "steps", FAST)
    made = generate(page, server).path
    page.fill("#prompt textarea", "")
    return made


def test_a_picture_made_here_offers_its_settings(visit: Any, server: Program) -> None:
    """Catches a PNG of ours that is a mere image when it is dropped, and any other that passes for one of ours."""
    page = visit(server)
    made = make_and_forget(page, server)
    drop(page, "#drop [data-zone=content]", FOX)
    held(page, "content", "fox.png")
    offer = page.locator("#offer")
    expect(offer).not_to_be_visible()
    drop(page, "#drop [data-zone=style]", made)
    held(page, "style", made.name)
    expect(offer).to_contain_text(f"{made.name} was made with USO.", timeout=PATIENCE_MS)
    expect(offer).to_be_in_viewport(ratio=1)
    shoot(page, "offer")
    offer.get_by_role("button", name="Restore its settings").click()
    expect(page.locator("#prompt textarea")).to_have_value("A fox in the snow", timeout=PATIENCE_MS)
    expect(page.locator("#style img, #content img")).to_have_count(0)
    expect(page.locator("#filled")).to_contain_text("Prompt", timeout=PATIENCE_MS)
    page.fill("#prompt textarea", "")
    drop(page, "#drop [data-zone=settings]", made)
    expect(page.locator("#prompt textarea")).to_have_value("A fox in the snow", timeout=PATIENCE_MS)


def test_a_second_picture_restores_its_settings_too(visit: Any, server: Program) -> None:
    """Catches a file that is not heard of while the server is still told that the one before it has been taken out."""
    page = visit(server)
    made = make_and_forget(page, server)
    drop(page, "#drop [data-zone=settings]", made)
    expect(page.locator("#prompt textarea")).to_have_value("A fox in the snow", timeout=PATIENCE_MS)
    expect(page.locator("#filled")).to_contain_text("Prompt", timeout=PATIENCE_MS)
    page.fill("#prompt textarea", "")
    late = hold_first(page, lambda asked: asked.get("data", [True])[0] is None)
    with page.expect_response("**/gradio_api/upload*"):
        drop(page, "#drop [data-zone=settings]", made)
    expect(page.locator("#restore")).to_contain_text(made.stem, timeout=PATIENCE_MS)
    (one,) = late
    one.continue_()
    expect(page.locator("#prompt textarea")).to_have_value("A fox in the snow", timeout=PATIENCE_MS)
    page.unroute_all(behavior="wait")


def test_pictures_of_the_page_are_dragged_into_fields(visit: Any, server: Program) -> None:
    """Catches a picture that cannot be dragged, or arrives as a thumbnail."""
    page = visit(server)
    page.fill("#prompt textarea", "A fox")
    fill_number(page, "steps", FAST)
    first = generate(page, server).path
    for source, field in (("#picture img", "style"), ("#history [data-picture]", "content")):
        place = page.locator(source).first
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 5, box["y"] + 5, steps=5)
        zone = page.locator(f"#drop [data-zone={field}]")
        expect(zone).to_be_visible()
        to = zone.bounding_box()
        page.mouse.move(to["x"] + to["width"] / 2, to["y"] + to["height"] / 2, steps=5)
        page.mouse.up()
        expect(page.locator(f"#{field} img")).to_be_visible(timeout=PATIENCE_MS)
    request = generate(page, server).record["request"]
    taken = [entry["sha256"] for kind in ("content_images", "style_images") for entry in request[kind]]
    assert taken == [sha256(first.read_bytes()).hexdigest()] * 2


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_a_reference_is_looked_at_as_the_model_sees_it(
    visit: Any, server: Program, picture_file: Any, width: int, height: int
) -> None:
    """Catches a look that needs a mouse, does not say what was done to the image, or opens only once."""
    scheme = "dark" if width == 390 else "light"
    page = visit(server, width, height, color_scheme=scheme)
    expect(page.locator("#look-at-style")).not_to_be_visible()
    upload(page, "style", picture_file("wide.png", 300, 200))
    label, frame = (page.locator(f"#style {part}").bounding_box() for part in ("label", ".image-container"))
    assert label["y"] + label["height"] <= frame["y"] + 1
    for _ in range(2):
        page.focus("#look-at-style")
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Style Reference")
        expect(dialog).to_contain_text("Squashed to a square of 128 × 128 pixels", timeout=PATIENCE_MS)
        expect(dialog).to_contain_text("wide.png, 300 × 200 pixels")
        expect(dialog.locator("img")).to_have_count(2)
        page.wait_for_function("[...document.querySelectorAll('dialog img')].every(image => image.naturalWidth > 0)")
        shoot(page, f"look-{width}-{scheme}")
        page.keyboard.press("Escape")
        expect(dialog).not_to_be_visible()
    page.locator("#style").get_by_label("Fullscreen").click()
    expect(page.locator("#style.fullscreen").first).to_be_visible(timeout=PATIENCE_MS)
