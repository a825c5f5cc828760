"""The fields: the bar that is always in sight, the plan, refusals at their field, sizes, the seed, keys, examples."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.browsing import EXAMPLES, FAST, PATIENCE_MS, fill_number, generate, needs_chromium, shoot, upload
from tests.support.running import Program
from tests.support.scripted import until
from uso.web.page.texts import EXAMPLES_FOLDER

pytestmark = [pytest.mark.slow, needs_chromium]

FOX = EXAMPLES_FOLDER / "drawn" / "fox.png"
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
    before and therefore not shown again; and one that stays when its field has changed."""
    page = visit(server, width, height)
    page.fill("#prompt textarea", "A fox")
    fill_number(page, "seed", "-7")
    page.click("#advanced button")  # folds it
    for again in (False, True):
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
        seed.click()
        expect(refusal).to_be_visible()
        if again:
            page.check("#random-seed input")
        else:
            seed.press("ArrowUp")
        expect(page.locator("#refusal, #message [role=alert]")).to_have_count(0)
        seed.fill("-7")
    fill_number(page, "seed", "-1")
    page.check("#keep input[type=checkbox]")
    page.click("#generate")
    expect(page.locator("#keep #refusal")).to_contain_text("needs a content image", timeout=PATIENCE_MS)
    assert focused(page) == "keep"
    if again:  # by what it asks for, not by the field itself
        upload(page, "content", FOX)
    else:
        page.uncheck("#keep input[type=checkbox]")
    expect(page.locator("#refusal, [aria-invalid], #message [role=alert]")).to_have_count(0)


def test_a_size_is_rounded_in_sight(visit: Any, server: Program) -> None:
    """Catches a size that is taken as typed and refused later, or changed without a word."""
    page = visit(server)
    width = page.locator("#width input").first
    for typed, becomes in (("150", "144"), ("9999", "256"), ("3", "128")):
        width.fill(typed)
        width.press("Tab")
        expect(width).to_have_value(becomes)
        words = f"{typed} became {becomes}: a multiple of 16 from 128 to 256."
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


def sides(page: Page) -> list[str]:
    return [page.locator(f"#{side} input").first.input_value() for side in ("width", "height")]


def test_shapes_swap_and_the_size_of_the_content_image(visit: Any, server: Program, picture_file: Any) -> None:
    """Catches a shape that does not follow the sliders, sliders that show a size which is not made, and a size of one's
    own that is lost to "Keep input size"."""
    page = visit(server)
    chosen = page.locator("#aspect label:has(:checked)")
    expect(chosen).to_have_text("1:1")
    page.locator("#aspect label", has_text="3:2").click()
    until(lambda: sides(page) == ["192", "128"])
    page.click("#swap")
    until(lambda: sides(page) == ["128", "192"])
    expect(chosen).to_have_text("2:3")
    fill_number(page, "width", "160")
    expect(chosen).to_have_count(0)
    page.locator("#aspect label", has_text="4:3").click()
    until(lambda: sides(page) == ["192", "144"])
    upload(page, "content", picture_file("wide.png", 300, 200))
    page.check("#keep input[type=checkbox]")
    until(lambda: sides(page) == ["256", "176"])
    expect(page.locator("#width input").first).to_be_disabled()
    expect(page.locator("#aspect")).not_to_be_visible()
    shoot(page, "kept-size")
    page.uncheck("#keep input[type=checkbox]")
    until(lambda: sides(page) == ["192", "144"])
    expect(page.locator("#width input").first).to_be_enabled()


def test_the_plan_and_the_tokens_follow_what_is_typed(visit: Any, server: Program) -> None:
    """Catches a picture of nothing, a plan of a moment ago, and a prompt that waits only to be too long."""
    page = visit(server)
    waiting: list[Any] = []
    plan, tokens = page.locator("#plan"), page.locator("#tokens")
    expect(plan).to_contain_text("Nothing to draw yet: write a prompt or add an image.")
    page.click("#generate")
    expect(page.locator("#prompt #refusal")).to_contain_text("Nothing to draw yet", timeout=PATIENCE_MS)
    assert focused(page) == "prompt"
    page.route("**/gradio_api/run/**", lambda route: waiting.append(route))
    page.keyboard.type("A fox")
    expect(page.locator("#message [role=alert]")).to_have_count(0)
    until(lambda: bool(page.wait_for_timeout(50) or waiting))  # it lets the page ask
    expect(plan.locator(".uso-nothing")).to_have_count(1)
    expect(plan.locator(".uso-nothing")).not_to_be_visible()
    page.unroute_all()  # what waits goes on
    expect(plan).to_contain_text("A picture from the prompt alone.", timeout=PATIENCE_MS)
    expect(tokens).to_contain_text("of 32 tokens", timeout=PATIENCE_MS)
    page.fill("#prompt textarea", "fox " * 60)
    expect(tokens).to_contain_text("shorten the prompt", timeout=PATIENCE_MS)
    page.click("#generate")
    expect(page.locator("#prompt #refusal")).to_contain_text("this model reads 32", timeout=PATIENCE_MS)


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_an_example_shows_what_it_fills_in_and_offers_to_run(
    visit: Any, server: Program, width: int, height: int
) -> None:
    """Catches a click that seems to do nothing, because all that it changes is a screen away."""
    page = visit(server, width, height, reduced_motion="reduce")
    page.locator("#examples button").nth(len(EXAMPLES) - 1).click()
    notice = page.locator("#filled")
    references = ["Content Reference", "Style Reference", "Extra Style Reference"]
    filled = ", ".join(["Prompt", *references])
    expect(notice).to_contain_text(f"Filled in: {filled}, and Seed.", timeout=PATIENCE_MS)
    run = notice.get_by_role("button", name="Generate now")
    for part in (notice, page.locator("#prompt"), run):
        expect(part).to_be_in_viewport(ratio=1)
    expect(run).to_be_focused()
    expect(page.locator("#references .uso-changed")).to_have_count(3)
    shoot(page, f"filled-{width}")
    expect(page.locator("#plan")).to_contain_text("in a mixture of both styles", timeout=PATIENCE_MS)
    before = len(server.pictures())
    run.press("Enter")
    until(lambda: len(server.pictures()) == before + 1)
    expect(notice).not_to_be_visible()
    page.locator("#examples button").first.click()
    emptied = re.compile("Filled in: Prompt.* Emptied: Content Reference, Style Reference, and Extra Style Reference.")
    expect(notice).to_contain_text(emptied, timeout=PATIENCE_MS)
    notice.get_by_role("button", name="Close").click()
    expect(notice).not_to_be_visible()


def test_what_is_filled_in_is_told_by_what_has_changed(visit: Any, server: Program, tmp_path: Path) -> None:
    """Catches a field in a folded part that is left out, one that is named though it is the same, and one that is no
    input."""
    page = visit(server)
    notice, example = page.locator("#filled"), page.locator("#examples button")
    fill_number(page, "steps", FAST)
    fill_number(page, "seed", "77")  # no example has this
    page.click("#advanced button")  # folds it
    example.nth(1).click()
    changed = "Filled in: Prompt, Content Reference, Number of steps, and Seed."
    expect(notice).to_contain_text(changed, timeout=PATIENCE_MS)
    shoot(page, "filled-folded")
    example.nth(1).click()
    expect(notice).to_contain_text("The fields hold all of this already.", timeout=PATIENCE_MS)
    page.click("#presets button >> nth=0")
    page.fill("#preset-name input", "mine")
    page.click("#preset-save")
    expect(page.locator("#preset-note")).to_contain_text("“mine” is saved.", timeout=PATIENCE_MS)
    page.fill("#prompt textarea", "")
    page.click("#preset input")
    page.locator("[role=option]", has_text="mine").click()
    expect(notice).to_contain_text(re.compile("Filled in: Prompt\\. *Generate"), timeout=PATIENCE_MS)
    page.fill("#prompt textarea", "A fox")
    fill_number(page, "seed", "-1")
    made = generate(page, server)
    page.click("#reuse-all")
    expect(notice).to_contain_text(re.compile("Filled in: Seed\\. *Generate"), timeout=PATIENCE_MS)
    page.click("#reuse-all")
    expect(notice).to_contain_text("The fields hold all of this already.", timeout=PATIENCE_MS)
    notice.get_by_role("button", name="Close").click()
    example.first.click()
    expect(notice).to_contain_text("Emptied: Content Reference.", timeout=PATIENCE_MS)
    notice.get_by_role("button", name="Close").click()
    page.click("#restore-frame button >> nth=0")
    page.set_input_files("#restore input[type=file]", made.path)
    expect(notice).to_contain_text("Filled in: Prompt, Content Reference, and Seed.", timeout=PATIENCE_MS)
    notice.get_by_role("button", name="Close").click()
    page.locator("#restore button[aria-label]:not(:has(input))").click()
    page.set_input_files("#restore input[type=file]", FOX)
    expect(page.locator("#restored [role=alert]")).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_timeout(300)
    expect(notice).not_to_be_visible()  # it was refused: nothing was filled in


def test_the_seed_is_random_until_somebody_says_otherwise(visit: Any, server: Program) -> None:
    """Catches a Repeat that pins the seed in silence, a Remix that makes the same picture, and a switch that does not
    follow the field."""
    page = visit(server)
    page.fill("#prompt textarea", "A fox")
    fill_number(page, "steps", FAST)
    first = generate(page, server).values()["seed"]
    seed, random, plan = page.locator("#seed input"), page.locator("#random-seed input"), page.locator("#plan")
    expect(page.locator("#last-seed")).to_have_text(f"The picture shown has the seed {first}.")
    expect(random).to_be_checked()
    random.uncheck()
    expect(seed).to_have_value(str(first))
    expect(plan).to_contain_text(f"Seed {first}, not a random one.", timeout=PATIENCE_MS)
    random.check()
    expect(seed).to_have_value("-1")
    expect(plan).not_to_contain_text("Seed", timeout=PATIENCE_MS)
    page.fill("#prompt textarea", "An owl")
    page.click("#reuse-all")
    expect(page.locator("#prompt textarea")).to_have_value("A fox", timeout=PATIENCE_MS)
    expect(seed).to_have_value(str(first))
    expect(random).not_to_be_checked()
    expect(page.locator("#filled")).to_contain_text("Prompt", timeout=PATIENCE_MS)
    shoot(page, "repeat")
    page.fill("#prompt textarea", "An owl")
    page.click("#remix")
    expect(page.locator("#prompt textarea")).to_have_value("A fox", timeout=PATIENCE_MS)
    expect(seed).to_have_value("-1")
    expect(random).to_be_checked()
    assert generate(page, server).values()["seed"] != first
