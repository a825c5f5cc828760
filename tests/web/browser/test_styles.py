"""Saved styles in the browser: saved, used, kept over a restart of the server, renamed, exported, deleted."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.browsing import (
    FAST,
    PATIENCE_MS,
    fill_number,
    generate,
    needs_chromium,
    shoot,
    upload,
    wait_for_life,
)
from tests.support.running import program
from uso import output

pytestmark = [pytest.mark.slow, needs_chromium]


def said(page: Page, words: str) -> None:
    expect(page.locator("#style-message")).to_contain_text(words, timeout=PATIENCE_MS)


def test_a_style_is_saved_used_kept_renamed_and_deleted(
    tmp_path: Path, picture_file: Callable[..., Path], browser: Browser
) -> None:
    """Catches a shelf that is empty after a restart, a style that makes another picture than its image, a mark
    on a style that no field holds, and a key of the page that leads nowhere. By keyboard where a click would do."""
    image = picture_file("ink.png", 100, 100, 3)
    with browser.new_context(viewport={"width": 1366, "height": 657}, accept_downloads=True) as context:
        page = context.new_page()
        with program(tmp_path) as server:
            server.wait_until("ready")
            page.goto(server.url)
            wait_for_life(page)
            page.fill("#prompt textarea", "A fox in the snow.")
            fill_number(page, "steps", FAST)
            fill_number(page, "seed", "5")
            expect(page.locator("#style-strength")).to_be_hidden()
            upload(page, "style", image)
            expect(page.locator("#style-strength")).to_be_visible()
            fill_number(page, "style-strength", "0.5")
            shoot(page, "strength")
            first = generate(page, server)
            assert output.read(first.path).values()["style_strengths"] == [0.5]
            page.locator("#styles > button").press("Enter")
            page.locator("#style-save").press("Enter")
            said(page, "A style needs a name")
            page.fill("#style-name input, #style-name textarea", "Ink 墨")
            expect(page.locator("#style-message")).not_to_contain_text("A style needs a name", timeout=PATIENCE_MS)
            page.locator("#style-save").press("Enter")
            said(page, "“Ink 墨” is saved.")
            shoot(page, "styles")
            port = server.port
        with program(tmp_path, port=port) as server:
            server.wait_until("ready")
            page.goto(server.url)
            wait_for_life(page)
            page.fill("#prompt textarea", "A fox in the snow.")
            fill_number(page, "steps", FAST)
            fill_number(page, "seed", "5")
            if not page.locator("#style-shelf").is_visible():
                page.locator("#styles > button").click()
            tile = page.locator("#style-shelf [data-style]", has_text="Ink 墨")
            page.locator("#style-shelf [data-manage]").press("Enter")
            said(page, "“Ink 墨” can be renamed, deleted and exported below.")
            expect(page.locator("#style-delete")).to_be_in_viewport()
            expect(page.locator("#style img")).to_have_count(0)
            expect(tile).not_to_have_attribute("aria-current", "true")
            tile.focus()
            page.keyboard.press("Enter")
            said(page, "“Ink 墨” is now the style.")
            expect(tile).to_have_attribute("aria-current", "true", timeout=PATIENCE_MS)
            expect(tile).to_be_focused()
            expect(page.locator("#style img")).to_have_attribute("src", re.compile("^data:image/webp"))
            expect(page.locator("#style-strength input").first).to_have_value("0.5")
            again = generate(page, server)
            assert pixels(again) == pixels(first)
            assert again.record["request"]["style_images"][0]["name"] == "Ink 墨.safetensors"
            page.fill("#style-name input, #style-name textarea", "Oil")
            page.click("#style-rename")
            said(page, "The style is now called “Oil”.")
            with page.expect_download() as coming:
                page.click("#style-export")
            coming.value.save_as(tmp_path / "oil.safetensors")
            for answer in ("no", "yes"):
                page.focus("#style-delete")
                page.keyboard.press("Enter")
                expect(page.get_by_role("dialog")).to_contain_text("Delete the style “Oil” for good?")
                page.focus(f"#confirm [value={answer}]")
                page.keyboard.press("Enter")
                if answer == "no":
                    expect(page.locator("#style-delete")).to_be_focused()
                    expect(page.locator("#style-shelf [data-style]")).to_have_count(1)
            said(page, "The style is deleted.")
            expect(page.locator("#style-shelf [data-style]")).to_have_count(0)
            expect(page.locator("#style-name").get_by_role("textbox")).to_be_focused()
            expect(page.locator("#style img")).to_have_count(0)  # it has left the field too
            page.set_input_files("#style-import input[type=file]", tmp_path / "oil.safetensors")
            said(page, "“Oil” is saved.")
            expect(page.locator("#style-shelf [data-style]")).to_have_count(1)
            shoot(page, "styles-imported")
        context.close()


def pixels(saved: output.SavedPicture) -> bytes:
    with Image.open(saved.path) as opened:
        return opened.tobytes()
