"""Pictures from before: whose they are, how they look, and how they fill the fields in again.

Real engine, ledger and files; the pipeline is a script.
"""

import asyncio
import json
from collections.abc import Callable, Generator
from hashlib import sha256
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi.testclient import TestClient
from PIL import Image, PngImagePlugin

from tests.support.scripted import Script, ledger_of, queue_of, until
from tests.support.visitor import ANN, BEN, visitor
from uso import output
from uso.config import ModelConfig
from uso.request import GenerationRequest, ReferenceImage
from uso.web.access.identity import BROWSER_COOKIE, asker_of
from uso.web.api.calls import Calls, Inputs
from uso.web.jobs.job import Job, Picture
from uso.web.jobs.queue import JobQueue
from uso.web.page import history_html
from uso.web.page.events import FORGET, Events, Shown
from uso.web.page.layout import build_page
from uso.web.page.restore import KEEP
from uso.web.server.app import build_app
from uso.web.settings import ServerSettings
from uso.web.store import history
from uso.web.store.ledger import Remembered
from uso.web.store.recovery import CUT_OFF

GONE = "That picture is no longer on the server."


class Demo(Script):
    """Says that it is the model that the page is for."""

    provenance: dict[str, Any] = {"name": "demo", "title": "Demo", "device": "cpu"}  # noqa: RUF012


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def serve(tmp_path: Path, uploads: Path, demo_config: ModelConfig) -> Generator[Callable[..., Events], None, None]:
    """`serve(host=...)`: the page's verbs over an engine that runs, always in the same output folder."""
    engines: list[JobQueue] = []

    def start(**settings: Any) -> Events:
        (tmp_path / "outputs").mkdir(exist_ok=True)
        queue = queue_of(lambda on_progress: Demo(), ServerSettings(output=tmp_path / "outputs", **settings))
        engines.append(queue)
        queue.start()
        return Events(Calls(demo_config, queue, ledger_of(queue)))

    yield start
    for queue in engines:
        queue.close()
        queue.join(1.0)


@pytest.fixture
def handlers(serve: Callable[..., Events]) -> Events:
    return serve()


@pytest.fixture
def reference(picture: Callable[..., Image.Image]) -> Callable[..., ReferenceImage]:
    def make(name: str, seed: int = 0) -> ReferenceImage:
        return ReferenceImage.from_pil(picture(80, 60, seed), name)

    return make


def made(handlers: Events, key: str | None = ANN, **values: Any) -> tuple[Job, Picture]:
    """A picture that the owner of a browser has made."""
    request = GenerationRequest.create(handlers.config, **{"num_inference_steps": 2, **values})
    job = handlers.queue.submit(request, asker_of(visitor(key)))
    until(lambda: job.status.over and job.ended_at)
    assert job.status.state == "done", job.status.error
    return job, job.status.pictures[-1]


def chosen(picture_id: Any) -> gr.EventData:
    return gr.EventData(None, {"picture": picture_id})


def brought(uploads: Path, path: Path, name: str = "brought.png") -> dict[str, Any]:
    """A file as the page names it after somebody has dropped it."""
    (uploads / name).write_bytes(path.read_bytes())
    return {"path": str(uploads / name), "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def forged(uploads: Path, path: Path, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The same, but somebody has changed what its record says."""
    record = json.loads(json.dumps(output.read(path).record))
    text = PngImagePlugin.PngInfo()
    text.add_itxt(output.CHUNK, json.dumps(change(record) or record))
    with Image.open(path) as image:
        image.save(path.with_name("forged.tmp"), "PNG", pnginfo=text)
    return brought(uploads, path.with_name("forged.tmp"))


def restore(handlers: Events, file: Any, key: str | None = ANN, local: bool = False) -> tuple[str, Inputs]:
    """(what is said, the fields)."""
    told, *inputs = asyncio.run(handlers.restore(file, visitor(key, local=local)))
    return told, Inputs(*inputs)


def came_back(handlers: Events, job_id: Any, key: str | None = ANN) -> list[Shown]:
    async def collect() -> list[Shown]:
        return [shown async for shown in handlers.come_back(job_id, visitor(key, "another tab"))]

    return asyncio.run(collect())


def hashes(*paths: Any) -> list[str]:
    return [sha256(Path(path).read_bytes()).hexdigest() for path in paths]


# Whose they are.


def test_everybody_sees_their_own_newest_first_over_a_restart(serve: Any) -> None:
    """Catches a history that ends with the process, or that shows others' pictures."""
    first = serve()
    made(first, ANN, prompt="a fox", seed=1)
    made(first, BEN, prompt="a heron", seed=2)
    made(first, ANN, prompt="an owl", seed=3)
    first.queue.close()
    second = serve()
    account, shown = asyncio.run(second.arrive(visitor(ANN)))
    assert account == "" and shown.count("<button") == 2 and "heron" not in shown
    assert "Picture 1 of 2: an owl, seed 3" in shown and "Picture 2 of 2: a fox, seed 1" in shown
    assert shown.index("an owl") < shown.index("a fox") and "data:image/webp;base64,UklG" in shown
    assert "None yet." in asyncio.run(second.arrive(visitor("c" * 43)))[1]
    assert "keeps no cookies" in asyncio.run(second.arrive(visitor(None)))[1]


def test_anothers_picture_is_not_there(handlers: Events) -> None:
    """Catches a verb that takes an id from a browser without asking whose it is."""
    job, picture = made(handlers, ANN, prompt="a secret")
    stranger = visitor(BEN)
    shown = asyncio.run(handlers.select(chosen(picture.id), None, stranger))
    assert GONE in shown.status and shown == Shown(status=shown.status)
    said, *rest = asyncio.run(handlers.reuse_all(picture.id, stranger))
    assert GONE in said and all(value == KEEP for value in rest)
    for said, *rest in (
        handlers.reuse_seed(picture.id, stranger),
        handlers.as_content(picture.id, stranger),
        handlers.as_style(picture.id, None, None, stranger),
    ):
        assert GONE in said and all(value == KEEP for value in rest)
    assert came_back(handlers, job.id, BEN) == [Shown(memory=FORGET)]
    assert "a secret" not in str(asyncio.run(handlers.arrive(stranger)))


@pytest.mark.parametrize(
    "wrong", [None, "", 7, "x" * 32, "../" * 10 + "ab", "/etc/passwd", ["a"], {"path": "/etc/passwd"}, "0" * 32 + "\n"]
)
def test_what_is_no_id_is_never_looked_up(handlers: Events, wrong: Any) -> None:
    """Catches a value from a browser that gets as far as the ledger or a file."""
    assert GONE in asyncio.run(handlers.select(chosen(wrong), None, visitor())).status
    assert GONE in handlers.as_content(wrong, visitor())[0] and not history.is_id(wrong)
    assert came_back(handlers, wrong) == [Shown(memory=FORGET)]
    assert GONE in asyncio.run(handlers.select(gr.EventData(None, wrong), None, visitor())).status


def test_anothers_picture_cannot_be_had_over_http_either(serve: Any, demo_config: ModelConfig, uploads: Path) -> None:
    """Catches a check that is made in the page and not behind it: private events can be called by anybody."""
    first = serve()
    picture = made(first, ANN, prompt="a secret")[1]

    async def build() -> TestClient:
        return TestClient(build_app(first.queue, first.ledger, build_page(first.calls, "Because.")))

    client = asyncio.run(build())  # not entered: the engine runs already
    config = client.get("/config").json()
    places = {
        component["props"].get("elem_id"): component["id"]
        for component in config["components"]
        if component["props"].get("elem_id")
    }
    select = next(event for event in config["dependencies"] if [places["history"], "select"] in event["targets"])
    body = {"data": [None], "fn_index": select["id"], "event_data": {"picture": picture.id}, "session_hash": "tab"}
    answers = {
        key: client.post("/gradio_api/run/predict", json=body, headers={"Cookie": f"{BROWSER_COOKIE}={key}"}).text
        for key in (ANN, BEN)
    }
    assert "a secret" in answers[ANN] and picture.path.name in answers[ANN]
    assert GONE in answers[BEN] and "a secret" not in answers[BEN] and picture.path.name not in answers[BEN]


# A tab comes back.


def test_a_tab_comes_back_to_its_job(serve: Any, demo_config: ModelConfig, tmp_path: Path, uploads: Path) -> None:
    """Catches a reload that loses the job: its words, its Stop button, its picture."""
    script = Script(free=False)
    (tmp_path / "outputs").mkdir()
    queue = queue_of(lambda on_progress: script, ServerSettings(output=tmp_path / "outputs"))
    handlers = Events(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    job = queue.submit(GenerationRequest.create(demo_config, num_inference_steps=4), asker_of(visitor()))
    until(lambda: job.status.state == "running")
    queue.followers.attach(job, "the tab")
    queue.followers.detach(job, "the tab")  # what a reload does first

    async def collect() -> list[Shown]:
        shown: list[Shown] = []
        async for one in handlers.come_back(job.id, visitor(session="the tab again")):
            if not shown:
                assert one.stop["interactive"] and not one.generate["interactive"] and one.job_id == job.id
            elif len(shown) == 1:
                assert len(job.followers) == 1
            shown.append(one)
            script.steps.release()
        return shown

    shown = asyncio.run(collect())
    assert isinstance(shown[-1].picture, str) and "Done." in shown[-1].status
    again = came_back(handlers, job.id)
    assert len(again) == 1 and isinstance(again[0].picture, str) and again[0].memory == job.id
    assert again[0].generate["interactive"] is True
    queue.close()


def test_a_job_that_a_restart_cut_off_is_told(serve: Any) -> None:
    """Catches a page that waits for ever for a job that no server has any more, or forgets it without a word."""
    first = serve()
    lost = Job(GenerationRequest.create(first.config), asker_of(visitor()))
    ledger_of(first.queue).accepted(lost)
    picture = made(first, ANN, prompt="kept", seed=8)
    first.queue.close()
    ledger_of(first.queue).close()
    second = serve()
    (told,) = came_back(second, lost.id)
    assert CUT_OFF in told.status and told.memory == FORGET and told.picture == KEEP
    (shown,) = came_back(second, picture[0].id)
    assert isinstance(shown.picture, str) and "<dd>8</dd>" in shown.facts


# How they look.


def test_a_picture_of_the_history_is_shown_in_full(handlers: Events) -> None:
    """Catches facts that are another picture's, and a picture that has lost its record on the way."""
    picture = made(handlers, prompt="a <fox>", seed=1)[1]
    made(handlers, prompt="an owl", seed=2)
    shown = asyncio.run(handlers.select(chosen(picture.id), None, visitor()))
    assert Path(shown.picture).read_bytes() == picture.path.read_bytes() and shown.picture_id == picture.id
    assert "<dd>1</dd>" in shown.facts and "<time datetime=" in shown.facts and "&lt;fox&gt;" in shown.settings
    assert shown.download["value"] == shown.picture and shown.preview == ""
    while_running = asyncio.run(handlers.select(chosen(picture.id), "a job of this page", visitor()))
    assert while_running.status == KEEP  # that place belongs to the job


def test_a_picture_whose_file_is_gone_is_told(handlers: Events) -> None:
    """Catches a traceback, and a frame that stays empty, after pruning."""
    picture = made(handlers)[1]
    picture.path.unlink()
    assert GONE in asyncio.run(handlers.select(chosen(picture.id), None, visitor())).status
    assert "None yet." in asyncio.run(handlers.arrive(visitor()))[1]


def test_names_of_pictures_are_escaped_and_short(handlers: Events) -> None:
    """Catches a prompt that is run as markup, and one that a screen reader reads for a minute."""
    picture = made(handlers)[1]
    one = Remembered(picture, "", None, 1.0, b"RIFF", '<b>\n"x"\' ' + "long " * 40)
    text = history_html.history([one], "Removed <soon>.", picture.id, True)
    assert "<b>" not in text and "&lt;b&gt; &quot;x&quot;&#x27; long" in text and "Removed &lt;soon&gt;." in text
    label = text.split('aria-label="')[1].split('"')[0]
    assert len(label) < 160 and label.endswith(f" ..., seed {picture.seed}")


def test_the_history_says_how_long_pictures_stay(serve: Any) -> None:
    """Catches pictures that are removed without a word of warning."""
    assert "removes pictures after 30 days" in asyncio.run(serve(prune_days=30).arrive(visitor()))[1]


# Back into the fields.


def test_all_settings_are_reused_the_images_too(handlers: Events, reference: Any) -> None:
    """Catches a value, an image or the order of the styles that is lost on the way."""
    content, one, other = reference("cat.png", 1), reference("oil.png", 2), reference("ink.png", 3)
    values: dict[str, Any] = {
        "prompt": "a fox",
        "width": 160,
        "height": 128,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
    }
    picture = made(handlers, content_images=[content], style_images=[one, other], content_size=96, seed=42, **values)[1]
    said, advanced, *fields = asyncio.run(handlers.reuse_all(picture.id, visitor()))
    inputs = Inputs(*fields)
    assert "The settings of this picture are filled in.<" in said and advanced["open"] is True
    assert hashes(inputs.content_image, inputs.style_image, inputs.extra_style_image) == [
        content.sha256,
        one.sha256,
        other.sha256,
    ]
    assert Path(inputs.content_image).name == "cat.png"
    found = inputs._asdict()
    assert {name: found[name] for name in values} == values
    assert (inputs.content_size, inputs.seed, inputs.keep_input_size) == (96, 42, False)


def test_seed_content_and_style_are_reused(handlers: Events) -> None:
    """Catches a style that replaces the wrong one, and a picture that is not the one that was made."""
    picture = made(handlers, seed=42)[1]
    said, seed, advanced = handlers.reuse_seed(picture.id, visitor())
    assert "42" in said and seed == 42 and advanced["open"] is True
    said, content = handlers.as_content(picture.id, visitor())
    assert hashes(content) == hashes(picture.path) and "content image" in said
    there = {"path": "somewhere"}
    for style, extra, first_is_new in (
        (None, None, True),
        (there, None, False),
        (None, there, True),
        (there, there, True),
    ):
        said, first, second = handlers.as_style(picture.id, style, extra, visitor())
        assert ((first, second) == (content, KEEP)) == first_is_new and (
            (first, second) == (KEEP, content)
        ) != first_is_new
        assert ("extra style image" in said) != first_is_new


def test_a_dropped_png_restores_everything(handlers: Events, uploads: Path, reference: Any) -> None:
    """Catches a PNG that this program wrote and does not understand."""
    content = reference("wide.png")
    picture = made(handlers, content_images=[content], keep_input_size=True, prompt="狐", seed=7, content_size=64)[1]
    told, inputs = restore(handlers, brought(uploads, picture.path))
    assert "The settings of brought.png are filled in.<" in told and "alert" not in told
    assert (inputs.prompt, inputs.seed, inputs.content_size, inputs.keep_input_size) == ("狐", 7, 64, True)
    assert hashes(inputs.content_image) == [content.sha256] and inputs.style_image is None
    assert inputs.width == inputs.height == KEEP  # they follow from the content image
    assert restore(handlers, None)[1] == Inputs(*[KEEP] * len(Inputs._fields))


@pytest.mark.parametrize("public", [{}, {"host": "0.0.0.0"}, {"user_header": "x-user"}])
def test_photographs_stay_with_their_owner(serve: Any, uploads: Path, reference: Any, public: dict[str, Any]) -> None:
    """Catches a server that hands out somebody's reference images to whoever has, or forges, one of their pictures."""
    handlers = serve(**public)
    photograph, other = reference("me.png", 1), reference("other.png", 2)
    hers = made(handlers, ANN, content_images=[photograph], prompt="me")[1]
    his = made(handlers, BEN, content_images=[other], prompt="not me")[1]
    told, inputs = restore(handlers, brought(uploads, hers.path), ANN)
    assert hashes(inputs.content_image) == [photograph.sha256] and "again" not in told
    told, inputs = restore(handlers, brought(uploads, hers.path), BEN)
    assert inputs.content_image is None and inputs.prompt == "me"
    assert "Add the content image “me.png” again; this page cannot bring it back." in told
    named = output.read(hers.path).record["request"]["content_images"]
    with_his_job = forged(uploads, his.path, lambda record: record["request"].update(content_images=named))
    assert restore(handlers, with_his_job, BEN)[1].content_image is None
    assert restore(handlers, brought(uploads, hers.path), None)[1].content_image is None


def test_at_the_machine_itself_any_png_brings_its_photographs(handlers: Events, uploads: Path, reference: Any) -> None:
    """Catches a person alone with their machine who cannot restore what the command line, or another browser, made."""
    photograph = reference("me.png", 1)
    picture = made(handlers, ANN, content_images=[photograph])[1]
    inputs = restore(handlers, brought(uploads, picture.path), BEN, local=True)[1]
    assert hashes(inputs.content_image) == [photograph.sha256]


def test_a_png_from_elsewhere_restores_what_it_can(handlers: Events, uploads: Path, reference: Any) -> None:
    """Catches one value too large, or one image too many, that costs all the others."""
    picture = made(handlers, content_images=[reference("a.png")], style_images=[reference("b.png")], prompt="x")[1]

    def change(record: dict[str, Any]) -> None:
        record["request"] |= {"width": 2048, "num_inference_steps": 900, "seed": 9, "schedule": "flux"}
        record["request"]["content_images"][0]["sha256"] = "../../../etc/passwd"
        record["request"]["style_images"] *= 3
        record["model"] |= {"name": "flux-dev", "title": "FLUX.1-dev"}

    told, inputs = restore(handlers, forged(uploads, picture.path, change), local=True)
    assert "Width is 2048; a whole number from 128 to 384" in told and "Number of steps is 900" in told
    assert "It was made by FLUX.1-dev; Demo (miniature) runs here" in told
    assert "Add the content image “a.png” again" in told and "It used 3 style images; this page takes 2." in told
    assert inputs.width == inputs.num_inference_steps == KEEP and (inputs.seed, inputs.prompt) == (9, "x")
    assert inputs.content_image is None and len(hashes(inputs.style_image, inputs.extra_style_image)) == 2


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": ["x"], "width": "w" * 9999, "seed": 10**400, "guidance_scale": {}, "keep_input_size": 7},
        {"prompt": "\ud800", "height": None, "content_size": float("inf"), "num_inference_steps": True},
        {"prompt": "a" * 10**6, "schedule": "<b>" * 999},
    ],
)
def test_hostile_values_are_told_in_sentences(handlers: Events, uploads: Path, values: dict[str, Any]) -> None:
    """Catches a record that fails the page, floods it, or is run in it."""
    picture = made(handlers)[1]
    told, inputs = restore(handlers, forged(uploads, picture.path, lambda record: record["request"].update(values)))
    told.encode()
    assert len(told) < 4000 and "<b>" not in told and "Traceback" not in told
    assert inputs.prompt == KEEP and inputs.num_inference_steps in (2, KEEP)


def test_files_that_are_no_pictures_of_ours_are_refused(handlers: Events, uploads: Path, tmp_path: Path) -> None:
    """Catches a refusal that shows where the server keeps things, or that empties what was filled in."""
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (20, 20)).save(tmp_path / "other.png")
    whole = made(handlers)[1].path.read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    for name, words in (
        ("text.png", "mine.png is not a picture"),
        ("other.png", "mine.png holds no request: it was not made by this program"),
        ("torn.png", "mine.png is not a picture"),
    ):
        told, inputs = restore(handlers, brought(uploads, tmp_path / name, "mine.png"))
        assert words in told and 'role="alert"' in told and str(uploads) not in told
        assert inputs == Inputs(*[KEEP] * len(Inputs._fields))
    told, _ = restore(handlers, {"path": "/etc/hostname"})
    assert "was not uploaded to this page" in told
