"""Deleting pictures: by mouse and keyboard, what else goes with them, and where the focus goes."""

from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.support.axe import faults
from tests.support.browsing import PATIENCE_MS, TILES, fill_number, make_pictures, needs_chromium, shoot, tile_names
from tests.support.running import Program
from tests.support.scripted import until

pytestmark = [pytest.mark.slow, needs_chromium]


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
    make_pictures(page, server, "a fox", "an owl", "a rose", "a boat")
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
    assert tile_names(page) == ["a boat", "an owl", "a fox"] and set(server.pictures()) == before | {*files} - {
        files[2]
    }
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


@pytest.mark.parametrize(("width", "height"), [(1366, 657), (390, 844)])
def test_the_focus_goes_along_with_a_picture(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches a focus on a thumbnail that is out of sight, and one that is nowhere after a deletion."""
    page = visit(server, width, height)
    make_pictures(page, server, "a fox", "an owl", "a rose")
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
        assert tile_names(page) == left, answer
        expect(tiles.last).to_be_focused()
    page.fill("#gallery-search textarea, #gallery-search input", "rose")
    page.keyboard.press("Delete")
    expect(dialog).not_to_be_visible()


def test_a_question_right_after_another_has_its_own_answer(visit: Any, server: Program) -> None:
    """Catches the end of one question, of which the browser tells later, that is taken for the answer to the next: a
    yes that does nothing."""
    page = visit(server)
    make_pictures(page, server, "a fox", "an owl")
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
    assert tile_names(page) == ["a fox"]
