"""The page's events: what Generate, Stop and the checks of images change, over a pipeline that is a script."""

import asyncio
import json
import threading
from base64 import b64decode
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from tests.support.scripted import PATIENCE, Script, ledger_of, queue_of, submit, until
from tests.support.visitor import ANN, BEN, visitor
from uso import output
from uso.config import ModelConfig
from uso.errors import MissingWeightsError
from uso.images import open_image
from uso.web.access.identity import asker_of
from uso.web.api.calls import Calls, Inputs, request_from
from uso.web.jobs.queue import JobQueue
from uso.web.page.events import FORGET, LATER_TICK_SECONDS, TICK_SECONDS, Events, Shown
from uso.web.page.scripts import RENDERED
from uso.web.settings import ServerSettings


def all_shown(events: Events, inputs: Inputs, job_id: Any = None) -> list[Shown]:
    async def collect() -> list[Shown]:
        return [shown async for shown in events.run(job_id, visitor(), *inputs)]

    return asyncio.run(collect())


def unchanged(shown: Shown, *but: str) -> bool:
    """Whether a picture of the page's changes changes nothing but these fields."""
    return all(value == gr.skip() for name, value in shown._asdict().items() if name not in but)


# Jobs.


def test_generate_shows_the_picture_and_what_was_used(events: Events, queue: JobQueue, tmp_path: Path) -> None:
    """Catches a picture that is re-encoded on its way, buttons that stay locked, a seed that is not the real one."""
    queue.start()
    shown = all_shown(events, Inputs(prompt="a <fox>", seed=5, num_inference_steps=2))
    assert shown[0].generate["interactive"] is False and shown[0].stop["interactive"] is True
    assert shown[0].job_id == shown[0].memory and len(shown[0].job_id) == 32
    done = shown[-1]
    saved = next((tmp_path / "outputs").glob("*.png"))
    assert Path(done.picture).read_bytes() == saved.read_bytes() and done.download["value"] == done.picture
    assert Path(done.picture).parent != saved.parent  # what is handed out is a copy under a name nobody guesses
    assert "<dd>5</dd>" in done.facts and "128 × 128" in done.facts and "Done." in done.status
    assert done.actions["visible"] is True and "<dd>a &lt;fox&gt;</dd>" in done.settings
    assert done.generate["interactive"] is True and done.stop["interactive"] is False and done.preview == ""
    assert done.job_id == "" and done.memory == shown[0].job_id  # a reload of the tab shows the picture again
    assert "Picture 1 of 1: a &lt;fox&gt;, seed 5" in done.history and 'aria-current="true"' in done.history
    assert output.read(saved).values()["prompt"] == "a <fox>"


def test_previews_are_sent_once_each_and_go_with_the_picture(
    demo_config: ModelConfig, settings: ServerSettings
) -> None:
    """Catches a preview that is sent again with every step, and one that stays over the finished picture."""
    script = Script(free=False)
    queue = queue_of(lambda on_progress: script, settings)
    events = Events(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()

    async def collect() -> list[Shown]:
        shown: list[Shown] = []
        async for one in events.run(None, visitor(), *Inputs(num_inference_steps=16)):
            shown.append(one)
            script.steps.release()
        return shown

    shown = asyncio.run(collect())
    previews = [one.preview for one in shown if one.preview != gr.skip()]
    assert previews[-1] == "" and 1 < len(previews) <= 8 and len(set(previews)) == len(previews)
    words = [one.status for one in shown if one.status != gr.skip()]
    assert all(first != second for first, second in pairwise(words))
    queue.close()


def test_a_refusal_changes_nothing_but_the_status(events: Events) -> None:
    """Catches an error that clears what was typed, hides the last picture or locks a button."""
    (shown,) = all_shown(events, Inputs(width=500))
    assert "Width is 500" in shown.status and 'role="alert"' in shown.status
    assert unchanged(shown, "status")


def test_a_page_follows_one_job(events: Events, queue: JobQueue) -> None:
    """Catches Enter in the prompt that starts a second job behind the locked button, and a Generate that does nothing
    after a stream broke while its job goes on; another tab may have its own."""
    waiting = submit(queue, request_from(events.config, Inputs()), asker_of(visitor()))

    async def first() -> Shown:
        stream = events.run(waiting.id, visitor(), *Inputs())
        async with aclosing(stream):
            return await anext(stream)

    shown = asyncio.run(first())
    assert (shown.job_id, queue.status.waiting) == (waiting.id, 1)
    assert shown.generate["interactive"] is False and shown.stop["interactive"] is True
    queue.cancel(waiting.id)
    queue.start()
    assert "Done." in all_shown(events, Inputs(num_inference_steps=1), waiting.id)[-1].status


@pytest.mark.parametrize("at_work", [True, False])
def test_stop_reaches_the_job(demo_config: ModelConfig, settings: ServerSettings, at_work: bool) -> None:
    """Catches a Stop button that ends the stream but not the work, or that does nothing while the job waits."""
    script = Script(free=False)
    queue = queue_of(lambda on_progress: script, settings)
    events = Events(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    before = None if at_work else submit(queue, request_from(demo_config, Inputs()), asker_of(visitor()))
    until(lambda: at_work or script.seen)
    answers: list[Any] = []

    async def collect() -> list[Shown]:
        shown: list[Shown] = []
        async for one in events.run(None, visitor(), *Inputs(prompt="mine", num_inference_steps=40)):
            shown.append(one)
            if not answers and (not at_work or "mine" in script.seen):
                answers.append(events.stop(shown[0].job_id, visitor()))
                if at_work:
                    script.steps.release()
        return shown

    shown = asyncio.run(collect())
    assert answers == [gr.update(interactive=False, value="Stopping ...")]
    assert "Stopped." in shown[-1].status and shown[-1].stop["value"] == "Stop" and shown[-1].memory == FORGET
    assert not list(settings.output.glob("*.png")) and script.closed_early == (["mine"] if at_work else [])
    assert events.stop(None, visitor()) == events.stop("0" * 32, visitor()) == gr.skip()
    queue.close()
    if before is not None:
        script.steps.release(100)
        until(lambda: before.status.over)


def test_anothers_job_can_be_neither_followed_nor_stopped(events: Events, queue: JobQueue) -> None:
    """Catches an id from a browser that is taken without a check of its owner: the ids live in the page."""
    hers = submit(queue, request_from(events.config, Inputs(prompt="a secret")), asker_of(visitor(ANN)))
    assert events.stop(hers.id, visitor(BEN)) == gr.skip() and hers.status.state == "queued"

    async def first() -> Shown:
        async with aclosing(events.run(hers.id, visitor(BEN), *Inputs())) as stream:
            return await anext(stream)

    shown = asyncio.run(first())
    assert shown.job_id not in (hers.id, gr.skip()) and queue.status.waiting == 2  # a job of his own
    assert not hers.followers
    stopping = gr.update(interactive=False, value="Stopping ...")
    assert events.stop(hers.id, visitor(ANN)) == stopping and hers.status.state == "cancelled"


@pytest.mark.parametrize("wrong", [7, ["a"], {"path": "/etc/passwd"}, "none", "../" * 10 + "ab", "0" * 32 + "\n"])
def test_what_is_no_job_id_starts_a_job_and_stops_none(events: Events, queue: JobQueue, wrong: Any) -> None:
    """Catches a value from a browser that fails Generate, or is looked up before it has the form of an id."""
    assert events.stop(wrong, visitor()) == gr.skip()
    queue.start()
    assert "Done." in all_shown(events, Inputs(num_inference_steps=1), wrong)[-1].status


# Images.


def test_a_look_at_the_images_tells_size_and_trouble(events: Events, upload: Any, uploads: Path) -> None:
    """Catches a size that differs from the one which is then used, and junk that is noticed only at the end."""

    def look(content: Any, style: Any, extra_style: Any, keep: bool) -> tuple[str, Any, Any]:
        return asyncio.run(events.check_images(content, style, extra_style, keep, visitor()))

    content = upload("wide.png", 640, 427)
    note, width, height = look(content, None, None, True)
    request = request_from(events.config, Inputs(content_image=content, keep_input_size=True))
    assert f"The picture will be {request.width} × {request.height}; the content image is 640 × 427." in note
    assert width["interactive"] is False and height["interactive"] is False
    assert look(content, None, None, False)[0] == ""
    assert "needs a content image" in look(None, None, None, True)[0]
    whole = (uploads / "wide.png").read_bytes()
    (uploads / "wide.png").write_bytes(whole[: len(whole) // 2])
    assert "the content image is 640 × 427" in look(content, content, content, True)[0]  # nothing is decoded
    (uploads / "junk.png").write_text("no picture")
    note = look(None, {"path": str(uploads / "junk.png"), "orig_name": "my <file>.png"}, None, False)[0]
    assert "my &lt;file&gt;.png is not a picture this program can read (try PNG, JPEG or WebP)." in note
    assert 'role="alert"' in note


def test_keep_input_size_keeps_to_the_size_that_a_model_draws_well(events: Events, upload: Any) -> None:
    """Catches 304 x 208 from a model that draws 128 x 128 well, and a note that says another size than is made."""
    content = upload("wide.png", 300, 200)
    note = asyncio.run(events.check_images(content, None, None, True, visitor()))[0]
    assert "The picture will be 128 × 80; the content image is 300 × 200." in note
    request = request_from(events.config, Inputs(content_image=content, keep_input_size=True))
    assert (request.width, request.height) == (128, 80)
    note = asyncio.run(events.check_images(upload("long.png", 300, 100), None, None, True, visitor()))[0]
    assert "Keep input size cannot keep 300 x 100: at most 128:64 (2 to 1) is supported." in note


@pytest.mark.parametrize(("name", "form"), [("a scan.tif", "TIFF"), ("x.png", "TIFF"), ("map.jp2", "JPEG2000")])
def test_what_browsers_cannot_show_gets_a_rendition(events: Events, uploads: Path, name: str, form: str) -> None:
    """Catches a broken picture in a field whose file is fine, and a rendition that replaces the file."""
    Image.new("RGB", (800, 400), (200, 40, 90)).save(uploads / name, form)
    value = {"path": str(uploads / name), "url": f"http://here/file={name}", "orig_name": name}
    found = json.loads(asyncio.run(events.renditions(None, value, None, visitor())))["urls"]
    assert list(found) == [value["path"]]
    shown = open_image(b64decode(found[value["path"]].removeprefix("data:image/webp;base64,")))
    assert shown.size == (384, 192)
    pixel: Any = shown.getpixel((100, 100))
    assert max(abs(one - other) for one, other in zip(pixel, (200, 40, 90), strict=True)) <= 4
    assert asyncio.run(events.renditions(value | {"mime_type": RENDERED}, None, None, visitor())) == gr.skip()  # once


def test_nothing_else_gets_a_rendition(events: Events, upload: Any, uploads: Path, tmp_path: Path) -> None:
    """Catches files decoded for nothing, an error for what is refused elsewhere, and a file of the server shown."""
    (uploads / "junk.tif").write_bytes(b"II*\0 no picture")
    Image.new("RGB", (16, 16)).save(tmp_path / "secret.tif")
    junk, secret = {"path": str(uploads / "junk.tif")}, {"path": str(tmp_path / "secret.tif")}
    assert asyncio.run(events.renditions(upload("wide.png", 64, 64), junk, secret, visitor())) == gr.skip()


# The model.


def test_the_page_unlocks_when_the_model_is_ready(
    demo_config: ModelConfig, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a timer that never stops, and a button that is given back while a job of this page runs."""
    go_on = threading.Event()

    def load(on_progress: Any) -> Script:
        on_progress("Loading <vae>", 0.5)
        assert go_on.wait(PATIENCE)
        return Script()

    queue = queue_of(load, settings)
    events = Events(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    until(lambda: queue.status.share == 0.5)
    state, button, timer = events.tick(None)
    assert "Loading the model: &lt;vae&gt;, 50%" in state and 'aria-valuenow="50"' in state
    assert button["value"] == "Generate when ready" and timer["active"] and timer["value"] == TICK_SECONDS
    monkeypatch.setattr(JobQueue, "loading_seconds", 60.0)
    assert events.tick(None)[2]["value"] == LATER_TICK_SECONDS
    assert "interactive" not in button  # it is free from the beginning
    go_on.set()
    until(lambda: queue.status.state == "ready")
    state, button, timer = events.tick(None)
    assert "Ready on CPU" in state and button["value"] == "Generate" and timer["active"] is False
    assert "interactive" not in button  # a job that a reload comes back to may have locked it in between
    queue.close()


def test_the_page_goes_on_looking_until_every_worker_is_ready(
    demo_config: ModelConfig, settings: ServerSettings
) -> None:
    """Catches "1 of 2 workers ready" that stays on the page for good."""
    go_on = threading.Event()

    def late(on_progress: Any) -> Script:
        assert go_on.wait(PATIENCE)
        return Script()

    queue = queue_of([lambda on_progress: Script(), late], settings)
    events = Events(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    until(lambda: queue.status.workers_ready == 1)
    state, button, timer = events.tick(None)
    assert "1 of 2 workers ready" in state and button["value"] == "Generate" and timer["active"]
    go_on.set()
    until(lambda: queue.status.workers_ready == 2)
    assert events.tick(None)[2]["active"] is False
    queue.close()


def test_a_failed_load_stays_with_its_remedy(demo_config: ModelConfig, settings: ServerSettings) -> None:
    """Catches a page that says that all is well, or nothing at all, when the weights are not there."""

    def load(on_progress: Any) -> Script:
        raise MissingWeightsError("Fetch them with `a command`.")

    queue = queue_of(load, settings)
    events = Events(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    until(lambda: queue.status.state == "failed")
    state, button, timer = events.tick(None)
    assert "Fetch them with <code>a command</code>." in state and 'role="alert"' in state
    assert button["interactive"] is False and not timer["active"]
    assert "interactive" not in events.tick("a job of this page")[1]
    queue.close()
