"""The page as it is built: its fields, their ranges and labels, its examples, and what it offers over HTTP."""

import asyncio
import re
from collections import Counter
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.support.scripted import ledger_of
from uso.config import ExampleSet, ModelConfig, load_model_config
from uso.web.api.calls import Calls
from uso.web.jobs.queue import JobQueue
from uso.web.page import html
from uso.web.page.examples import ExampleEvents
from uso.web.page.gradio_fit import ASSETS, SCRIPTS
from uso.web.page.labels import Static
from uso.web.page.layout import build_page
from uso.web.page.texts import EXAMPLES, TIPS
from uso.web.server.app import build_app


def built(config: ModelConfig, queue: JobQueue) -> gr.Blocks:
    """The page, built in an event loop: Gradio makes one otherwise, and leaves it open."""

    async def build() -> gr.Blocks:
        return build_page(Calls(config, queue, ledger_of(queue)), "Because of the test.")

    return asyncio.run(build())


def served(config: ModelConfig, queue: JobQueue) -> TestClient:
    """The page and its routes, in an event loop as well; enter it to start the queue."""

    async def build() -> TestClient:
        return TestClient(
            build_app(
                queue, ledger_of(queue), build_page(Calls(config, queue, ledger_of(queue)), "Because of the test.")
            )
        )

    return asyncio.run(build())


def fields(page: gr.Blocks) -> dict[str, Any]:
    return {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}


def english(text: Any) -> str:
    """What people read in English of a text that the browser translates."""
    return text.texts["en"] if isinstance(text, Static) else str(text)


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
    assert "shape and size of the content image" in english(found["keep"].info)
    assert found["guidance"].interactive == config.guidance
    assert config.guidance or "does not use guidance" in english(found["guidance"].info)


def test_labels_are_the_tutorials(queue: JobQueue, demo_config: ModelConfig) -> None:
    """Catches a field that was renamed or lost."""
    labels = {english(block.label) for block in fields(built(demo_config, queue)).values() if hasattr(block, "label")}
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


SHARED_TIPS = set.intersection(*map(set, TIPS.values()))


@pytest.mark.parametrize(("name", "examples"), [("demo", "drawn"), ("flux-dev", "photographs")])
def test_the_page_offers_the_examples_of_its_model(name: str, examples: ExampleSet, queue: JobQueue) -> None:
    """Catches the demo under sentences and tips it cannot follow, and cards that fill in something else than shown."""
    config = load_model_config(name)
    page = built(config, queue)
    made = [english(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML)]
    (tips,) = (text for text in made if "Tips" in text)
    assert all((escape(text) in tips) == (examples == own) for own in TIPS for _, text in set(TIPS[own]) - SHARED_TIPS)
    cards = [sample for (sample,) in fields(page)["examples"].samples]
    assert cards == [html.card(example) for example in EXAMPLES[examples]]
    fill = ExampleEvents(config).example
    assert [fill(index).prompt for index in range(len(cards))] == [example.prompt for example in EXAMPLES[examples]]


# The server.


def dependencies(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/config").json()["dependencies"]
    return found


def test_programs_are_offered_nothing_of_the_page(queue: JobQueue, demo_config: ModelConfig) -> None:
    """Catches an event of the page that shows up among the endpoints for programs, and may change at any time."""
    with served(demo_config, queue) as client:
        assert set(client.get("/gradio_api/info").json()["named_endpoints"]) == {"/generate", "/status", "/cancel"}
        assert len(dependencies(client)) > 20  # the page's own are there


@pytest.mark.parametrize("name", ["demo", "flux-dev"])
def test_no_two_calls_put_each_other_off(name: str, queue: JobQueue) -> None:
    """Catches calls without end. Gradio repeats the whole event when a call of the mode "always_last" was put off, and
    so two of them that hear the same one put each other off for ever."""
    page = built(load_model_config(name), queue)
    last = [call for call in page.fns.values() if call.fn and call.trigger_mode == "always_last"]
    heard = Counter(event for call in last for event in call.targets if event[0] is not None)
    assert len(heard) > 3 and {*heard.values()} == {1}, heard


def test_no_file_of_the_server_can_be_named(
    queue: JobQueue, demo_config: ModelConfig, uploads: Path, tmp_path: Path
) -> None:
    """Catches Gradio's missing check on mounted pages: a file named in a request is copied to where it is served.

    Every event of the page is called with the path of a secret in every one of its places."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    data = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    with served(demo_config, queue) as client:
        for event in dependencies(client):
            if event["backend_fn"] and not event["queue"]:
                body = {"data": [data] * len(event["inputs"]), "fn_index": event["id"], "event_data": {"picture": data}}
                answer = client.post("/gradio_api/run/predict", json=body)
                assert "Traceback" not in answer.text
        assert not list(uploads.rglob("secret.png"))
        assert client.get(f"/gradio_api/file={secret}").status_code == 403
        assert client.get("/examples/../page.css").status_code == 404


def test_gradios_scripts_are_changed_where_nobody_sees_it(queue: JobQueue, demo_config: ModelConfig) -> None:
    """Catches a Gradio whose scripts have changed, and an event whose state is to be shown: it would not be."""
    with served(demo_config, queue) as client:
        for pattern, (found, _) in SCRIPTS.items():
            (file,) = ASSETS.glob(pattern)
            script = file.read_text(encoding="utf-8")
            assert len(re.findall(found, script)) == 1, pattern
            assert client.get(f"/assets/{file.name}").text not in ("", script), pattern
        heard = [event for event in dependencies(client) if event["targets"] and event["backend_fn"]]
    assert {event["show_progress"] for event in heard} == {"hidden"}


def test_example_pictures_are_served(queue: JobQueue, demo_config: ModelConfig) -> None:
    """Catches cards with broken pictures."""
    with served(demo_config, queue) as client:
        for example in chain(*EXAMPLES.values()):
            for name in filter(None, (example.content, example.style, example.extra_style)):
                assert client.get(f"/examples/{name}").headers["content-type"].startswith("image/")
