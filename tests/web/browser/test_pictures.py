"""Making pictures in the browser: files in, picture and record out, and back again."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.browsing import (
    EXAMPLES,
    FAST,
    PATIENCE_MS,
    choose_example,
    fill_number,
    generate,
    needs_chromium,
    shoot,
    upload,
)
from tests.support.running import Program
from uso import output
from uso.web.page.texts import EXAMPLES_FOLDER

pytestmark = [pytest.mark.slow, needs_chromium]


def test_upload_generate_download_and_read_back(
    visit: Any, server: Program, picture_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Catches any break in the chain that people use: files in, picture and its record out."""
    page = visit(server)
    content, style = picture_file("wide.png", 300, 200, 1), picture_file("style.png", 200, 200, 2)
    page.fill("#prompt textarea", "Ein Fuchs & 狐 <b>")
    upload(page, "content", content)
    upload(page, "style", style)
    page.check("#keep input[type=checkbox]")
    expect(page.locator("#note")).to_contain_text("The picture will be 256 × 176; the content image is 300 × 200.")
    fill_number(page, "steps", "3")
    record = generate(page, server)
    with page.expect_download() as coming:
        page.click("#download")
    downloaded = tmp_path / coming.value.suggested_filename
    coming.value.save_as(downloaded)
    assert downloaded.name == record.path.name and downloaded.read_bytes() == record.path.read_bytes()
    values = output.read(downloaded).values()
    assert (values["prompt"], values["width"], values["height"]) == ("Ein Fuchs & 狐 <b>", 256, 176)
    assert values["num_inference_steps"] == 3 and values["keep_input_size"] is True
    hashes = {
        kind: [entry["sha256"] for entry in record.record["request"][kind]]
        for kind in ("content_images", "style_images")
    }
    assert hashes == {
        "content_images": [sha256(content.read_bytes()).hexdigest()],
        "style_images": [sha256(style.read_bytes()).hexdigest()],
    }
    facts = page.locator("#facts").inner_text()
    assert str(values["seed"]) in facts and "256 × 176" in facts
    assert page.locator("#picture img").evaluate("image => image.naturalWidth") == 256


@pytest.mark.parametrize(("name", "form"), [("a scan.tif", "TIFF"), ("map.jp2", "JPEG2000")])
def test_a_file_that_browsers_cannot_show_is_shown(
    visit: Any, server: Program, tmp_path: Path, name: str, form: str
) -> None:
    """Catches a broken picture in a field, and a thumbnail that is used in place of the file."""
    page = visit(server)
    path = tmp_path / name
    with Image.open(EXAMPLES_FOLDER / "drawn" / "fox.png") as fox:
        fox.convert("RGB").resize((600, 300)).save(path, form)
    for field in ("content", "extra-style"):
        page.set_input_files(f"#{field} input[type=file]", path)
        shown = f"document.querySelector('#{field} img')?.naturalWidth === 384"
        page.wait_for_function(shown, timeout=PATIENCE_MS)
    shoot(page, f"rendition-{form}")
    fill_number(page, "steps", FAST)
    request = generate(page, server).record["request"]
    original = {"sha256": sha256(path.read_bytes()).hexdigest(), "name": name}
    assert request["content_images"] == request["style_images"] == [original]
    page.get_by_label("Remove Image").first.click()
    expect(page.locator("#content img")).to_have_count(0)
    assert generate(page, server).record["request"]["content_images"] == []
    page.set_input_files("#content input[type=file]", path)
    page.wait_for_function("document.querySelector('#content img')?.naturalWidth === 384", timeout=PATIENCE_MS)


def test_a_page_at_rest_asks_nothing(visit: Any, server: Program, tmp_path: Path) -> None:
    """Catches an event that changes a field, whose change is that event again, and events that repeat each other when
    several fields change at once: calls without end, then 429. And Gradio's hidden clocks, which draw frame after frame
    where nothing moves."""
    page = visit(server)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    Image.new("RGB", (300, 200), (200, 90, 40)).save(tmp_path / "a.tif")
    upload(page, "content", tmp_path / "a.tif")
    upload(page, "style", EXAMPLES_FOLDER / "drawn" / "fox.png")
    page.wait_for_function("document.querySelector('#content img')?.naturalWidth === 300", timeout=PATIENCE_MS)
    expect(page.locator("#model-state")).to_contain_text("Ready on CPU", timeout=PATIENCE_MS)
    for fill_more in (True, False):
        page.wait_for_timeout(3000)
        asked.clear()
        page.evaluate("usoFrames = 0")
        page.wait_for_timeout(3000)
        assert asked == [] and page.evaluate("usoFrames") < 30
        if fill_more:
            choose_example(page, len(EXAMPLES) - 1)


def test_every_mode_through_its_example(visit: Any, server: Program) -> None:
    """Catches an example that leaves fields of the one before, and a mode that does not run from the page.

    Backwards: from the one with the most pictures to the one with none."""
    page = visit(server)
    for index in reversed(range(len(EXAMPLES))):
        example = EXAMPLES[index]
        choose_example(page, index)
        fill_number(page, "steps", FAST)
        request = generate(page, server).record["request"]
        names = [name for name in (example.content, example.style, example.extra_style) if name]
        given = [sha256((EXAMPLES_FOLDER / name).read_bytes()).hexdigest() for name in names]
        assert [entry["sha256"] for kind in ("content_images", "style_images") for entry in request[kind]] == given
        assert len(request["content_images"]) == bool(example.content) and request["prompt"] == example.prompt
        assert request["num_inference_steps"] == 2 and request["keep_input_size"] == example.keep_input_size


def test_a_seed_that_is_used_again_makes_the_same_picture(visit: Any, server: Program) -> None:
    """Catches a seed on the page that is not the one that was used."""
    page = visit(server)
    fill_number(page, "steps", FAST)
    first = generate(page, server)
    page.click("#reuse-seed")
    expect(page.locator("#seed input")).to_have_value(str(first.values()["seed"]))
    second = generate(page, server)
    assert first.path != second.path
    with Image.open(first.path) as one, Image.open(second.path) as other:
        assert one.tobytes() == other.tobytes()


def test_a_file_that_is_no_picture_is_refused_in_our_words(visit: Any, server: Program, tmp_path: Path) -> None:
    """Catches Gradio's own message, and a refusal that costs what was typed."""
    page = visit(server)
    (tmp_path / "junk.png").write_text("no picture")
    page.fill("#prompt textarea", "A fox")
    page.set_input_files("#style input[type=file]", tmp_path / "junk.png")
    sentence = "junk.png is not a picture this program can read (try PNG, JPEG or WebP)."
    expect(page.locator("#message [role=alert]")).to_have_text(sentence, timeout=PATIENCE_MS)
    expect(page.locator("#style img")).to_have_count(0, timeout=PATIENCE_MS)  # nothing counts it
    expect(page.locator("#prompt textarea")).to_have_value("A fox")
    expect(page.locator(".toast-body")).to_have_count(0)
    fill_number(page, "steps", FAST)
    assert generate(page, server).values()["prompt"] == "A fox"


def test_values_out_of_range_are_refused_in_our_words(visit: Any, server: Program) -> None:
    """Catches a size that is rounded in silence."""
    page = visit(server)
    page.fill("#prompt textarea", "A fox")
    fill_number(page, "seed", "-7")
    page.click("#generate")
    refusal = page.locator("#message [role=alert]")
    expect(refusal).to_contain_text("Seed is -7; 0 to 4294967295 is allowed", timeout=PATIENCE_MS)


def test_a_dropped_picture_brings_everything_back(
    visit: Any, server: Program, picture_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Catches a downloaded picture that cannot be made again from itself alone, and a refusal without words."""
    page = visit(server)
    page.fill("#prompt textarea", "Ein Fuchs")
    upload(page, "content", picture_file("wide.png", 300, 200, 1))
    fill_number(page, "steps", "3")
    first = generate(page, server)
    with page.expect_download() as coming:
        page.click("#download")
    coming.value.save_as(tmp_path / "mine.png")

    other = visit(server)
    other.click("#restore-frame button")
    other.set_input_files("#restore input[type=file]", tmp_path / "mine.png")
    expect(other.locator("#restored")).to_contain_text("The settings of mine.png are filled in.", timeout=PATIENCE_MS)
    expect(other.locator("#prompt textarea")).to_have_value("Ein Fuchs")
    expect(other.locator("#content img")).to_be_visible(timeout=PATIENCE_MS)
    shoot(other, "restored")
    other.click("#advanced button")
    expect(other.locator("#seed input")).to_have_value(str(first.values()["seed"]))
    expect(other.locator("#steps input").first).to_have_value("3")
    second = generate(other, server)
    with Image.open(first.path) as one, Image.open(second.path) as again:
        assert one.tobytes() == again.tobytes()
    other.locator("#restore button[aria-label]").first.click()
    other.set_input_files("#restore input[type=file]", picture_file("plain.png"))
    expect(other.locator("#restored [role=alert]")).to_contain_text("plain.png holds no request", timeout=PATIENCE_MS)
    expect(other.locator("#prompt textarea")).to_have_value("Ein Fuchs")


def test_a_picture_becomes_content_and_style(visit: Any, server: Program) -> None:
    """Catches a picture that arrives in the wrong place, or as another file."""
    page = visit(server)
    fill_number(page, "steps", FAST)
    first = generate(page, server)
    page.click("#use-content")
    expect(page.locator("#content img")).to_be_visible(timeout=PATIENCE_MS)
    for field in ("style", "extra-style"):
        expect(page.locator(f"#{field} img")).to_have_count(0)
        page.click("#use-style")
        expect(page.locator(f"#{field} img")).to_be_visible(timeout=PATIENCE_MS)
    shoot(page, "content-and-style")
    request = generate(page, server).record["request"]
    taken = [entry["sha256"] for kind in ("content_images", "style_images") for entry in request[kind]]
    assert taken == [sha256(first.path.read_bytes()).hexdigest()] * 3
