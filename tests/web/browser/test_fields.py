"""The fields: the bar that is always in sight, refusals at their field, sizes, keys."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browsing import FAST, PATIENCE_MS, fill_number, needs_chromium, shoot
from tests.support.running import Program
from tests.support.scripted import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser"), needs_chromium]

SCREENS = [(1440, 789), (1366, 657), (390, 844)]


def focused(page: Page) -> str:
    """Id of the field that has the focus."""
    found: str = page.evaluate("document.activeElement.closest('.block[id]')?.id || ''")
    return found


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_generate_stop_and_status_are_always_in_sight(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches a bar that scrolls away, or lies over the field that has the focus; a banner that takes half a screen."""
    page = visit(server, width, height)
    assert page.locator("#banner").bounding_box()["height"] < 50
    for place in (0, 300, 10**6):
        page.evaluate(f"scrollTo(0, {place})")
        for part in ("generate", "stop", "status"):
            expect(page.locator(f"#{part}")).to_be_in_viewport(ratio=1)
    shoot(page, f"bar-{width}")
    page.focus("#prompt textarea")
    bar = page.locator("#bar").bounding_box()["y"]
    for _ in range(25):
        page.keyboard.press("Tab")
        inside, bottom = page.evaluate(
            "[!!document.activeElement.closest('#bar'), document.activeElement.getBoundingClientRect().bottom]"
        )
        assert inside or bottom <= bar + 1, page.evaluate("document.activeElement.outerHTML")
    page.click("#banner summary")
    expect(page.locator("#banner details p").first).to_be_visible()


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_a_refusal_shows_at_its_field(visit: Any, server: Program, width: int, height: int) -> None:
    """Catches a refusal that has to be looked for: in a folded part of the page, under another field, or the same as
    before and therefore not shown again."""
    page = visit(server, width, height)
    fill_number(page, "seed", "-7")
    page.click("#advanced button")  # folds it
    for _ in range(2):
        page.click("#generate")
        refusal = page.locator("#seed #refusal")
        expect(refusal).to_contain_text("Seed is -7; 0 to 4294967295 is allowed", timeout=PATIENCE_MS)
        expect(refusal).to_be_in_viewport(ratio=1, timeout=PATIENCE_MS)
        seed = page.locator("#seed input")
        expect(seed).to_have_attribute("aria-invalid", "true")
        expect(seed).to_have_accessible_description(refusal.inner_text())
        assert focused(page) == "seed"
        expect(page.locator("#message [role=alert]")).to_be_in_viewport(ratio=1)
        shoot(page, f"refused-at-the-field-{width}")
        seed.press("ArrowUp")
        expect(page.locator("#refusal")).to_have_count(0)
        seed.fill("-7")
    fill_number(page, "seed", "-1")
    page.check("#keep input[type=checkbox]")
    page.click("#generate")
    expect(page.locator("#keep #refusal")).to_contain_text("needs a content image", timeout=PATIENCE_MS)
    assert focused(page) == "keep"
    page.uncheck("#keep input[type=checkbox]")
    expect(page.locator("#refusal, [aria-invalid]")).to_have_count(0)


def test_a_size_is_rounded_in_sight(visit: Any, server: Program) -> None:
    """Catches a size that is taken as typed and refused later, or changed without a word."""
    page = visit(server)
    width = page.locator("#width input").first
    for typed, becomes in (("150", "144"), ("9999", "384"), ("3", "128")):
        width.fill(typed)
        width.press("Tab")
        expect(width).to_have_value(becomes)
        words = f"{typed} became {becomes}: a multiple of 16 from 128 to 384."
        expect(page.locator("#width [role=status]")).to_have_text(words)
    shoot(page, "rounded")
    width.press("ArrowUp")
    expect(page.locator("#width [role=status]")).to_have_count(0)


def test_control_and_enter_generate_what_was_just_typed(visit: Any, server: Program) -> None:
    """Catches a key that does nothing, and a number that takes effect one picture too late."""
    page = visit(server)
    expect(page.locator("#generate")).to_have_attribute("aria-keyshortcuts", "Control+Enter")
    fill_number(page, "steps", FAST)
    before = len(server.pictures())
    page.fill("#prompt textarea", "A fox")
    page.press("#prompt textarea", "Control+Enter")
    until(lambda: len(server.pictures()) == before + 1)
    expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
    expect(page.locator("#prompt textarea")).to_have_value("A fox")
    expect(page.locator("#generate")).to_be_enabled(timeout=PATIENCE_MS)
    width = page.locator("#width input").first
    width.fill("150")
    width.press("Control+Enter")
    until(lambda: len(server.pictures()) == before + 2)
    expect(page.locator("#facts")).to_contain_text("144 × 128", timeout=PATIENCE_MS)
