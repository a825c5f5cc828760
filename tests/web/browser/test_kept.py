"""What people keep: their pictures page by page, favourites, deleting, zip files, earlier prompts."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.axe import faults, faults_in_both_themes
from tests.support.browsing import FAST, PATIENCE_MS, fill_number, generate, needs_chromium, shoot, upload
from tests.support.kept import kept, new_job
from tests.support.running import Program, program
from tests.support.scripted import until
from uso.web.access.identity import Asker
from uso.web.store import history
from uso.web.store.recovery import open_ledger

pytestmark = [pytest.mark.slow, needs_chromium]

TILES = "#gallery [data-picture]"
SCREENS = [(1440, 789), (1366, 657), (390, 844)]


def make(page: Page, server: Program, *prompts: str) -> None:
    fill_number(page, "steps", FAST)
    for number, prompt in enumerate(prompts, page.locator(TILES).count() + 1):
        page.fill("#prompt textarea", prompt)
        generate(page, server)
        expect(page.locator(TILES)).to_have_count(number, timeout=PATIENCE_MS)


def names(page: Page) -> list[str]:
    """Beginnings of what the tiles are called, in order."""
    return [name.split(",")[0] for name in page.locator(TILES).evaluate_all("all => all.map(one => one.ariaLabel)")]


def test_the_history_is_searched_marked_and_kept_over_a_restart(visit: Any, tmp_path: Path) -> None:
    """Catches pages that end or repeat, a search that finds something else, a mark that is lost with the process."""
    with program(tmp_path) as server:
        server.wait_until_built()
        page = visit(server)
        make(page, server, "a red fox", "an owl in the snow", "a red rose")
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
        assert names(page)[-4:] == ["number 0", "a red rose", "an owl in the snow", "a red fox"]
        assert page.evaluate("document.activeElement.dataset.picture") is not None
        page.fill("#gallery-search textarea, #gallery-search input", "RED")
        expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
        page.check("#gallery-favourites input")
        expect(tiles).to_have_count(1, timeout=PATIENCE_MS)
        assert names(page) == ["a red rose"]
        page.fill("#gallery-search textarea, #gallery-search input", "zebra")
        expect(page.locator("#gallery-matches")).to_contain_text("No picture of yours matches.", timeout=PATIENCE_MS)
        page.fill("#gallery-search textarea, #gallery-search input", "")
        expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
        make_one = page.locator(TILES).count()
        page.uncheck("#gallery-favourites input")
        expect(tiles).to_have_count(history.MOST, timeout=PATIENCE_MS)
        assert make_one == 2


def test_an_answer_that_comes_late_brings_nothing_back(visit: Any, server: Program) -> None:
    """Catches a deleted picture that returns with a list made before, and a button that is pressed for the picture that
    was clicked and works on the one before."""
    page = visit(server)
    late: list[Route] = []
    answers: list[Any] = []
    fill_number(page, "num-images", "3")
    page.fill("#prompt textarea", "three")
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Done. 3 pictures.", timeout=PATIENCE_MS)
    grid, other = page.locator("#grid [data-picture]"), page.locator(TILES).first.get_attribute("data-picture")
    clicked = grid.first.get_attribute("data-picture")

    def hold(route: Route) -> None:
        asked = route.request.post_data_json or {}
        if late or asked.get("event_data") != {"picture": clicked}:  # another event of the page
            route.continue_()
        else:
            late.append(route)  # before fetching, for meanwhile the next one may come
            answers.append(route.fetch())

    page.route("**/gradio_api/run/**", hold)
    grid.first.click()
    expect(page.locator("#afterwards[inert]")).to_have_count(1)
    page.focus(f'#gallery [data-picture="{other}"]')
    page.keyboard.press("Delete")
    page.click("#confirm button[value=yes]")
    expect(grid).to_have_count(2, timeout=PATIENCE_MS)
    until(lambda: bool(answers))
    (route,), (answer,) = late, answers
    route.fulfill(response=answer)
    expect(page.locator("[inert]")).to_have_count(0, timeout=PATIENCE_MS)
    expect(grid).to_have_count(2)
    page.unroute_all(behavior="wait")
    page.click("#delete-picture")
    page.click("#confirm button[value=yes]")
    expect(grid).to_have_count(0, timeout=PATIENCE_MS)


def test_the_keyboard_alone_deletes_and_only_what_was_chosen(visit: Any, server: Program) -> None:
    """Catches a picture that goes without a question or against an answer, another one that goes with it, one that is
    still shown or still on the disk, and a choice that moves to another picture with the list."""
    page = visit(server)
    fill_number(page, "num-images", "3")
    make_three = set(server.pictures())
    page.fill("#prompt textarea", "three")
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("Done. 3 pictures.", timeout=PATIENCE_MS)
    link = page.locator("#grid a")
    for left in (2, 1):
        page.locator("#grid [data-picture]").nth(left).click()
        page.click("#delete-picture")
        page.click("#confirm button[value=yes]")
        expect(page.locator("#grid [data-picture]")).to_have_count(left if left > 1 else 0, timeout=PATIENCE_MS)
        expect(page.locator("#picture img")).to_have_count(1)  # the one before it
        if left == 2:
            expect(link).to_have_text("Download all 2 as a zip file")
            assert link.get_attribute("href").count(",") == 1
    expect(link).to_be_hidden()
    page.locator(TILES).first.click()
    page.click("#delete-picture")
    page.click("#confirm button[value=yes]")
    until(lambda: set(server.pictures()) == make_three)
    fill_number(page, "num-images", "1")
    before = set(server.pictures())
    make(page, server, "a fox", "an owl", "a rose", "a boat")
    tiles = page.locator(TILES)
    files = server.pictures()[-4:]
    page.focus("#gallery-choose")
    page.keyboard.press("Enter")
    box = page.locator("#gallery input[type=checkbox]")
    box.nth(1).focus()
    page.keyboard.press("Space")
    expect(page.locator("#gallery-count")).to_have_text("1 chosen.")
    page.fill("#gallery-search textarea, #gallery-search input", "rose")
    expect(tiles).to_have_count(1, timeout=PATIENCE_MS)
    expect(box.first).to_be_checked()
    page.fill("#gallery-search textarea, #gallery-search input", "")
    expect(tiles).to_have_count(4, timeout=PATIENCE_MS)
    assert [box.nth(number).is_checked() for number in range(4)] == [False, True, False, False]
    page.focus("#gallery-delete")
    page.keyboard.press("Enter")
    dialog = page.locator("#confirm dialog")
    expect(dialog).to_contain_text("Delete the picture “a rose, seed ")
    expect(page.locator("#confirm button[value=no]")).to_be_focused()
    assert faults(page) == []
    page.keyboard.press("Enter")  # no
    expect(dialog).not_to_be_visible()
    expect(page.locator("#gallery-delete")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # yes
    expect(tiles).to_have_count(3, timeout=PATIENCE_MS)
    assert names(page) == ["a boat", "an owl", "a fox"] and set(server.pictures()) == before | {*files} - {files[2]}
    expect(tiles.nth(1)).to_be_focused()  # nothing is chosen any more
    page.focus("#delete-picture")  # the boat, which is shown
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
    expect(tiles.first).to_have_attribute("aria-current", "true")  # the owl is shown instead
    expect(page.locator("#picture-id")).to_contain_text(tiles.first.get_attribute("data-picture") or "?")
    expect(page.locator("#delete-picture")).to_be_focused()
    assert not files[3].exists() and not list(server.scratch.rglob(files[3].name))
    page.focus("#gallery-everything")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("Delete all your pictures for good, those that are not listed here too?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#history")).to_contain_text("None yet.", timeout=PATIENCE_MS)
    expect(page.locator("#gallery-head h2")).to_be_focused()
    expect(page.locator("#picture img")).to_have_count(0)
    expect(page.locator("#afterwards")).not_to_be_visible()
    assert set(server.pictures()) == before
    page.reload()
    expect(page.locator("#history")).to_contain_text("None yet.", timeout=PATIENCE_MS)


def test_a_search_hides_no_new_picture_without_a_word(visit: Any, server: Program, picture_file: Any) -> None:
    """Catches a search that is forgotten, one that knows prompts alone, and one that is ended only by emptying it."""
    page = visit(server)
    make(page, server, "a fox")
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
    make(page, server, "a fox", "an owl", "a rose")
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


@pytest.mark.parametrize(("width", "height"), [(1366, 657), (390, 844)])
def test_the_focus_goes_along_with_a_picture(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches a focus on a thumbnail that is out of sight, and one that is nowhere after a deletion."""
    page = visit(server, width, height)
    make(page, server, "a fox", "an owl", "a rose")
    tiles, dialog = page.locator(TILES), page.locator("#confirm dialog")
    tiles.nth(1).focus()
    page.keyboard.press("Enter")
    expect(tiles.nth(1)).to_have_attribute("aria-current", "true")
    expect(page.locator("#picture img")).to_be_focused(timeout=PATIENCE_MS)
    expect(page.locator("#picture img")).to_be_in_viewport(ratio=0.5)
    shoot(page, f"opened-{width}")
    tiles.nth(1).click()
    expect(page.locator("#picture img")).not_to_be_focused()
    for left, answer in ((["a rose", "a fox"], "the next"), (["a rose"], "the last")):
        tiles.nth(1).focus()
        page.keyboard.press("Delete")
        expect(dialog).to_contain_text("Delete the picture “")
        page.keyboard.press("Enter")  # no
        expect(tiles.nth(1)).to_be_focused()
        page.keyboard.press("Delete")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # yes
        expect(tiles).to_have_count(len(left), timeout=PATIENCE_MS)
        assert names(page) == left, answer
        expect(tiles.last).to_be_focused()
    page.fill("#gallery-search textarea, #gallery-search input", "rose")
    page.keyboard.press("Delete")
    expect(dialog).not_to_be_visible()


def test_a_question_right_after_another_has_its_own_answer(visit: Any, server: Program) -> None:
    """Catches the end of one question, of which the browser tells later, that is taken for the answer to the next: a
    yes that does nothing."""
    page = visit(server)
    make(page, server, "a fox", "an owl")
    page.evaluate(
        """() => {
          const press = () => document.querySelector('#gallery [data-picture]').dispatchEvent(
            new KeyboardEvent('keydown', { key: 'Delete', bubbles: true }))
          press()
          document.querySelector('#confirm button[value=no]').click()
          press()
        }"""
    )
    page.wait_for_timeout(100)  # for the browser to tell of the first one's end
    page.click("#confirm button[value=yes]")
    expect(page.locator(TILES)).to_have_count(1, timeout=PATIENCE_MS)
    assert names(page) == ["a fox"]


def test_chosen_pictures_come_as_a_zip_file(visit: Any, server: Program, tmp_path: Path) -> None:
    """Catches a file without the records, with another picture, or one that leaves the page for an error."""
    page = visit(server)
    make(page, server, "a fox", "an owl", "a rose")
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
    make(page, server, "a fox", "an owl")
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
    make(page, server, "a fox in the snow at night", "an owl")
    page.focus("#prompts-frame button")
    page.keyboard.press("Enter")
    expect(page.locator("#prompts [data-prompt]")).to_have_count(2, timeout=PATIENCE_MS)
    page.locator("#prompts [data-prompt]").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt textarea")).to_have_value("a fox in the snow at night", timeout=PATIENCE_MS)
    expect(page.locator("#prompt textarea")).to_be_focused()
