"""Presets in the browser: saved, shared as files, deleted, and brought back."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browsing import PATIENCE_MS, fill_number, needs_chromium
from tests.support.running import Program
from tests.support.scripted import until

pytestmark = [pytest.mark.slow, needs_chromium]


def test_presets_are_saved_shared_and_come_back(visit: Any, server: Program, tmp_path: Path) -> None:
    """Catches a preset that is lost on a reload, goes unasked or against an answer, fills in something else, or cannot
    be taken to another browser."""
    page = visit(server)
    page.fill("#prompt textarea", "a fox")
    fill_number(page, "steps", "3")
    page.click("#presets button >> nth=0")
    page.fill("#preset-name input", "foxes")
    page.click("#preset-save")
    expect(page.locator("#preset-note")).to_contain_text("“foxes” is saved.", timeout=PATIENCE_MS)
    with page.expect_download() as coming:
        page.click("#preset-export")
    coming.value.save_as(tmp_path / coming.value.suggested_filename)
    assert json.loads((tmp_path / "foxes.json").read_text())["fields"]["num_inference_steps"] == 3
    page.click("#preset-save")
    expect(page.locator("#preset-note")).to_contain_text("It is replaced.", timeout=PATIENCE_MS)
    for answer, said in (("no", "It is replaced."), ("yes", "“foxes” is deleted.")):
        page.focus("#preset-delete")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("Delete the preset “foxes” for good?")
        page.focus(f"#confirm [value={answer}]")
        page.keyboard.press("Enter")
        expect(page.locator("#preset-delete")).to_be_focused()
        expect(page.locator("#preset-note")).to_contain_text(said, timeout=PATIENCE_MS)
    page.click("#preset-save")
    expect(page.locator("#preset-note")).to_contain_text("“foxes” is saved.", timeout=PATIENCE_MS)
    expect(page.locator("#presets")).to_contain_text("Settings and prompt, without the images.")
    page.fill("#prompt textarea", "something else")
    page.reload()
    until(lambda: page.locator("#presets button").count() > 0)
    expect(page.locator("#history")).to_contain_text("Your pictures", timeout=PATIENCE_MS)
    page.click("#presets button >> nth=0")
    page.click("#preset input")
    page.locator("[role=option]", has_text="foxes").click()
    expect(page.locator("#prompt textarea")).to_have_value("a fox", timeout=PATIENCE_MS)
    other = visit(server)
    other.click("#presets button >> nth=0")
    for button in ("rename", "delete", "export"):
        other.fill("#preset-name input", " ")
        expect(other.locator("#preset-note")).not_to_contain_text("Choose")
        other.click(f"#preset-{button}")
        expect(other.locator("#preset-note")).to_contain_text("Choose a preset first", timeout=PATIENCE_MS)
        other.fill("#preset-name input", "")
    with other.expect_file_chooser() as chooser:
        other.click("#preset-import")
    chooser.value.set_files(tmp_path / "foxes.json")
    expect(other.locator("#preset-note")).to_contain_text("“foxes” is filled in.", timeout=PATIENCE_MS)
    expect(other.locator("#prompt textarea")).to_have_value("a fox")
    (tmp_path / "junk.json").write_text("[]")
    with other.expect_file_chooser() as chooser:
        other.click("#preset-import")
    chooser.value.set_files(tmp_path / "junk.json")
    expect(other.locator("#preset-note [role=alert]")).to_contain_text("no preset of USO", timeout=PATIENCE_MS)
