"""The real page in a real browser: the server in a process of its own, the demo model, Chromium.

Every test fails on an error in the page and on any request that leaves the server's origin. Without a Chromium on the
machine the tests are skipped; where CI is set they must run. `USO_SCREENSHOTS=FOLDER` keeps pictures of what they saw.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.support.scripted import until
from uso import output
from uso.config import ROOT
from uso.web.page import texts
from uso.web.page.texts import EXAMPLES_FOLDER

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EXAMPLES = texts.EXAMPLES["drawn"]
"""The demo's."""
PATIENCE_MS = 120_000
FAST = "2"
"""Steps of a picture whose looks do not matter."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="there is no Chromium on this machine"),
]


class Server:
    """`python app.py --model demo` with its own output folder; `url` is there once it listens."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.outputs = folder / "outputs"
        self.log = folder / "log"
        command = [sys.executable, str(ROOT / "app.py"), "--model", "demo", "--device", "cpu", "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--output", str(self.outputs), *flags], cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )
        until(lambda: self.process.poll() is not None or "USO is at" in self.log.read_text())
        found = re.search(r"USO is at (\S+)", self.log.read_text())
        assert found, self.log.read_text()
        self.url = found[1]

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            body: bytes = answer.read()
        return body

    def pictures(self) -> list[Path]:
        return sorted(self.outputs.glob("*.png"), key=lambda path: path.stat().st_mtime_ns)

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server, None, None]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def browser() -> Generator[Browser, None, None]:
    assert CHROMIUM is not None, "CI is set, and there is no Chromium: install one"
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Generator[Callable[..., Page], None, None]:
    """`visit(server, width, height)` opens the page; what went wrong in it fails the test at its end.

    Each in a browser of its own, unless `context` names one: then it is another tab of that."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_page(
        server: Server, width: int = 1440, height: int = 1000, context: BrowserContext | None = None, **options: Any
    ) -> Page:
        if context is None:
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, accept_downloads=True, **options)  # type: ignore[arg-type]
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error in the page: {error}"))
        page.on(
            "response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
        )

        def watch(request: Any) -> None:
            if not request.url.startswith((f"{server.url}/", "data:", "blob:")):
                wrong.append(f"request to the outside: {request.url}")

        page.on("request", watch)
        page.goto(server.url)
        wait_for_life(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong, wrong


def wait_for_life(page: Page) -> None:
    """Buttons are there before they do anything; the history comes from the server when the page has come to life."""
    expect(page.locator("#history")).to_contain_text("Your pictures", timeout=PATIENCE_MS)
    expect(page.locator("#model-state")).not_to_contain_text("starting", timeout=PATIENCE_MS)


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


def generate(page: Page, server: Server) -> output.SavedPicture:
    """Press Generate and wait for the picture; what its file records."""
    before = len(server.pictures())
    page.click("#generate")
    until(lambda: len(server.pictures()) > before, PATIENCE_MS / 1000)
    expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
    expect(page.locator("#generate")).to_be_enabled(timeout=PATIENCE_MS)
    return output.read(server.pictures()[-1])


def make_it_last(page: Page) -> None:
    """Fill in what takes seconds, not milliseconds: three pictures, the largest size, the most steps."""
    choose_example(page, len(EXAMPLES) - 1)
    for field, value in (("width", "384"), ("height", "384"), ("steps", "50")):
        fill_number(page, field, value)


def wait_for_step(page: Page, steps: int) -> None:
    """Until the page says that it is at a step; looks at every frame, for a step of the demo takes milliseconds."""
    words = f"document.querySelector('#status').innerText.match(/Step [0-9]+ of {steps}, about [0-9]+ s left/)"
    page.wait_for_function(words, timeout=PATIENCE_MS)


def test_upload_generate_download_and_read_back(
    visit: Any, server: Server, picture_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Catches any break in the chain that people use: files in, picture and its record out."""
    page = visit(server)
    content, style = picture_file("wide.png", 300, 200, 1), picture_file("style.png", 200, 200, 2)
    page.fill("#prompt textarea", "Ein Fuchs & 狐 <b>")
    upload(page, "content", content)
    upload(page, "style", style)
    page.check("#keep input[type=checkbox]")
    expect(page.locator("#note")).to_contain_text("The picture will be 304 × 208; the content image is 300 × 200.")
    fill_number(page, "steps", "3")
    record = generate(page, server)
    with page.expect_download() as coming:
        page.click("#download")
    downloaded = tmp_path / coming.value.suggested_filename
    coming.value.save_as(downloaded)
    assert downloaded.name == record.path.name and downloaded.read_bytes() == record.path.read_bytes()
    values = output.read(downloaded).values()
    assert (values["prompt"], values["width"], values["height"]) == ("Ein Fuchs & 狐 <b>", 304, 208)
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
    assert str(values["seed"]) in facts and "304 × 208" in facts
    assert page.locator("#picture img").evaluate("image => image.naturalWidth") == 304


def test_every_mode_through_its_example(visit: Any, server: Server) -> None:
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


def test_a_seed_that_is_used_again_makes_the_same_picture(visit: Any, server: Server) -> None:
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


def test_a_file_that_is_no_picture_is_refused_in_our_words(visit: Any, server: Server, tmp_path: Path) -> None:
    """Catches Gradio's own message, and a refusal that costs what was typed."""
    page = visit(server)
    (tmp_path / "junk.png").write_text("no picture")
    page.fill("#prompt textarea", "A fox")
    page.set_input_files("#style input[type=file]", tmp_path / "junk.png")
    sentence = "junk.png is not a picture this program can read (try PNG, JPEG or WebP)."
    expect(page.locator("#note [role=alert]")).to_have_text(sentence, timeout=PATIENCE_MS)
    page.click("#generate")
    expect(page.locator("#status [role=alert]")).to_have_text(sentence, timeout=PATIENCE_MS)
    expect(page.locator("#prompt textarea")).to_have_value("A fox")
    expect(page.locator(".toast-body")).to_have_count(0)
    page.locator("#style button[aria-label]").first.click()
    fill_number(page, "steps", FAST)
    assert generate(page, server).values()["prompt"] == "A fox"


def test_values_out_of_range_are_refused_in_our_words(visit: Any, server: Server) -> None:
    """Catches a size that is rounded in silence."""
    page = visit(server)
    fill_number(page, "seed", "-7")
    page.click("#generate")
    refusal = page.locator("#status [role=alert]")
    expect(refusal).to_contain_text("Seed is -7; 0 to 4294967295 is allowed", timeout=PATIENCE_MS)


def test_progress_is_shown_and_stop_stops(visit: Any, server: Server) -> None:
    """Catches a page that is silent while it works, and a Stop button that only looks like one."""
    page = visit(server)
    before = server.pictures()
    make_it_last(page)
    page.click("#generate")
    wait_for_step(page, 50)
    page.click("#stop")
    status = page.locator("#status")
    expect(status).to_contain_text("Stopped.", timeout=PATIENCE_MS)
    shoot(page, "stopped")
    assert page.locator("#status [role=status][aria-live=polite]").count() == 1
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#preview img")).to_have_count(0)
    assert server.pictures() == before


def test_the_preview_lies_where_the_picture_will(visit: Any, server: Server) -> None:
    """Catches a preview that is hidden, looks like the picture, has another place, or stays."""
    page = visit(server)
    make_it_last(page)
    fill_number(page, "height", "256")
    page.click("#generate")
    page.wait_for_selector("#preview img", timeout=PATIENCE_MS)
    shoot(page, "preview")
    expect(page.locator("#preview figcaption")).to_contain_text("Preview, step")
    expect(page.locator("#preview img")).to_have_attribute("src", re.compile("^data:image/webp"))
    where = "element => { const box = element.getBoundingClientRect(), stage = document.querySelector('#stage')"
    where += ".getBoundingClientRect(); return [box.x - stage.x, box.y - stage.y, box.width, box.height] }"
    preview = page.locator("#preview img").evaluate(where)
    expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
    expect(page.locator("#preview img")).to_have_count(0)
    picture = page.locator("#picture img").evaluate(where)
    assert all(abs(one - other) <= 2 for one, other in zip(preview, picture, strict=True)), (preview, picture)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_in_fullscreen_there_is_the_picture_alone(visit: Any, server: Server, width: int, height: int) -> None:
    """Catches a page that lies over the picture it was asked to show large."""
    page = visit(server, width, height)
    fill_number(page, "steps", FAST)
    generate(page, server)
    page.locator("#picture").get_by_label("Fullscreen").click()
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


def test_who_waits_sees_how_long_and_can_stop(visit: Any, server: Server) -> None:
    """Catches a Stop button that does nothing in the queue or stops the other tab's job, and waiting without a word."""
    first = visit(server)
    make_it_last(first)
    second = visit(server, context=first.context)
    make_it_last(second)
    first.click("#generate")
    wait_for_step(first, 50)  # a step has been measured: there is a forecast
    second.click("#generate")
    waiting = re.compile(r"One picture is ahead of yours, about [0-9]+ s\.")
    expect(second.locator("#status")).to_contain_text(waiting, timeout=PATIENCE_MS)
    shoot(second, "waiting")
    second.click("#stop")
    expect(second.locator("#status")).to_contain_text("Stopped.", timeout=PATIENCE_MS)
    expect(second.locator("#generate")).to_be_enabled()
    expect(first.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)


def test_a_reload_comes_back_to_the_job(visit: Any, server: Server) -> None:
    """Catches a reload that loses the running job, its Stop button, or what was typed."""
    other, page = visit(server), visit(server)
    for one in (other, page):
        make_it_last(one)
    page.fill("#prompt textarea", "Still here")
    before = len(server.pictures())
    other.click("#generate")
    wait_for_step(other, 50)
    page.click("#generate")
    expect(page.locator("#stop")).to_be_enabled(timeout=PATIENCE_MS)
    expect(page.locator("#status")).to_contain_text("ahead of yours", timeout=PATIENCE_MS)
    page.reload()
    wait_for_life(page)
    expect(page.locator("#stop")).to_be_enabled(timeout=PATIENCE_MS)
    expect(page.locator("#generate")).to_be_disabled()
    expect(page.locator("#prompt textarea")).to_have_value("Still here")
    shoot(page, "reattached")
    wait_for_step(page, 50)
    expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
    expect(page.locator("#picture img")).to_be_visible()
    assert len(server.pictures()) == before + 2
    page.reload()
    wait_for_life(page)
    expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
    expect(page.locator("#picture img")).to_be_visible()  # what was done meanwhile is shown as well
    expect(page.locator("#generate")).to_be_enabled()


def test_the_history_outlives_the_server(visit: Any, tmp_path: Path) -> None:
    """Catches pictures that are lost to their maker with the process, or shown to another browser."""
    server = Server(tmp_path)
    try:
        page = visit(server)
        fill_number(page, "steps", FAST)
        seeds = []
        for prompt in ("A fox", "An owl"):
            page.fill("#prompt textarea", prompt)
            seeds.append(generate(page, server).values()["seed"])
        page.close()
    finally:
        server.end()
    again = Server(tmp_path)
    try:
        page = visit(again, context=page.context)
        tiles = page.locator("#history button")
        expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
        expect(tiles.nth(1)).to_have_accessible_name(f"Picture 2 of 2: A fox, seed {seeds[0]}")
        tiles.nth(1).click()
        expect(page.locator("#facts")).to_contain_text(str(seeds[0]), timeout=PATIENCE_MS)
        expect(page.locator("#picture img")).to_be_visible()
        expect(tiles.nth(1)).to_have_attribute("aria-current", "true")
        page.click("#reuse-all")
        expect(page.locator("#prompt textarea")).to_have_value("A fox", timeout=PATIENCE_MS)
        expect(page.locator("#seed input")).to_have_value(str(seeds[0]))
        shoot(page, "history")
        stranger = visit(again)
        expect(stranger.locator("#history")).to_contain_text("None yet.")
    finally:
        again.end()


def test_a_dropped_picture_brings_everything_back(
    visit: Any, server: Server, picture_file: Callable[..., Path], tmp_path: Path
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


def test_a_picture_becomes_content_and_style(visit: Any, server: Server) -> None:
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


def test_a_phone_shows_the_result_and_keeps_the_buttons(visit: Any, server: Server) -> None:
    """Catches a result that has to be scrolled for, and a Stop button that is out of reach while it is looked at."""
    page = visit(server, 390, 844)
    make_it_last(page)
    page.evaluate("scrollTo(0, 0)")
    page.click("#generate")
    page.wait_for_selector("#preview img", timeout=PATIENCE_MS)
    for field in ("stage", "status", "stop", "generate"):
        expect(page.locator(f"#{field}")).to_be_in_viewport(ratio=0.9, timeout=PATIENCE_MS)
    shoot(page, "phone")


GRADIO_FAULTS = {
    ("aria-prohibited-attr", ".empty"): "the empty frame of an Image is a div with a label",
    ("image-redundant-alt", 'img[alt="Settings"]'): "the link to Gradio's settings says its name twice",
}
"""What axe finds in Gradio's own parts, which cannot be changed from here."""


def faults(page: Page) -> list[str]:
    """What axe finds in the page but for the above."""
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']} at {node['target']}: {node['html'][:200]}"
        for violation in found
        for node in violation["nodes"]
        if (violation["id"], *node["target"]) not in GRADIO_FAULTS
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)])
def test_axe_finds_nothing_of_ours(visit: Any, server: Server, scheme: str, width: int, height: int) -> None:
    """Catches a field without a name, words too pale to read, roles that are not allowed; in every state."""
    page = visit(server, width, height, color_scheme=scheme)
    assert faults(page) == []
    shoot(page, f"idle-{width}-{scheme}")
    make_it_last(page)
    page.click("#generate")
    page.wait_for_selector("#preview img", timeout=PATIENCE_MS)
    assert faults(page) == []
    expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
    for frame in ("restore-frame", "settings-frame"):
        page.click(f"#{frame} button >> nth=0")
    page.check("#keep input[type=checkbox]")
    expect(page.locator("#note")).to_contain_text("The picture will be", timeout=PATIENCE_MS)
    assert faults(page) == []
    shoot(page, f"done-{width}-{scheme}")
    fill_number(page, "seed", "-7")
    page.click("#generate")
    expect(page.locator("#status [role=alert]")).to_be_visible(timeout=PATIENCE_MS)
    assert faults(page) == []
    shoot(page, f"refused-{width}-{scheme}")


def test_the_keyboard_reaches_everything_in_order(visit: Any, server: Server) -> None:
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
    for _ in range(60):
        name, seen = page.evaluate(look)
        if not names or names[-1] != name:
            names.append(name)
        if not seen:
            unseen.append(name)
        page.keyboard.press("Tab")
    wanted = ["prompt", "content", "style", "extra-style", "width", "height", "keep", "generate", "advanced", "steps"]
    wanted += ["guidance", "content-size", "seed", "restore-frame", "download", "reuse-all", "reuse-seed"]
    wanted += ["use-content", "use-style", "settings-frame", "history", "examples"]
    assert list(dict.fromkeys(name for name in names if name in wanted)) == wanted  # Tab goes round
    assert not [name for name in unseen if name in wanted], unseen


@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)])
def test_nothing_is_wider_than_the_screen(visit: Any, server: Server, width: int, height: int) -> None:
    """Catches a row that does not wrap on a phone."""
    page = visit(server, width, height)
    choose_example(page, len(EXAMPLES) - 1)  # opens Advanced as well
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_is_there_before_the_model_and_sigterm_ends_it_in_order(
    visit: Any, tmp_path: Path, server: Server
) -> None:
    """Catches a job that is lost because it came too early, one whose page hears "Done." and cannot fetch the picture,
    and a process that an open tab keeps alive."""
    early = Server(tmp_path)
    try:
        page = visit(early)
        shoot(page, "loading")
        fill_number(page, "steps", "30")
        page.click("#generate")
        wait_for_step(page, 30)
        early.process.send_signal(signal.SIGTERM)
        expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
        page.wait_for_function("document.querySelector('#picture img')?.naturalWidth > 0", timeout=PATIENCE_MS)
        early.process.wait(timeout=60)
        assert len(early.pictures()) == 1 and output.read(early.pictures()[0]).values()["num_inference_steps"] == 30
    finally:
        early.end()
    assert server.get("/healthz") == b'{"status":"alive"}'  # the other one is none the worse
