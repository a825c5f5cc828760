"""The page in Chromium, worked as a person would: what tests in a browser share."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.support.pace import LASTING_STEPS
from tests.support.running import LONG, Program
from tests.support.scripted import until
from tools.stress.browsers import CHROMIUM, FLAGS
from uso import output
from uso.web.page import texts

EXAMPLES = texts.EXAMPLES["drawn"]
"""The demo's."""
PATIENCE_MS = LONG * 1000
TILES = "#gallery [data-picture]"
"""Pictures in the gallery."""
FAST = "2"
"""Steps of a picture whose looks do not matter."""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="there is no Chromium on this machine"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium. Close it before anything in this thread runs an event loop: Playwright's own runs until then."""
    assert CHROMIUM is not None, "CI is set, and there is no Chromium: install one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def wait_for_life(page: Page) -> None:
    """Buttons are there before they do anything; the history comes from the server when the page has come to life."""
    expect(page.locator("#history")).to_contain_text(re.compile("Your pictures|你的图片"), timeout=PATIENCE_MS)
    expect(page.locator("#model-state")).not_to_contain_text("starting", timeout=PATIENCE_MS)
    page.wait_for_function("Boolean(window.uso?.show)", timeout=PATIENCE_MS)


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page for people to look at, if they asked for it."""
    if folder := os.environ.get("USO_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")


def fill_number(page: Page, field: str, value: str) -> None:
    """Type a number and go on to the next field; again if the field, when it comes into sight, takes its old value."""
    place = page.locator(f"#{field} input").first
    if not place.is_visible():
        page.click("#advanced button")

    def typed() -> bool:
        place.fill(value)
        place.press("Tab")
        page.wait_for_timeout(200)
        return place.input_value() == value

    until(typed)


def choose_example(page: Page, index: int) -> None:
    """Click an example and wait until it has filled in all the fields."""
    example = EXAMPLES[index]
    fill_number(page, "steps", "1")  # no example has this
    page.locator("#examples button").nth(index).click()
    expect(page.locator("#steps input").first).to_have_value("8", timeout=PATIENCE_MS)
    expect(page.locator("#prompt textarea")).to_have_value(example.prompt)
    for field, name in (("content", example.content), ("style", example.style), ("extra-style", example.extra_style)):
        expect(page.locator(f"#{field} img")).to_have_count(1 if name else 0)


def upload(page: Page, field: str, path: Path) -> None:
    page.set_input_files(f"#{field} input[type=file]", path)
    expect(page.locator(f"#{field} img")).to_be_visible(timeout=PATIENCE_MS)


def generate(page: Page, server: Program) -> output.SavedPicture:
    """Press Generate and wait for the picture; what its file records. Of nothing, a fox is made."""
    prompt = page.locator("#prompt textarea")
    if not prompt.input_value() and not page.locator("#references img").count():
        prompt.fill("A fox")
    before = len(server.pictures())
    page.click("#generate")
    until(lambda: len(server.pictures()) > before, PATIENCE_MS / 1000)
    expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
    expect(page.locator("#generate")).to_be_enabled(timeout=PATIENCE_MS)
    return output.read(server.pictures()[-1])


def hold_first(page: Page, wanted: Callable[[Any], bool]) -> list[Route]:
    """Keep the first of the page's calls that is wanted from the server, until somebody continues it: it is the one in
    the list once it has been made.

    Args:
        wanted: of a call's body.
    """
    late: list[Route] = []

    def hold(route: Route) -> None:
        if late or not wanted(route.request.post_data_json or {}):
            route.continue_()
        else:
            late.append(route)

    page.route("**/gradio_api/run/**", hold)
    return late


def make_pictures(page: Page, server: Program, *prompts: str) -> None:
    """Make a picture of each prompt, and wait until the gallery lists it."""
    fill_number(page, "steps", FAST)
    for number, prompt in enumerate(prompts, page.locator(TILES).count() + 1):
        page.fill("#prompt textarea", prompt)
        generate(page, server)
        expect(page.locator(TILES)).to_have_count(number, timeout=PATIENCE_MS)


def tile_names(page: Page) -> list[str]:
    """Beginnings of what the tiles are called, in order."""
    return [name.split(",")[0] for name in page.locator(TILES).evaluate_all("all => all.map(one => one.ariaLabel)")]


def make_it_last(page: Page) -> None:
    """Fill in a picture that takes seconds, of a server that is paced."""
    page.fill("#prompt textarea", "A fox")
    fill_number(page, "steps", str(LASTING_STEPS))


def wait_for_step(page: Page, steps: int = LASTING_STEPS) -> None:
    """Until the page says that it is at a step; looks at every frame, for a step of the demo takes milliseconds."""
    words = f"document.querySelector('#status').innerText.match(/Step [0-9]+ of {steps}, about [0-9]+ s left/)"
    page.wait_for_function(words, timeout=PATIENCE_MS)
