"""The page and its server in one process: what the fields are, what is said, what programs may call, what is refused.

The pipeline is a script (the real model, and a real browser, are in test_browser.py).
"""

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.scripted import PATIENCE, Script, until
from uso import output
from uso.config import ModelConfig, load_model_config
from uso.errors import ImageError, MissingWeightsError, RequestError
from uso.web import snippets
from uso.web.engine import Engine, EngineStatus, JobStatus
from uso.web.handlers import Handlers, Inputs, requested, uploaded
from uso.web.page import build_page
from uso.web.server import build_app
from uso.web.texts import EXAMPLES

FIELDS = list(Inputs._fields)


def built(config: ModelConfig, reason: str, engine: Engine) -> gr.Blocks:
    """The page, built in an event loop: Gradio makes one otherwise, and leaves it open."""

    async def build() -> gr.Blocks:
        return build_page(config, reason, engine)

    return asyncio.run(build())


def served(config: ModelConfig, engine: Engine) -> TestClient:
    """The page and its routes, in an event loop as well; enter it to start the engine."""

    async def build() -> TestClient:
        return TestClient(build_app(engine, build_page(config, "Because of the test.", engine)))

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
def engine(tmp_path: Path, uploads: Path) -> Generator[Engine, None, None]:
    """An engine that has not started; the pipeline is a script."""
    made = Engine(lambda on_progress: Script(), tmp_path / "outputs")
    yield made
    made.close()


@pytest.fixture
def handlers(engine: Engine, demo_config: ModelConfig) -> Handlers:
    return Handlers(demo_config, engine)


@pytest.fixture
def client(engine: Engine, demo_config: ModelConfig) -> Generator[TestClient, None, None]:
    """The whole server of the demo, its engine running."""
    with served(demo_config, engine) as made:
        until(lambda: engine.status.state == "ready")
        yield made


def call(client: TestClient, values: dict[str, Any]) -> tuple[str, Any]:
    """Call `/generate` as a program does; the last event's name and its data."""
    defaults = {parameter["parameter_name"]: parameter["parameter_default"] for parameter in contract(client)}
    data = [{**defaults, **values}[name] for name in FIELDS]
    event = client.post("/gradio_api/call/generate", json={"data": data}).json()["event_id"]
    lines = client.get(f"/gradio_api/call/generate/{event}").text.strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


def contract(client: TestClient) -> list[dict[str, Any]]:
    endpoints = client.get("/gradio_api/info").json()["named_endpoints"]
    assert list(endpoints) == ["/generate"]  # nothing else is meant for programs
    parameters: list[dict[str, Any]] = endpoints["/generate"]["parameters"]
    return parameters


def fields(page: gr.Blocks) -> dict[str, Any]:
    return {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}


def last_shown(handlers: Handlers, inputs: Inputs) -> list[Any]:
    async def collect() -> list[Any]:
        return [shown async for shown in handlers.run(*inputs)]

    return asyncio.run(collect())


# The fields and the words.


@pytest.mark.parametrize("name", ["demo", "flux-dev", "flux-schnell"])
def test_ranges_and_defaults_are_the_models(name: str, engine: Engine) -> None:
    """Catches a number that is written into the page instead of taken from the configuration."""
    config = load_model_config(name)
    found = fields(built(config, "", engine))
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


def test_labels_are_the_tutorials(engine: Engine, demo_config: ModelConfig) -> None:
    """Catches a field that was renamed or lost."""
    labels = {block.label for block in fields(built(demo_config, "", engine)).values() if hasattr(block, "label")}
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
        "Download PNG",
    }


def test_the_banner_says_which_model_runs_why_and_how_to_get_the_real_one() -> None:
    """Catches a demo that passes for the real thing, and markup in a reason that would be run."""
    demo = snippets.banner(load_model_config("demo"), "No GPU <here>.")
    assert "Random weights: pictures mean nothing yet" in demo and "No GPU &lt;here&gt;." in demo
    assert "python app.py --model flux-dev" in demo and "38 GB" in demo
    dev, schnell = (snippets.banner(load_model_config(name), "") for name in ("flux-dev", "flux-schnell"))
    assert "non-commercial purposes only" in dev and "uso-loud" not in dev and "app.py" not in dev
    assert "Experimental" in schnell and "non-commercial" not in schnell


def test_trained_demo_weights_lose_the_label_without_a_change_of_code(demo_config: ModelConfig) -> None:
    """Catches a label that hangs on the model's name."""
    trained = demo_config.model_copy(update={"placeholder": False})
    text = snippets.banner(trained, "")
    assert "mean nothing" not in text and "python app.py --model flux-dev" in text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (JobStatus(ahead=2), "2 pictures are ahead of yours."),
        (JobStatus(ahead=1), "One picture is ahead of yours."),
        (JobStatus(state="running", stage="condition"), "Reading the prompt and the images ..."),
        (JobStatus(state="running", stage="denoise", step=1, num_steps=25), "Step 1 of 25"),
        (
            JobStatus(state="running", stage="denoise", step=9, num_steps=25, seconds_left=4.2),
            "Step 9 of 25, about 4 s left",
        ),
        (
            JobStatus(state="running", stage="denoise", step=9, num_steps=25, seconds_left=250),
            "Step 9 of 25, about 4 min left",
        ),
        (JobStatus(state="running", stage="denoise", step=25, num_steps=25, seconds_left=0.0), "Step 25 of 25"),
        (JobStatus(state="cancelled"), "Stopped."),
        (JobStatus(state="done"), "Done."),
    ],
)
def test_a_job_says_where_it_is(status: JobStatus, words: str) -> None:
    """Catches a state without words, and a countdown of "0 s"."""
    assert snippets.job_words(status, EngineStatus(state="ready")) == words


def test_a_waiting_job_says_that_the_model_loads() -> None:
    """Catches a page that looks stuck while the model loads."""
    loading = EngineStatus(state="loading", stage="Loading transformer", share=0.431)
    assert snippets.job_words(JobStatus(), loading) == "Waiting for the model (Loading transformer, 43%)."


def test_errors_are_escaped_and_announced() -> None:
    """Catches markup from a file's name that would be run in the page."""
    text = snippets.job_state(JobStatus(state="failed", error="<b>.png is no picture."), EngineStatus())
    assert 'role="alert"' in text and "&lt;b&gt;.png" in text and "<b>" not in text


# Examples.


def test_examples_show_every_mode() -> None:
    """Catches a mode without an example, and a picture that is not there."""
    modes = set()
    for example in EXAMPLES:
        styles = [name for name in (example.style, example.extra_style) if name]
        modes.add((bool(example.content), len(styles), bool(example.prompt)))
        for name in (example.content, *styles):
            path = example.path(name)
            assert path is None or path.is_file(), path
    text, subject, style, two_styles = (False, 0, True), (True, 0, True), (False, 1, True), (False, 2, True)
    with_prompt, layout_kept, with_two = (True, 1, True), (True, 1, False), (True, 2, True)
    assert modes >= {text, subject, style, two_styles, with_prompt, layout_kept, with_two}
    assert any(example.prompt.startswith("Transform the style into") for example in EXAMPLES)


def test_an_example_sets_every_field_and_can_be_made(handlers: Handlers, uploads: Path) -> None:
    """Catches a field that an earlier example filled and a later one leaves: old pictures in new requests."""
    for index, example in enumerate(EXAMPLES):
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
def test_refusals_are_sentences(handlers: Handlers, values: dict[str, Any], sentence: str) -> None:
    """Catches a value that is clamped in silence, or refused in Gradio's words."""
    with pytest.raises(RequestError) as caught:
        requested(handlers.config, Inputs(**values))
    assert str(caught.value).startswith(sentence)


def test_whole_numbers_that_arrive_as_floats_are_taken(handlers: Handlers) -> None:
    """Catches a page that refuses what its own sliders send, and an emptied seed field."""
    request = requested(handlers.config, Inputs(width=256.0, num_inference_steps=3.0, seed=None, prompt=None))
    assert (request.width, request.num_inference_steps, request.prompt) == (256, 3, "")
    assert 0 <= request.seed < 2**32


def test_styles_keep_their_order_and_a_lone_extra_style_counts(handlers: Handlers, upload: Any) -> None:
    """Catches two styles that change places, and an extra style that is lost without a first."""
    first, second = upload("first.png"), upload("second.png", 100, 100)
    both = requested(handlers.config, Inputs(style_image=first, extra_style_image=second))
    assert [image.name for image in both.style_images] == ["first.png", "second.png"]
    alone = requested(handlers.config, Inputs(extra_style_image=second))
    assert [image.name for image in alone.style_images] == ["second.png"]


def test_guidance_is_left_out_where_the_model_takes_none(engine: Engine) -> None:
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


def test_a_look_at_the_images_tells_size_and_trouble(handlers: Handlers, upload: Any, uploads: Path) -> None:
    """Catches a size that differs from the one which is then used, and junk that is noticed only at the end."""
    content = upload("wide.png", 640, 427)
    note, width, height = handlers.look(content, None, None, True)
    request = requested(handlers.config, Inputs(content_image=content, keep_input_size=True))
    assert f"The picture will be {request.width} × {request.height}; the content image is 640 × 427." in note
    assert width["interactive"] is False and height["interactive"] is False
    assert handlers.look(content, None, None, False)[0] == ""
    assert "needs a content image" in handlers.look(None, None, None, True)[0]
    (uploads / "junk.png").write_text("no picture")
    note = handlers.look(None, {"path": str(uploads / "junk.png"), "orig_name": "my <file>.png"}, None, False)[0]
    assert "my &lt;file&gt;.png is not a picture this program can read (try PNG, JPEG or WebP)." in note
    assert 'role="alert"' in note


# The verbs.


def test_generate_shows_the_picture_and_what_was_used(handlers: Handlers, engine: Engine, tmp_path: Path) -> None:
    """Catches a picture that is re-encoded on its way, buttons that stay locked, a seed that is not the real one."""
    engine.start()
    shown = last_shown(handlers, Inputs(prompt="a fox", seed=5, num_inference_steps=2))
    assert shown[0].generate["interactive"] is False and shown[0].stop["interactive"] is True and shown[0].job_id
    done = next(step for step in shown if isinstance(step.picture, str))
    saved = next((tmp_path / "outputs").glob("*.png"))
    assert Path(done.picture).read_bytes() == saved.read_bytes() and done.download["value"] == done.picture
    assert Path(done.picture).parent != saved.parent  # what is handed out is a copy under a name nobody guesses
    assert done.seed == 5 and "<dd>5</dd>" in done.facts and "256 × 256" in done.facts and "Done." in done.status
    assert shown[-1].generate["interactive"] is True and shown[-1].stop["interactive"] is False
    assert shown[-1].job_id is None and output.read(saved).values()["prompt"] == "a fox"


def test_a_refusal_changes_nothing_but_the_status(handlers: Handlers) -> None:
    """Catches an error that clears what was typed, hides the last picture or locks a button."""
    (shown,) = last_shown(handlers, Inputs(width=500))
    assert "Width is 500" in shown.status and 'role="alert"' in shown.status
    assert all(value == gr.skip() for name, value in shown._asdict().items() if name != "status")


def test_stop_reaches_the_job_that_runs(engine: Engine, demo_config: ModelConfig, tmp_path: Path) -> None:
    """Catches a Stop button that ends the stream but not the work."""
    script = Script(free=False)
    engine = Engine(lambda on_progress: script, tmp_path / "outputs")
    handlers = Handlers(demo_config, engine)
    engine.start()
    answers = []

    def press_stop() -> None:
        until(lambda: script.seen)
        running = engine._running
        assert running is not None
        answers.append(handlers.stop(running.id))
        script.steps.release(1)

    presser = threading.Thread(target=press_stop)
    presser.start()
    shown = last_shown(handlers, Inputs(num_inference_steps=40))
    presser.join(PATIENCE)
    assert answers == [gr.update(interactive=False, value="Stopping ...")]
    assert "Stopped." in shown[-2].status and shown[-1].stop["value"] == "Stop"
    assert not (tmp_path / "outputs").exists() and script.closed_early == [""]
    assert handlers.stop(None) == handlers.stop("0" * 32) == gr.skip()
    engine.close()


def test_the_page_unlocks_when_the_model_is_ready(demo_config: ModelConfig, tmp_path: Path) -> None:
    """Catches a timer that never stops, and a button that is given back while a job of this page runs."""
    go_on = threading.Event()

    def load(on_progress: Any) -> Script:
        on_progress("Loading <vae>", 0.5)
        assert go_on.wait(PATIENCE)
        return Script()

    engine = Engine(load, tmp_path)
    handlers = Handlers(demo_config, engine)
    engine.start()
    until(lambda: engine.status.share == 0.5)
    state, button, timer = handlers.tick(None)
    assert "Loading the model: Loading &lt;vae&gt;, 50%" in state and 'aria-valuenow="50"' in state
    assert button["value"] == "Generate when the model is ready" and button["interactive"] and timer["active"]
    go_on.set()
    until(lambda: engine.status.state == "ready")
    state, button, timer = handlers.tick(None)
    assert "Ready on cpu" in state and button["value"] == "Generate" and timer["active"] is False
    assert handlers.tick("a job of this page")[1] == gr.skip()
    engine.close()


# The server.


def test_health_and_readiness(client: TestClient) -> None:
    """Catches routes that are hidden behind the mounted page."""
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert ready.status_code == 200 and ready.headers["cache-control"] == "no-store"
    assert ready.json().keys() == {"status", "progress", "stage", "elapsed", "error"}
    assert ready.json()["status"] == "ready" and ready.json()["error"] is None


def test_a_failed_load_is_told_with_its_remedy(demo_config: ModelConfig, uploads: Path, tmp_path: Path) -> None:
    """Catches a server that dies, or says that all is well, when its weights are not there."""

    def load(on_progress: Any) -> Script:
        raise MissingWeightsError("Fetch them with `a command`.")

    engine = Engine(load, tmp_path)
    with served(demo_config, engine) as client:
        until(lambda: engine.status.state == "failed")
        answer = client.get("/readyz")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
        assert answer.json()["status"] == "failed" and "Fetch them with `a command`." in answer.json()["error"]
        state, button, timer = Handlers(demo_config, engine).tick(None)
        assert "Fetch them with `a command`." in state and button["interactive"] is False and not timer["active"]
        event, data = call(client, {})
        assert event == "error" and "Fetch them" in data["error"]


def test_the_endpoint_has_the_pages_parameters(client: TestClient, demo_config: ModelConfig) -> None:
    """Catches a parameter that is renamed, loses its default or its range, or takes another place."""
    found = {parameter["parameter_name"]: parameter for parameter in contract(client)}
    assert list(found) == FIELDS
    assert all(parameter["parameter_has_default"] for parameter in found.values())
    defaults = {name: parameter["parameter_default"] for name, parameter in found.items()}
    assert defaults == {
        "prompt": "",
        "content_image": None,
        "style_image": None,
        "extra_style_image": None,
        "width": demo_config.defaults.width,
        "height": demo_config.defaults.height,
        "keep_input_size": False,
        "num_inference_steps": demo_config.defaults.num_inference_steps,
        "guidance_scale": demo_config.defaults.guidance_scale,
        "content_size": demo_config.defaults.content_size,
        "seed": -1,
    }


def test_programs_get_the_png_byte_for_byte(client: TestClient, tmp_path: Path) -> None:
    """Catches a picture that loses its metadata, and details that are not the picture's."""
    event, data = call(client, {"prompt": "a fox", "seed": 11, "num_inference_steps": 2})
    assert event == "complete", data
    saved = next((tmp_path / "outputs").glob("*.png"))
    assert client.get(data[0]["url"]).content == saved.read_bytes()
    details = data[1]
    assert details["seed"] == 11 and details["width"] == details["height"] == 256 and details["file"] == saved.name


def test_programs_are_refused_in_sentences(client: TestClient) -> None:
    """Catches a traceback, or Gradio's own words, in an answer."""
    event, data = call(client, {"width": 1000})
    assert event == "error" and data["error"] == "Width is 1000; a whole number from 128 to 384 is allowed."


def test_no_file_of_the_server_can_be_named(client: TestClient, uploads: Path, tmp_path: Path) -> None:
    """Catches Gradio's missing check on mounted pages: a file named in a request is copied to where it is served."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    for image in ({"path": str(secret), "meta": {"_type": "gradio.FileData"}}, {"path": str(secret)}):
        event, data = call(client, {"style_image": image, "num_inference_steps": 1})
        assert event == "error" and "not uploaded" in data["error"]
    assert not list(uploads.rglob("secret.png"))
    assert client.get(f"/gradio_api/file={secret}").status_code == 403
    assert client.get("/examples/../page.css").status_code == 404


def test_example_pictures_are_served(client: TestClient) -> None:
    """Catches cards with broken pictures."""
    for example in EXAMPLES:
        for name in filter(None, (example.content, example.style, example.extra_style)):
            assert client.get(f"/examples/{name}").headers["content-type"].startswith("image/")
