"""What people keep: their pictures page by page, favourites, zip files, earlier prompts."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.axe import faults, faults_in_both_themes
from tests.support.browsing import (
    PATIENCE_MS,
    TILES,
    generate,
    make_pictures,
    needs_chromium,
    shoot,
    tile_names,
    upload,
)
from tests.support.kept import kept, new_job
from tests.support.running import Program, program
from uso.web.access.identity import Asker
from uso.web.store import history
from uso.web.store.recovery import open_ledger

pytestmark = [pytest.mark.slow, needs_chromium]

SCREENS = [(1440, 789), (1366, 657), (390, 844)]


def test_the_history_is_searched_marked_and_kept_over_a_restart(visit: Any, tmp_path: Path) -> None:
    """Catches pages that end or repeat, a search that finds something else, a mark that is lost with the process."""
    with program(tmp_path) as server:
        server.wait_until_built()
        page = visit(server)
        make_pictures(page, server, "a red fox", "an owl in the snow", "a red rose")
        page.locator("#gallery [data-star]").nth(1).click()
        page.click("#favourite")  # of the rose, which is shown
        expect(page.locator("#favourite")).to_have_text("Unfavourite", timeout=PATIENCE_MS)
        expect(page.locator("#gallery [data-star]").first).to_have_attribute("aria-pressed", "true")
        (cookie,) = [one for one in page.context.cookies() if one["name"] == "uso-browser"]
        page.close()
    from hashlib import sha256

    owner = Asker("at:1", f"browser:{sha256(cookie['value'].encode()).hexdigest()}", None)
    ledger = open_ledger(server.outputs)
    for number in range(history.MOST + 5):
        kept(ledger, new_job(owner, prompt=f"number {number}"), server.outputs)
    ledger.close()
    with program(tmp_path) as again:
        again.wait_until_built()
        page = visit(again, context=page.context)
        tiles, more = page.locator(TILES), page.locator("#gallery-more")
        expect(tiles).to_have_count(history.MOST, timeout=PATIENCE_MS)
        more.focus()
        page.keyboard.press("Enter")
        expect(tiles).to_have_count(history.MOST + 8, timeout=PATIENCE_MS)
        expect(more).not_to_be_visible()
        assert tile_names(page)[-4:] == ["number 0", "a red rose", "an owl in the snow", "a red fox"]
        assert page.evaluate("document.activeElement.dataset.picture") is not None
        page.fill("#gallery-search textarea, #gallery-search input", "RED")
        expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
        page.check("#gallery-favourites input")
        expect(tiles).to_have_count(1, timeout=PATIENCE_MS)
        assert tile_names(page) == ["a red rose"]
        page.fill("#gallery-search textarea, #gallery-search input", "zebra")
        expect(page.locator("#gallery-matches")).to_contain_text("No picture of yours matches.", timeout=PATIENCE_MS)
        page.fill("#gallery-search textarea, #gallery-search input", "")
        expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
        make_one = page.locator(TILES).count()
        page.uncheck("#gallery-favourites input")
        expect(tiles).to_have_count(history.MOST, timeout=PATIENCE_MS)
        assert make_one == 2


def test_a_search_hides_no_new_picture_without_a_word(visit: Any, server: Program, picture_file: Any) -> None:
    """Catches a search that is forgotten, one that knows prompts alone, and one that is ended only by emptying it."""
    page = visit(server)
    make_pictures(page, server, "a fox")
    page.fill("#prompt textarea", "")
    upload(page, "content", picture_file("photographer.png", 64, 64, 3))
    generate(page, server)
    tiles, matches = page.locator(TILES), page.locator("#gallery-matches")
    expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
    expect(page.locator("#before-after")).to_be_enabled()
    page.fill("#gallery-search :is(input, textarea)", "photographer")
    expect(matches).to_have_text("1 of your pictures matches.", timeout=PATIENCE_MS)
    place = page.locator("#delete-picture").bounding_box()
    page.locator("#content button[aria-label*=emove]").click()
    expect(page.locator("#content img")).to_have_count(0)
    page.fill("#prompt textarea", "a whale")
    generate(page, server)
    expect(matches).to_contain_text("The new picture does not match, so it is not listed.", timeout=PATIENCE_MS)
    expect(tiles).to_have_count(1)
    expect(page.locator("#before-after")).to_be_disabled()
    assert page.locator("#delete-picture").bounding_box()["x"] == place["x"]
    shoot(page, "search")
    assert faults(page) == []
    page.click("#gallery-show-all")
    expect(tiles).to_have_count(3, timeout=PATIENCE_MS)
    expect(matches).not_to_be_visible()
    expect(page.locator("#gallery-search").get_by_role("textbox")).to_be_focused()


def test_arrows_go_from_picture_to_picture(visit: Any, server: Program) -> None:
    """Catches a list in which each picture costs several Tabs, a star out of reach, an arrow that leaves the list."""
    page = visit(server)
    make_pictures(page, server, "a fox", "an owl", "a rose")
    tiles = page.locator(TILES)
    tiles.first.focus()
    for key, place in (("Right", 1), ("Right", 2), ("Right", 2), ("Down", 2), ("Left", 1)):
        page.keyboard.press(f"Arrow{key}")
        expect(tiles.nth(place)).to_be_focused()
    page.keyboard.press("f")
    expect(page.locator("#gallery [data-star]").nth(1)).to_have_attribute("aria-pressed", "true")
    for key, place in (("End", 2), ("Home", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        expect(tiles.nth(place)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    expect(tiles.nth(1)).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#gallery')") is None


def test_chosen_pictures_come_as_a_zip_file(visit: Any, server: Program, tmp_path: Path) -> None:
    """Catches a file without the records, with another picture, or one that leaves the page for an error."""
    page = visit(server)
    make_pictures(page, server, "a fox", "an owl", "a rose")
    files = server.pictures()[-3:]
    page.click("#gallery-choose")
    expect(page.locator("#gallery-zip")).to_be_disabled()
    page.locator(TILES).nth(0).click()
    page.locator(TILES).nth(1).click(modifiers=["Shift"])
    expect(page.locator("#gallery-count")).to_have_text("2 chosen.")
    with page.expect_download() as coming:
        page.click("#gallery-zip")
    coming.value.save_as(tmp_path / "mine.zip")
    with zipfile.ZipFile(tmp_path / "mine.zip") as opened:
        assert {file.name: opened.read(file.name) for file in files[1:]} == {
            file.name: file.read_bytes() for file in files[1:]
        }
        prompts = [
            json.loads(opened.read(name))["request"]["prompt"] for name in opened.namelist() if name.endswith(".json")
        ]
    assert sorted(prompts) == ["a rose", "an owl"]


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_it_can_be_seen_and_read(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches names, contrasts and roles that axe finds, and what is wider than the screen."""
    page = visit(server, width, height)
    make_pictures(page, server, "a fox", "an owl")
    page.click("#gallery-choose")
    page.locator(TILES).nth(1).click()
    page.click("#prompts-frame button >> nth=0")
    expect(page.locator("#prompts [data-prompt]")).to_have_count(2, timeout=PATIENCE_MS)
    page.click("#presets button >> nth=0")
    expect(page.locator("#preset-save")).to_be_visible(timeout=PATIENCE_MS)
    page.locator("#history").scroll_into_view_if_needed()
    assert faults_in_both_themes(page, f"gallery-{width}") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#presets").scroll_into_view_if_needed()
    shoot(page, f"presets-{width}")
    page.click("#gallery-delete")
    assert faults_in_both_themes(page, f"confirm-{width}") == []


def test_an_earlier_prompt_is_chosen_by_keyboard(visit: Any, server: Program) -> None:
    """Catches a list that the keyboard does not reach, and one that brings another prompt."""
    page = visit(server)
    make_pictures(page, server, "a fox in the snow at night", "an owl")
    page.focus("#prompts-frame button")
    page.keyboard.press("Enter")
    expect(page.locator("#prompts [data-prompt]")).to_have_count(2, timeout=PATIENCE_MS)
    page.locator("#prompts [data-prompt]").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt textarea")).to_have_value("a fox in the snow at night", timeout=PATIENCE_MS)
    expect(page.locator("#prompt textarea")).to_be_focused()
