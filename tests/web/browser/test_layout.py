"""What people see and reach: every screen width, fullscreen, the keyboard, axe."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.axe import faults_in_both_themes
from tests.support.browsing import (
    EXAMPLES,
    FAST,
    PATIENCE_MS,
    choose_example,
    fill_number,
    generate,
    make_it_last,
    needs_chromium,
    shoot,
)
from tests.support.running import Program

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_in_fullscreen_there_is_the_picture_alone(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches a page that lies over the picture it was asked to show large."""
    page = visit(server, width, height)
    fill_number(page, "steps", FAST)
    generate(page, server)
    page.locator("#picture").get_by_label("Fullscreen").click() if width == 390 else page.click("#picture img")
    page.wait_for_selector("#stage .fullscreen", timeout=PATIENCE_MS)
    page.wait_for_function(  # it grows for a while
        """() => {
          for (let x = 10; x < innerWidth; x += 40) for (let y = 10; y < innerHeight; y += 40)
            if (!document.elementFromPoint(x, y)?.closest('#stage')) return false
          return true
        }""",
        timeout=PATIENCE_MS,
    )
    shoot(page, f"fullscreen-{width}")


def test_a_phone_shows_the_result_and_keeps_the_buttons(visit: Any, server: Program) -> None:
    """Catches a result that has to be scrolled for, and a Stop button that is out of reach while it is looked at."""
    page = visit(server, 390, 844)
    make_it_last(page)
    page.evaluate("scrollTo(0, 0)")
    page.click("#generate")
    page.wait_for_selector("#preview img", timeout=PATIENCE_MS)
    for field in ("stage", "status", "stop", "generate"):
        expect(page.locator(f"#{field}")).to_be_in_viewport(ratio=0.9, timeout=PATIENCE_MS)
    shoot(page, "phone")


@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)])
def test_axe_finds_nothing_of_ours(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches a field without a name, words too pale to read, roles that are not allowed; in every state."""
    page = visit(server, width, height)
    assert faults_in_both_themes(page, f"idle-{width}") == []
    page.fill("#prompt textarea", "A fox")
    fill_number(page, "steps", FAST)
    generate(page, server)  # what is said of it stands below the next one's preview
    choose_example(page, len(EXAMPLES) - 1)
    fill_number(page, "steps", "50")  # for as long as axe takes
    page.click("#generate")
    page.wait_for_selector("#preview img", timeout=PATIENCE_MS)
    assert faults_in_both_themes(page, f"preview-{width}") == []
    expect(page.locator("#stop")).to_be_enabled()
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Stopped.", timeout=PATIENCE_MS)
    fill_number(page, "steps", FAST)
    generate(page, server)
    for frame in ("restore-frame", "settings-frame"):
        page.click(f"#{frame} button >> nth=0")
    page.check("#keep input[type=checkbox]")
    expect(page.locator("#note")).to_contain_text("The picture will be", timeout=PATIENCE_MS)
    assert faults_in_both_themes(page, f"done-{width}") == []
    fill_number(page, "seed", "-7")
    page.click("#generate")
    expect(page.locator("#message [role=alert]")).to_be_visible(timeout=PATIENCE_MS)
    assert faults_in_both_themes(page, f"refused-{width}") == []


def test_the_keyboard_reaches_everything_in_order(visit: Any, server: Program) -> None:
    """Catches a control that Tab passes by, an order that jumps, and a place that cannot be seen."""
    page = visit(server)
    fill_number(page, "steps", FAST)
    generate(page, server)
    page.focus("#prompt textarea")
    names: list[str] = []
    unseen: list[str] = []
    look = """() => {
      const one = document.activeElement, style = getComputedStyle(one)
      const seen = parseFloat(style.outlineWidth) > 0 && style.outlineStyle !== 'none' || style.boxShadow !== 'none'
      return [one.closest('[id]:not([id^="range"]):not([id^="component"]):not([id^="html"])')?.id || '', seen]
    }"""
    for _ in range(120):
        name, seen = page.evaluate(look)
        if not names or names[-1] != name:
            names.append(name)
        if not seen:
            unseen.append(name)
        page.keyboard.press("Tab")
    wanted = ["prompt", "content", "style", "extra-style", "aspect", "swap", "width", "height", "keep", "advanced"]
    wanted += ["steps", "guidance", "content-size", "seed", "random-seed", "restore-frame", "generate", "download"]
    wanted += ["reuse-all", "remix", "reuse-seed", "use-content", "use-style", "favourite", "delete-picture"]
    wanted += ["settings-frame", "gallery-search", "gallery-choose", "gallery-favourites", "gallery", "examples"]
    assert list(dict.fromkeys(name for name in names if name in wanted)) == wanted  # Tab goes round
    assert not [name for name in unseen if name in wanted], unseen


@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)])
def test_nothing_is_wider_than_the_screen(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches a row that does not wrap on a phone."""
    page = visit(server, width, height)
    choose_example(page, len(EXAMPLES) - 1)  # opens Advanced as well
    assert page.evaluate("document.documentElement.scrollWidth") <= width
