"""The page in one process: what the fields are, what is said, what the buttons do, what is refused.

The pipeline is a script (the real model, and a real browser, are in tests/web/browser; pictures from before are in
test_history.py; what programs may call is in test_programs.py).
"""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import aclosing
from html import escape
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.support.scripted import PATIENCE, Script, until
from tests.support.visitor import visitor
from tools.demo.world.scenes import caption_words
from tools.demo.world.styles import STYLES
from uso import output
from uso.config import ExampleSet, ModelConfig, load_model_config
from uso.errors import ImageError, MissingWeightsError, RequestError
from uso.web.access.identity import asker_of
from uso.web.api.calls import Calls, Inputs, requested, uploaded
from uso.web.jobs.queue import JobQueue, JobStatus, ServerStatus
from uso.web.page import html
from uso.web.page.events import FORGET, LATER_TICK_SECONDS, TICK_SECONDS, Events, Shown
from uso.web.page.layout import build_page
from uso.web.page.texts import EXAMPLES, TIPS
from uso.web.server.app import build_app
from uso.web.settings import ServerSettings


def built(config: ModelConfig, queue: JobQueue) -> gr.Blocks:
    """The page, built in an event loop: Gradio makes one otherwise, and leaves it open."""

    async def build() -> gr.Blocks:
        return build_page(Calls(config, queue), "Because of the test.")

    return asyncio.run(build())


def served(config: ModelConfig, queue: JobQueue) -> TestClient:
    """The page and its routes, in an event loop as well; enter it to start the engine."""

    async def build() -> TestClient:
        return TestClient(build_app(queue, build_page(Calls(config, queue), "Because of the test.")))

    return asyncio.run(build())


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gradio's folder for what is uploaded; its table of all calls is off, as in `app.py` (its pandas code warns)."""
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def upload(uploads: Path, picture: Callable[..., Image.Image]) -> Callable[..., dict[str, Any]]:
    """`upload(name, width, height)`: an image as the browser names it after uploading."""

    def put(name: str = "image.png", width: int = 200, height: int = 150) -> dict[str, Any]:
        picture(width, height).save(uploads / name)
        return {"path": str(uploads / name), "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    return put


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    (tmp_path / "outputs").mkdir()
    return ServerSettings(output=tmp_path / "outputs")


@pytest.fixture
def queue(settings: ServerSettings, uploads: Path) -> Generator[JobQueue, None, None]:
    """An engine that has not started; the pipeline is a script."""
    made = JobQueue(lambda on_progress: Script(), settings)
    yield made
    made.close()


@pytest.fixture
def handlers(queue: JobQueue, demo_config: ModelConfig) -> Events:
    return Events(Calls(demo_config, queue))


def fields(page: gr.Blocks) -> dict[str, Any]:
    return {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}


def all_shown(handlers: Events, inputs: Inputs, job_id: str | None = None) -> list[Shown]:
    async def collect() -> list[Shown]:
        return [shown async for shown in handlers.run(job_id, visitor(), *inputs)]

    return asyncio.run(collect())


def unchanged(shown: Shown, *but: str) -> bool:
    """Whether a picture of the page's changes changes nothing but these fields."""
    return all(value == gr.skip() for name, value in shown._asdict().items() if name not in but)


# The fields and the words.


@pytest.mark.parametrize("name", ["demo", "flux-dev", "flux-schnell"])
def test_ranges_and_defaults_are_the_models(name: str, queue: JobQueue) -> None:
    """Catches a number that is written into the page instead of taken from the configuration."""
    config = load_model_config(name)
    found = fields(built(config, queue))
    limits, defaults = config.limits, config.defaults
    for elem_id, minimum, maximum, value, step in (
        ("width", limits.min_size, limits.max_size, defaults.width, 16),
        ("height", limits.min_size, limits.max_size, defaults.height, 16),
        ("steps", 1, limits.max_steps, defaults.num_inference_steps, 1),
        ("guidance", limits.min_guidance, limits.max_guidance, defaults.guidance_scale, 0.1),
        ("content-size", limits.min_content_size, limits.max_content_size, defaults.content_size, 16),
        ("seed", -1, 2**32 - 1, -1, 1),
    ):
        field = found[elem_id]
        assert (field.minimum, field.maximum, field.value, field.step) == (minimum, maximum, value, step), elem_id
    assert found["guidance"].interactive == config.guidance
    assert config.guidance or "takes no guidance" in found["guidance"].info


def test_labels_are_the_tutorials(queue: JobQueue, demo_config: ModelConfig) -> None:
    """Catches a field that was renamed or lost."""
    labels = {block.label for block in fields(built(demo_config, queue)).values() if hasattr(block, "label")}
    assert labels >= {
        "Prompt",
        "Content Reference",
        "Style Reference",
        "Extra Style Reference",
        "Generation Width",
        "Generation Height",
        "Keep input size",
        "Number of steps",
        "Guidance",
        "Content reference size",
        "Seed",
        "Advanced",
        "Restore from a picture",
        "Settings of this picture",
    }


def test_the_banner_says_which_model_runs_why_and_how_to_get_the_real_one() -> None:
    """Catches a demo that passes for the real thing, and markup in a reason that would be run."""
    demo = html.banner(load_model_config("demo"), "No GPU <here>.")
    assert "A miniature" in demo and "uso-loud" in demo and "No GPU &lt;here&gt;." in demo
    assert "python app.py --model flux-dev" in demo and "38 GB" in demo
    dev, schnell = (html.banner(load_model_config(name), "") for name in ("flux-dev", "flux-schnell"))
    assert "non-commercial purposes only" in dev and "uso-loud" not in dev and "app.py" not in dev
    assert "Experimental" in schnell and "non-commercial" not in schnell


def soon(seconds: float) -> float:
    """A moment that is `seconds` away; a little more, for the test takes time as well."""
    return time.monotonic() + seconds + 0.3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ahead": 2}, "2 pictures are ahead of yours."),
        ({"ahead": 2, "starts_at": 45}, "2 pictures are ahead of yours, about 45 s."),
        ({"ahead": 1, "starts_at": 200}, "One picture is ahead of yours, about 3 min."),
        ({"starts_at": 0}, "Your turn is next."),
        ({"state": "running", "stage": "condition"}, "Reading the prompt and the images ..."),
        (
            {"state": "running", "stage": "condition", "ends_at": 9},
            "Reading the prompt and the images, about 9 s left",
        ),
        ({"state": "running", "stage": "denoise", "step": 1, "num_steps": 25}, "Step 1 of 25"),
        (
            {"state": "running", "stage": "denoise", "step": 9, "num_steps": 25, "ends_at": 4},
            "Step 9 of 25, about 4 s left",
        ),
        (
            {"state": "running", "stage": "denoise", "step": 9, "num_steps": 25, "ends_at": 250},
            "Step 9 of 25, about 4 min left",
        ),
        ({"state": "running", "stage": "denoise", "step": 25, "num_steps": 25, "ends_at": -9}, "Step 25 of 25"),
        ({"state": "running", "stage": "decode"}, "Turning the result into pixels ..."),
        ({"state": "cancelled"}, "Stopped."),
        ({"state": "cancelled", "error": "The server is shutting down."}, "Stopped. The server is shutting down."),
        ({"state": "done"}, "Done."),
    ],
)
def test_a_job_says_where_it_is(values: dict[str, Any], words: str) -> None:
    """Catches a state without words, a forecast that is kept to itself, and a countdown of "0 s"."""
    moments = {name: soon(values[name]) for name in ("starts_at", "ends_at") if values.get(name)}
    status = JobStatus(**{**values, **moments})
    assert html.job_words(status, ServerStatus(state="ready")) == words


def test_a_waiting_job_says_that_the_model_loads() -> None:
    """Catches a page that looks stuck while the model loads."""
    loading = ServerStatus(state="loading", stage="Loading transformer", share=0.431)
    assert html.job_words(JobStatus(), loading) == "Waiting for the model (Loading transformer, 43%)."


def test_several_workers_are_counted() -> None:
    """Catches a server that seems to be as fast as it will be while half of its GPUs still load."""
    some = ServerStatus(state="ready", workers=2, workers_ready=1)
    assert "Ready on cuda, 1 of 2 workers ready<" in html.model_state(some, 3.0, "cuda")
    every = ServerStatus(state="ready", workers=2, workers_ready=2)
    assert "Ready on cuda, 2 workers<" in html.model_state(every, 3.0, "cuda")
    assert "worker" not in html.model_state(ServerStatus(state="ready", workers_ready=1), 3.0, "cuda")


def test_what_changes_many_times_a_second_is_not_read_out_each_time() -> None:
    """Catches a screen reader that is talked over by the steps, and one that is not told of the end."""
    running = JobStatus(state="running", stage="denoise", step=3, num_steps=25)
    assert 'aria-live="off"' in html.job_state(running, ServerStatus(state="ready"))
    assert "aria-live" not in html.job_state(JobStatus(state="done"), ServerStatus(state="ready"))
    waiting, loading = JobStatus(ahead=2, starts_at=soon(41.0)), ServerStatus(state="loading")
    assert 'aria-live="off"' in html.job_state(waiting, loading, moved=False)
    assert "aria-live" not in html.job_state(waiting, loading)
    assert 'aria-live="off"' in html.model_state(loading, 3.0, "cuda")
    assert "aria-live" not in html.model_state(ServerStatus(state="ready"), 3.0, "cuda")


def test_a_preview_says_that_it_is_one() -> None:
    """Catches a preview that passes for the picture, and one that is a file on the server."""
    status = JobStatus(state="running", stage="denoise", step=8, num_steps=25, preview=b"RIFF")
    text = html.preview(status, (384, 256))
    assert "Preview, step 8 of 25" in text and 'width="384" height="256"' in text
    assert 'src="data:image/webp;base64,UklGRg=="' in text and 'alt="Preview of the picture after step 8 of 25"' in text


def test_who_is_logged_in_can_leave_where_the_server_let_them_in() -> None:
    """Catches a name that is run as markup, and a way out that leads nowhere behind a proxy's login."""
    assert html.account(None, True) == ""
    way_out = '<form method="post" action="logout">'
    assert "&lt;b&gt;" in html.account("<b>", True) and way_out in html.account("ann", True)
    assert "logout" not in html.account("ann", False)


def test_errors_are_escaped_and_announced() -> None:
    """Catches markup from a file's name that would be run in the page."""
    text = html.job_state(JobStatus(state="failed", error="<b>.png is no picture."), ServerStatus())
    assert 'role="alert"' in text and "&lt;b&gt;.png" in text and "<b>" not in text
    assert "<code>a &lt;command&gt;</code>" in html.refusal("Run `a <command>`.")


# Examples.


@pytest.mark.parametrize("examples", EXAMPLES)
def test_examples_show_every_mode(examples: ExampleSet) -> None:
    """Catches a mode without an example, and a picture that is not there."""
    modes = set()
    for example in EXAMPLES[examples]:
        styles = [name for name in (example.style, example.extra_style) if name]
        modes.add((bool(example.content), len(styles), bool(example.prompt)))
        for name in (example.content, *styles):
            path = example.path(name)
            assert path is None or path.is_file(), path
    text, subject, style, two_styles = (False, 0, True), (True, 0, True), (False, 1, True), (False, 2, True)
    with_prompt, layout_kept, with_two = (True, 1, True), (True, 1, False), (True, 2, True)
    assert modes >= {text, subject, style, two_styles, with_prompt, layout_kept, with_two}
    (by_words,) = (example for example in EXAMPLES[examples] if example.mode == "Restyled by words")
    assert by_words.content and by_words.keep_input_size and not by_words.style
    assert re.match(r"Transform the style into|an? [\w ]+ of an? ", by_words.prompt)


def test_drawn_examples_are_in_words_that_the_demo_knows() -> None:
    """Catches a prompt that the demo model can make nothing of: its captions hold a few hundred words and are short."""
    known = caption_words(style.phrase for style in STYLES)
    quoted = [sentence for _, tip in TIPS["drawn"] for sentence in re.findall("“(.+?)”", tip)]
    assert len(quoted) == 2
    sentences = [*(example.prompt for example in EXAMPLES["drawn"]), *quoted]
    prompts = [re.findall(r"[\w-]+", sentence.lower()) for sentence in sentences]
    assert all(len(words) <= 20 and known.issuperset(words) for words in prompts)
    assert not known.issuperset(EXAMPLES["photographs"][1].prompt.lower().split())


SHARED_TIPS = set.intersection(*map(set, TIPS.values()))


@pytest.mark.parametrize(("name", "examples"), [("demo", "drawn"), ("flux-dev", "photographs")])
def test_the_page_offers_the_examples_of_its_model(name: str, examples: ExampleSet, queue: JobQueue) -> None:
    """Catches the demo under sentences and tips it cannot follow, and cards that fill in something else than shown."""
    config = load_model_config(name)
    page = built(config, queue)
    (tips,) = (block.value for block in page.blocks.values() if isinstance(block, gr.HTML) and "Tips" in block.value)
    assert all((escape(text) in tips) == (examples == own) for own in TIPS for _, text in set(TIPS[own]) - SHARED_TIPS)
    cards = [sample for (sample,) in fields(page)["examples"].samples]
    assert cards == [html.card(example) for example in EXAMPLES[examples]]
    fill = Events(Calls(config, queue)).example
    assert [fill(index).prompt for index in range(len(cards))] == [example.prompt for example in EXAMPLES[examples]]


@pytest.mark.parametrize(("name", "examples"), [("demo", "drawn"), ("flux-dev", "photographs")])
def test_an_example_sets_every_field_and_can_be_made(
    name: str, examples: ExampleSet, queue: JobQueue, uploads: Path
) -> None:
    """Catches a field that an earlier example filled and a later one leaves: old pictures in new requests."""
    handlers = Events(Calls(load_model_config(name), queue))
    for index, example in enumerate(EXAMPLES[examples]):
        inputs = handlers.example(index)
        assert all(value is not None for name, value in inputs._asdict().items() if not name.endswith("_image"))
        for name in ("content", "style", "extra_style"):
            assert (getattr(inputs, f"{name}_image") is None) == (getattr(example, name) is None)
        images = {}
        for name in ("content_image", "style_image", "extra_style_image"):
            if path := getattr(inputs, name):
                copy = uploads / Path(path).name
                copy.write_bytes(Path(path).read_bytes())
                images[name] = {"path": str(copy)}
        request = requested(handlers.config, inputs._replace(**images))
        assert request.prompt == example.prompt and request.keep_input_size == example.keep_input_size


# The door.


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"width": 500}, "Width is 500; a whole number from 128 to 384 is allowed."),
        ({"width": 200.5}, "Width is 200.5; a whole number"),
        ({"height": 200}, "Height is 200; it must be a multiple of 16"),
        ({"height": "tall"}, "Height is 'tall'; a whole number"),
        ({"num_inference_steps": 51}, "Number of steps is 51; a whole number from 1 to 50"),
        ({"guidance_scale": 9}, "Guidance is 9; a number from 1 to 5 is allowed."),
        ({"content_size": 32}, "Content reference size is 32"),
        ({"seed": -2}, "Seed is -2; 0 to 4294967295 is allowed"),
        ({"prompt": ["a"]}, "The prompt must be text, not list."),
        ({"keep_input_size": True}, "Keep input size needs a content image."),
        ({"style_image": {"path": "/etc/hostname"}}, "The image was not uploaded to this page."),
        ({"style_image": "/etc/hostname"}, "The image was not uploaded to this page."),
    ],
)
def test_refusals_are_sentences(handlers: Events, values: dict[str, Any], sentence: str) -> None:
    """Catches a value that is clamped in silence, or refused in Gradio's words."""
    with pytest.raises(RequestError) as caught:
        requested(handlers.config, Inputs(**values))
    assert str(caught.value).startswith(sentence)


def test_whole_numbers_that_arrive_as_floats_are_taken(handlers: Events) -> None:
    """Catches a page that refuses what its own sliders send, and an emptied seed field."""
    request = requested(handlers.config, Inputs(width=256.0, num_inference_steps=3.0, seed=None, prompt=None))
    assert (request.width, request.num_inference_steps, request.prompt) == (256, 3, "")
    assert 0 <= request.seed < 2**32


def test_styles_keep_their_order_and_a_lone_extra_style_counts(handlers: Events, upload: Any) -> None:
    """Catches two styles that change places, and an extra style that is lost without a first."""
    first, second = upload("first.png"), upload("second.png", 100, 100)
    both = requested(handlers.config, Inputs(style_image=first, extra_style_image=second))
    assert [image.name for image in both.style_images] == ["first.png", "second.png"]
    alone = requested(handlers.config, Inputs(extra_style_image=second))
    assert [image.name for image in alone.style_images] == ["second.png"]


def test_guidance_is_left_out_where_the_model_takes_none(queue: JobQueue) -> None:
    """Catches a disabled field whose value makes every request of schnell fail."""
    assert requested(load_model_config("flux-schnell"), Inputs(guidance_scale=4.0)).guidance_scale is None


def test_files_are_opened_only_where_uploads_are(uploads: Path, tmp_path: Path) -> None:
    """Catches a path from a browser that leads out of the folder, by name or by a link."""
    outside = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(outside)
    (uploads / "link.png").symlink_to(outside)
    for path in (outside, uploads / ".." / "secret.png", uploads / "link.png"):
        with pytest.raises(ImageError, match="not uploaded to this page"):
            uploaded({"path": str(path)})
    with pytest.raises(ImageError, match="gone.png is no longer on the server. Choose its file again."):
        uploaded({"path": str(uploads / "gone.png")})


def test_a_look_at_the_images_tells_size_and_trouble(handlers: Events, upload: Any, uploads: Path) -> None:
    """Catches a size that differs from the one which is then used, and junk that is noticed only at the end."""

    def look(*values: Any) -> tuple[str, Any, Any]:
        return asyncio.run(handlers.look(*values))

    content = upload("wide.png", 640, 427)
    note, width, height = look(content, None, None, True)
    request = requested(handlers.config, Inputs(content_image=content, keep_input_size=True))
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


# The verbs.


def test_generate_shows_the_picture_and_what_was_used(handlers: Events, queue: JobQueue, tmp_path: Path) -> None:
    """Catches a picture that is re-encoded on its way, buttons that stay locked, a seed that is not the real one."""
    queue.start()
    shown = all_shown(handlers, Inputs(prompt="a <fox>", seed=5, num_inference_steps=2))
    assert shown[0].generate["interactive"] is False and shown[0].stop["interactive"] is True
    assert shown[0].job_id == shown[0].memory and len(shown[0].job_id) == 32
    done = shown[-1]
    saved = next((tmp_path / "outputs").glob("*.png"))
    assert Path(done.picture).read_bytes() == saved.read_bytes() and done.download["value"] == done.picture
    assert Path(done.picture).parent != saved.parent  # what is handed out is a copy under a name nobody guesses
    assert "<dd>5</dd>" in done.facts and "128 × 128" in done.facts and "Done." in done.status
    assert done.actions["visible"] is True and "<dd>a &lt;fox&gt;</dd>" in done.settings
    assert done.generate["interactive"] is True and done.stop["interactive"] is False and done.preview == ""
    assert done.job_id is None and done.memory == shown[0].job_id  # a reload of the tab shows the picture again
    assert "Picture 1 of 1: a &lt;fox&gt;, seed 5" in done.history and 'aria-current="true"' in done.history
    assert output.read(saved).values()["prompt"] == "a <fox>"


def test_previews_are_sent_once_each_and_go_with_the_picture(
    demo_config: ModelConfig, settings: ServerSettings
) -> None:
    """Catches a preview that is sent again with every step, and one that stays over the finished picture."""
    script = Script(free=False)
    queue = JobQueue(lambda on_progress: script, settings)
    handlers = Events(Calls(demo_config, queue))
    queue.start()

    async def collect() -> list[Shown]:
        shown: list[Shown] = []
        async for one in handlers.run(None, visitor(), *Inputs(num_inference_steps=16)):
            shown.append(one)
            script.steps.release()
        return shown

    shown = asyncio.run(collect())
    previews = [one.preview for one in shown if one.preview != gr.skip()]
    assert previews[-1] == "" and 1 < len(previews) <= 8 and len(set(previews)) == len(previews)
    words = [one.status for one in shown if one.status != gr.skip()]
    assert all(first != second for first, second in pairwise(words))
    queue.close()


def test_a_refusal_changes_nothing_but_the_status(handlers: Events) -> None:
    """Catches an error that clears what was typed, hides the last picture or locks a button."""
    (shown,) = all_shown(handlers, Inputs(width=500))
    assert "Width is 500" in shown.status and 'role="alert"' in shown.status
    assert unchanged(shown, "status")


def test_a_page_follows_one_job(handlers: Events, queue: JobQueue) -> None:
    """Catches Enter in the prompt that starts a second job behind the locked button, and a Generate that does nothing
    after a stream broke while its job goes on; another tab may have its own."""
    waiting = queue.submit(requested(handlers.config, Inputs()), asker_of(visitor()))

    async def first() -> Shown:
        stream = handlers.run(waiting.id, visitor(), *Inputs())
        async with aclosing(stream):
            return await anext(stream)

    shown = asyncio.run(first())
    assert (shown.job_id, queue.status.waiting) == (waiting.id, 1)
    assert shown.generate["interactive"] is False and shown.stop["interactive"] is True
    queue.cancel(waiting.id)
    queue.start()
    assert "Done." in all_shown(handlers, Inputs(num_inference_steps=1), waiting.id)[-1].status


@pytest.mark.parametrize("at_work", [True, False])
def test_stop_reaches_the_job(demo_config: ModelConfig, settings: ServerSettings, at_work: bool) -> None:
    """Catches a Stop button that ends the stream but not the work, or that does nothing while the job waits."""
    script = Script(free=False)
    queue = JobQueue(lambda on_progress: script, settings)
    handlers = Events(Calls(demo_config, queue))
    queue.start()
    before = None if at_work else queue.submit(requested(demo_config, Inputs()), asker_of(visitor()))
    until(lambda: at_work or script.seen)
    answers: list[Any] = []

    async def collect() -> list[Shown]:
        shown: list[Shown] = []
        async for one in handlers.run(None, visitor(), *Inputs(prompt="mine", num_inference_steps=40)):
            shown.append(one)
            if not answers and (not at_work or "mine" in script.seen):
                answers.append(handlers.stop(shown[0].job_id))
                if at_work:
                    script.steps.release()
        return shown

    shown = asyncio.run(collect())
    assert answers == [gr.update(interactive=False, value="Stopping ...")]
    assert "Stopped." in shown[-1].status and shown[-1].stop["value"] == "Stop" and shown[-1].memory == FORGET
    assert not list(settings.output.glob("*.png")) and script.closed_early == (["mine"] if at_work else [])
    assert handlers.stop(None) == handlers.stop("0" * 32) == gr.skip()
    queue.close()
    if before is not None:
        script.steps.release(100)
        until(lambda: before.status.over)


def test_the_page_unlocks_when_the_model_is_ready(
    demo_config: ModelConfig, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a timer that never stops, and a button that is given back while a job of this page runs."""
    go_on = threading.Event()

    def load(on_progress: Any) -> Script:
        on_progress("Loading <vae>", 0.5)
        assert go_on.wait(PATIENCE)
        return Script()

    queue = JobQueue(load, settings)
    handlers = Events(Calls(demo_config, queue))
    queue.start()
    until(lambda: queue.status.share == 0.5)
    state, button, timer = handlers.tick(None)
    assert "Loading the model: &lt;vae&gt;, 50%" in state and 'aria-valuenow="50"' in state
    assert button["value"] == "Generate when ready" and timer["active"] and timer["value"] == TICK_SECONDS
    monkeypatch.setattr(JobQueue, "loading_seconds", 60.0)
    assert handlers.tick(None)[2]["value"] == LATER_TICK_SECONDS
    assert "interactive" not in button  # it is free from the beginning
    go_on.set()
    until(lambda: queue.status.state == "ready")
    state, button, timer = handlers.tick(None)
    assert "Ready on cpu" in state and button["value"] == "Generate" and timer["active"] is False
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

    queue = JobQueue([lambda on_progress: Script(), late], settings)
    handlers = Events(Calls(demo_config, queue))
    queue.start()
    until(lambda: queue.status.workers_ready == 1)
    state, button, timer = handlers.tick(None)
    assert "1 of 2 workers ready" in state and button["value"] == "Generate" and timer["active"]
    go_on.set()
    until(lambda: queue.status.workers_ready == 2)
    assert handlers.tick(None)[2]["active"] is False
    queue.close()


def test_a_failed_load_stays_with_its_remedy(demo_config: ModelConfig, settings: ServerSettings) -> None:
    """Catches a page that says that all is well, or nothing at all, when the weights are not there."""

    def load(on_progress: Any) -> Script:
        raise MissingWeightsError("Fetch them with `a command`.")

    queue = JobQueue(load, settings)
    handlers = Events(Calls(demo_config, queue))
    queue.start()
    until(lambda: queue.status.state == "failed")
    state, button, timer = handlers.tick(None)
    assert "Fetch them with <code>a command</code>." in state and 'role="alert"' in state
    assert button["interactive"] is False and not timer["active"]
    assert "interactive" not in handlers.tick("a job of this page")[1]
    queue.close()


# The server.


def events(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/config").json()["dependencies"]
    return found


def test_programs_are_offered_nothing_of_the_page(queue: JobQueue, demo_config: ModelConfig) -> None:
    """Catches a verb of the page that shows up among what programs may call, and may change at any time."""
    with served(demo_config, queue) as client:
        assert set(client.get("/gradio_api/info").json()["named_endpoints"]) == {"/generate", "/status", "/cancel"}
        assert len(events(client)) > 20  # the page's own are there


def test_no_file_of_the_server_can_be_named(
    queue: JobQueue, demo_config: ModelConfig, uploads: Path, tmp_path: Path
) -> None:
    """Catches Gradio's missing check on mounted pages: a file named in a request is copied to where it is served.

    Every verb of the page is called with the path of a secret in every one of its places."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    data = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    with served(demo_config, queue) as client:
        for event in events(client):
            if event["backend_fn"] and not event["queue"]:
                body = {"data": [data] * len(event["inputs"]), "fn_index": event["id"], "event_data": {"picture": data}}
                answer = client.post("/gradio_api/run/predict", json=body)
                assert "Traceback" not in answer.text
        assert not list(uploads.rglob("secret.png"))
        assert client.get(f"/gradio_api/file={secret}").status_code == 403
        assert client.get("/examples/../page.css").status_code == 404


def test_example_pictures_are_served(queue: JobQueue, demo_config: ModelConfig) -> None:
    """Catches cards with broken pictures."""
    with served(demo_config, queue) as client:
        for example in chain(*EXAMPLES.values()):
            for name in filter(None, (example.content, example.style, example.extra_style)):
                assert client.get(f"/examples/{name}").headers["content-type"].startswith("image/")
