"""Several pictures and several requests: the grid, the strip, comparing, what a reload and a restart bring back."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browsing import (
    FAST,
    PATIENCE_MS,
    choose_example,
    fill_number,
    hold_first,
    make_it_last,
    needs_chromium,
    shoot,
    upload,
    wait_for_life,
)
from tests.support.pace import LASTING_STEPS
from tests.support.running import Program, free_port, program
from tests.support.scripted import until

pytestmark = [pytest.mark.slow, needs_chromium]

LAYOUT_KEPT = 6
"""The example with a content image, a style image and no prompt."""


def make(page: Page, number: int, steps: str = FAST) -> None:
    if not page.locator("#references img").count():
        page.fill("#prompt textarea", "A fox")
    fill_number(page, "num-images", str(number))
    fill_number(page, "steps", steps)
    page.click("#generate")


def shown_picture(page: Page) -> str:
    """Id of the picture that is shown."""
    found: str = page.locator("#picture-id").evaluate("element => element.textContent.trim()")
    return found


@pytest.mark.parametrize(("width", "height", "scheme"), [(1440, 789, "light"), (1366, 657, "dark"), (390, 844, "dark")])
def test_several_pictures_are_opened_compared_and_downloaded(
    visit: Any, server: Program, tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    """Catches a picture of four that cannot be looked at, a comparison without the keyboard or with the wrong pictures,
    and a zip file that lacks one."""
    # Without smooth scrolling: where Playwright scrolls to click while it goes on, Chromium ends at neither place.
    page = visit(server, width, height, color_scheme=scheme, reduced_motion="reduce")
    choose_example(page, LAYOUT_KEPT)
    make(page, 3)
    tiles = page.locator("#grid [data-picture]")
    expect(tiles).to_have_count(3, timeout=PATIENCE_MS)
    expect(page.locator("#status")).to_contain_text("Done. 3 pictures.", timeout=PATIENCE_MS)
    ids = [tile.get_attribute("data-picture") for tile in tiles.all()]
    expect(tiles.nth(2)).to_have_attribute("aria-current", "true", timeout=PATIENCE_MS)
    tiles.nth(0).press("Enter")
    expect(tiles.nth(0)).to_have_attribute("aria-current", "true", timeout=PATIENCE_MS)
    assert shown_picture(page) == ids[0]
    shoot(page, f"several-{width}")

    page.focus("#compare-two")
    page.keyboard.press("Enter")
    view = page.locator("#compare .uso-compare")
    expect(view.locator("[data-part=first]")).to_have_attribute("src", f"pictures/{ids[0]}.png")
    expect(view.locator("[data-part=second]")).to_have_attribute("src", f"pictures/{ids[1]}.png")
    page.wait_for_function("[...document.querySelectorAll('#compare img')].every(one => one.naturalWidth === 128)")
    slider = view.get_by_role("slider")
    expect(slider).to_be_focused()
    page.keyboard.press("ArrowLeft")
    assert view.evaluate("element => element.style.getPropertyValue('--uso-at')") == "49%"
    shoot(page, f"slider-{width}")
    tiles.nth(2).click()
    expect(view.locator("[data-part=second]")).to_have_attribute("src", f"pictures/{ids[2]}.png")
    assert shown_picture(page) == ids[0]
    expect(page.locator("#stage")).to_be_in_viewport(ratio=0.5)
    view.get_by_role("button", name="Side by side").click()
    boxes = [view.locator("figure").nth(index).bounding_box() for index in (0, 1)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    shoot(page, f"side-by-side-{width}")
    page.keyboard.press("Escape")
    expect(view).to_be_hidden()

    page.click("#before-after")
    expect(view.locator("[data-part=first]")).to_have_attribute(
        "src", re.compile("^data:image/webp"), timeout=PATIENCE_MS
    )
    expect(view.locator("figcaption").first).to_have_text("Content image")
    page.wait_for_function("[...document.querySelectorAll('#compare img')].every(one => one.naturalWidth === 128)")
    shoot(page, f"before-after-{width}")
    expect(page.locator("#content-shown")).to_be_hidden()
    expect(page.locator("#afterwards")).not_to_contain_text("data:image")
    page.keyboard.press("Escape")

    with page.expect_download() as coming:
        page.get_by_role("link", name="Download all 3 as a zip file").click()
    coming.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        pictures = [archive.read(name) for name in archive.namelist() if name.endswith(".png")]
    assert sorted(pictures) == sorted(path.read_bytes() for path in server.pictures()[-3:])


def test_requests_queue_each_with_its_own_stop(visit: Any, server: Program) -> None:
    """Catches a Generate that locks, a Stop that stops another request, and a picture that is covered, while it is
    looked at, by what is being made."""
    page = visit(server)
    fill_number(page, "steps", str(LASTING_STEPS))
    fill_number(page, "num-images", "8")
    for prompt in ("The first", "The second", "The third"):
        page.fill("#prompt textarea", prompt)
        page.click("#generate")
    cards = page.locator("#jobs li")
    expect(cards).to_have_count(3, timeout=PATIENCE_MS)
    expect(cards.nth(1)).to_contain_text("ahead of yours", timeout=PATIENCE_MS)
    page.wait_for_selector("#preview img", timeout=PATIENCE_MS)
    shoot(page, "strip")
    page.get_by_role("button", name="Stop: The second").click()
    expect(cards).to_have_count(2, timeout=PATIENCE_MS)
    expect(page.locator("#jobs")).not_to_contain_text("The second")
    expect(page.locator("#grid [data-picture]")).to_have_count(2, timeout=PATIENCE_MS)
    page.locator("#grid [data-picture]").first.click()
    expect(page.locator("#preview")).to_be_hidden()
    page.click("#stop")  # of what runs
    expect(cards).to_have_count(1, timeout=PATIENCE_MS)
    expect(page.locator("#jobs")).to_contain_text("The third")
    page.get_by_role("button", name="Stop: The third").click()
    expect(page.locator("#status")).to_contain_text("Stopped.", timeout=PATIENCE_MS)
    expect(page.locator("#jobs li")).to_have_count(0)
    expect(page.locator("#stop")).to_be_disabled()


def test_a_stop_is_heard_while_another_is_on_its_way(visit: Any, server: Program) -> None:
    """Catches a second click that is lost because the first one has no answer yet."""
    page = visit(server)
    make_it_last(page)
    fill_number(page, "num-images", "8")  # a minute: the others do not begin by themselves
    cards = page.locator("#jobs li")
    for number, prompt in enumerate(("The first", "The second", "The third"), 1):
        page.fill("#prompt textarea", prompt)
        page.click("#generate")
        expect(cards).to_have_count(number, timeout=PATIENCE_MS)
        fill_number(page, "num-images", "1")  # one person may request 60 pictures a minute

    late = hold_first(page, lambda asked: "job" in (asked.get("event_data") or {}))
    page.get_by_role("button", name="Stop: The second").click()
    until(lambda: page.wait_for_timeout(50) or late)
    page.get_by_role("button", name="Stop: The third").click()
    expect(page.locator("#jobs")).not_to_contain_text("The third", timeout=40_000)
    late[0].continue_()
    expect(page.locator("#jobs")).not_to_contain_text("The second", timeout=PATIENCE_MS)
    page.unroute_all(behavior="wait")
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Stopped.", timeout=PATIENCE_MS)


def test_a_phone_scrolls_at_the_tap(visit: Any, server: Program) -> None:
    """Catches a scroll to the result that waits for the picture."""
    page = visit(server, 390, 844)
    make(page, 8, "50")
    expect(page.locator("#stage")).to_be_in_viewport(ratio=0.9, timeout=PATIENCE_MS)
    expect(page.locator("#status")).not_to_contain_text("Done.")
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Stopped.", timeout=PATIENCE_MS)


def test_all_comes_back_after_a_reload_and_what_a_restart_took_is_said(
    visit: Any, tmp_path: Path, picture_file: Callable[..., Path]
) -> None:
    """Catches references and switches that a reload drops in silence, a server that is gone without a word, a page that
    has to be loaded by hand, and a request that nobody makes any more."""
    port = free_port()
    with program(tmp_path, port=port) as server:
        server.wait_until_built()
        page = visit(server)
        upload(page, "content", picture_file("wide.png", 300, 200, 1))
        upload(page, "style", picture_file("style.png", 200, 200, 2))
        page.check("#keep input[type=checkbox]")
        expect(page.locator("#note")).to_contain_text("The picture will be 256 × 176", timeout=PATIENCE_MS)
        make(page, 2)
        expect(page.locator("#status")).to_contain_text("Done. 2 pictures.", timeout=PATIENCE_MS)
        page.reload()
        wait_for_life(page)
        for field in ("content", "style"):
            expect(page.locator(f"#{field} img")).to_be_visible(timeout=PATIENCE_MS)
        expect(page.locator("#keep input[type=checkbox]")).to_be_checked()
        expect(page.locator("#grid [data-picture]")).to_have_count(2, timeout=PATIENCE_MS)
        make(page, 8, "50")
        expect(page.locator("#status")).to_contain_text("Picture 1 of 8", timeout=PATIENCE_MS)
        server.process.kill()
        expect(page.locator("#status [role=alert]")).to_contain_text(
            "The connection to the server is lost.", timeout=PATIENCE_MS
        )
        expect(page.locator("#generate")).to_be_disabled()
        shoot(page, "lost")
    with program(tmp_path, port=port) as again:
        again.wait_until_built()
        expect(page.locator("#status")).to_contain_text("restarted before all pictures", timeout=PATIENCE_MS)
        gone = "No longer on the server: Content Reference, Style Reference. Choose the files again."
        expect(page.locator("#message [role=alert]")).to_have_text(gone, timeout=PATIENCE_MS)
        expect(page.locator("#content img")).to_have_count(0)
        expect(page.locator("#keep input[type=checkbox]")).not_to_be_checked()
        expect(page.locator("#num-images input").first).to_have_value("8")
        expect(page.locator("#grid [data-picture]").first).to_be_visible(timeout=PATIENCE_MS)
        shoot(page, "back-after-a-restart")
        page.fill("#prompt textarea", "A fox")
        fill_number(page, "steps", FAST)
        fill_number(page, "num-images", "1")
        before = len(again.pictures())
        page.click("#generate")
        until(lambda: len(again.pictures()) > before, PATIENCE_MS / 1000)
