"""The real page in a real browser: the server in a process of its own, the demo model, Chromium.

Every test fails on an error in the page and on any request that leaves the server's origin. Without a Chromium on the
machine the tests are skipped; where CI is set they must run.
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
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.scripted import until
from uso import output
from uso.config import ROOT
from uso.web.texts import EXAMPLES, EXAMPLES_FOLDER

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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

    def __init__(self, folder: Path) -> None:
        self.outputs = folder / "outputs"
        self.log = folder / "log"
        command = [sys.executable, str(ROOT / "app.py"), "--model", "demo", "--device", "cpu", "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--output", str(self.outputs)], cwd=folder, stdout=log, stderr=subprocess.STDOUT
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
    """`visit(server, width, height)` opens the page; what went wrong in it fails the test at its end."""
    pages: list[Page] = []
    wrong: list[str] = []

    def open_page(server: Server, width: int = 1440, height: int = 1000) -> Page:
        page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(f"error in the page: {error}"))
        page.on(
            "response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
        )

        def watch(request: Any) -> None:
            if not request.url.startswith((f"{server.url}/", "data:", "blob:")):
                wrong.append(f"request to the outside: {request.url}")

        page.on("request", watch)
        page.goto(server.url)
        # Buttons are there before they do anything; the state of the model changes when the page has come to life.
        expect(page.locator("#model-state")).not_to_contain_text("starting", timeout=PATIENCE_MS)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong, wrong


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
    choose_example(page, len(EXAMPLES) - 1)  # three pictures and the largest size: seconds, not milliseconds
    fill_number(page, "width", "384")
    fill_number(page, "height", "384")
    fill_number(page, "steps", "50")
    page.click("#generate")
    wait_for_step(page, 50)
    page.click("#stop")
    status = page.locator("#status")
    expect(status).to_contain_text("Stopped.", timeout=PATIENCE_MS)
    assert page.locator("#status [role=status][aria-live=polite]").count() == 1
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()
    assert server.pictures() == before


@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)])
def test_nothing_is_wider_than_the_screen(visit: Any, server: Server, width: int, height: int) -> None:
    """Catches a row that does not wrap on a phone."""
    page = visit(server, width, height)
    choose_example(page, len(EXAMPLES) - 1)  # opens Advanced as well
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_is_there_before_the_model_and_sigterm_ends_it_in_order(
    visit: Any, tmp_path: Path, server: Server
) -> None:
    """Catches a job that is lost because it came too early, and a process that an open tab keeps alive."""
    early = Server(tmp_path)
    try:
        page = visit(early)
        fill_number(page, "steps", "30")
        page.click("#generate")
        wait_for_step(page, 30)
        early.process.send_signal(signal.SIGTERM)
        expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
        early.process.wait(timeout=60)
        assert len(early.pictures()) == 1 and output.read(early.pictures()[0]).values()["num_inference_steps"] == 30
    finally:
        early.end()
    assert server.get("/healthz") == b'{"status":"alive"}'  # the other one is none the worse
