"""A job in the browser: progress, Stop, the queue, reloads, and what outlives the server."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browsing import (
    FAST,
    PATIENCE_MS,
    fill_number,
    generate,
    make_it_last,
    needs_chromium,
    shoot,
    wait_for_life,
    wait_for_step,
)
from tests.support.running import LONG, Program, program
from uso import output

pytestmark = [pytest.mark.slow, needs_chromium]


def test_progress_is_shown_and_stop_stops(visit: Any, server: Program) -> None:
    """Catches a page that is silent while it works, a Stop button that only looks like one, and a preview that goes
    with the job, or passes for a picture."""
    page = visit(server)
    fill_number(page, "steps", FAST)
    generate(page, server)
    before = server.pictures()
    make_it_last(page)
    page.click("#generate")
    page.wait_for_selector("#preview img", timeout=PATIENCE_MS)
    wait_for_step(page)
    expect(page.locator("#afterwards[inert]")).to_have_count(1)  # its buttons are about the picture before
    page.focus("#stop")
    page.keyboard.press("Enter")
    status = page.locator("#status")
    expect(status).to_contain_text("Stopped.", timeout=PATIENCE_MS)
    expect(page.locator("#stop")).to_have_text("Stop")
    expect(page.locator("#generate")).to_be_focused()
    shoot(page, "stopped")
    assert page.locator("#status [role=status][aria-live=polite]").count() == 1
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#preview figcaption")).to_contain_text("not finished")
    assert server.pictures() == before
    page.reload()
    wait_for_life(page)
    expect(page.locator("#preview figcaption")).to_contain_text("not finished", timeout=PATIENCE_MS)
    page.locator("#gallery [data-picture]").first.click()
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("[inert]")).to_have_count(0)
    expect(status).not_to_contain_text("No picture yet.")
    fill_number(page, "steps", FAST)
    page.click("#generate")
    expect(page.locator("#preview img")).to_have_count(0, timeout=PATIENCE_MS)
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE_MS)


def test_the_preview_lies_where_the_picture_will(visit: Any, server: Program) -> None:
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


def test_who_waits_sees_how_long_and_can_stop(visit: Any, server: Program) -> None:
    """Catches a Stop button that does nothing in the queue or stops the other tab's job, and waiting without a word."""
    first = visit(server)
    make_it_last(first)
    second = visit(server, context=first.context)
    make_it_last(second)
    first.click("#generate")
    wait_for_step(first)  # a step has been measured: there is a forecast
    second.click("#generate")
    waiting = re.compile(r"One picture is ahead of yours, about [0-9]+ s\.")
    expect(second.locator("#status")).to_contain_text(waiting, timeout=PATIENCE_MS)
    shoot(second, "waiting")
    second.click("#stop")
    expect(second.locator("#status")).to_contain_text("Stopped.", timeout=PATIENCE_MS)
    expect(second.locator("#generate")).to_be_enabled()
    expect(first.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)


def test_a_reload_comes_back_to_the_job(visit: Any, server: Program) -> None:
    """Catches a reload that loses the running job, its Stop button, or what was typed."""
    other, page = visit(server), visit(server)
    for one in (other, page):
        make_it_last(one)
    page.fill("#prompt textarea", "Still here")
    before = len(server.pictures())
    other.click("#generate")
    wait_for_step(other)
    page.click("#generate")
    expect(page.locator("#stop")).to_be_enabled(timeout=PATIENCE_MS)
    expect(page.locator("#status")).to_contain_text("ahead of yours", timeout=PATIENCE_MS)
    page.reload()
    wait_for_life(page)
    expect(page.locator("#stop")).to_be_enabled(timeout=PATIENCE_MS)
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#prompt textarea")).to_have_value("Still here")
    shoot(page, "reattached")
    wait_for_step(page)
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
    with program(tmp_path) as server:
        server.wait_until_built()
        page = visit(server)
        fill_number(page, "steps", FAST)
        seeds = []
        for prompt in ("A fox", "An owl"):
            page.fill("#prompt textarea", prompt)
            seeds.append(generate(page, server).values()["seed"])
        page.close()
    with program(tmp_path) as again:
        again.wait_until_built()
        page = visit(again, context=page.context)
        tiles = page.locator("#gallery [data-picture]")
        expect(tiles).to_have_count(2, timeout=PATIENCE_MS)
        expect(tiles.nth(1)).to_have_accessible_name(f"A fox, seed {seeds[0]}")
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


def test_the_page_is_there_before_the_model_and_sigterm_ends_it_in_order(
    visit: Any, tmp_path: Path, server: Program
) -> None:
    """Catches a job that is lost because it came too early, tokens that nobody counts then, a page that hears "Done."
    and cannot fetch the picture, and a process that an open tab keeps alive."""
    with program(tmp_path, fresh=True) as early:
        early.wait_until_built()
        page = visit(early)
        shoot(page, "loading")
        page.fill("#prompt textarea", "A fox")
        fill_number(page, "steps", "30")
        page.click("#generate")
        wait_for_step(page, 30)
        expect(page.locator("#tokens")).to_contain_text("of 32 tokens", timeout=PATIENCE_MS)
        early.process.send_signal(signal.SIGTERM)
        expect(page.locator("#status")).to_contain_text("Done.", timeout=PATIENCE_MS)
        page.wait_for_function("document.querySelector('#picture img')?.naturalWidth > 0", timeout=PATIENCE_MS)
        early.process.wait(timeout=LONG)
        assert len(early.pictures()) == 1 and output.read(early.pictures()[0]).values()["num_inference_steps"] == 30
    assert server.ask("/healthz").body == b'{"status":"alive"}'  # the other one is none the worse
