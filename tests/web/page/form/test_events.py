"""What the page says of its fields: what will be made, how long a prompt is, what the model sees of a reference."""

import asyncio
import base64
import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from tests.support.scripted import until
from tests.support.visitor import ANN, BEN, Events, made, visitor
from uso.config import ModelConfig, load_model_config
from uso.errors import RequestError
from uso.images.pixels import fit_reference
from uso.web.api.calls import Inputs
from uso.web.page.events.pictures import GONE
from uso.web.page.form.aspects import SHAPES, aspects
from uso.web.page.form.events import FormEvents
from uso.web.page.inputs import KEEP, check_something


@pytest.fixture
def page(serve: Callable[..., Events]) -> Events:
    events = serve()
    until(lambda: events.queue.status.state == "ready")
    return events


@pytest.fixture
def form(page: Events) -> FormEvents:
    return FormEvents(page.calls)


def described(form: FormEvents, **values: Any) -> tuple[str, str]:
    return asyncio.run(form.describe(*Inputs(**values)))


def test_the_plan_follows_from_the_fields(form: FormEvents) -> None:
    """Catches a plan that counts a style of no strength, or hides that a seed is pinned."""
    image = {"path": "/somewhere"}
    assert "Nothing to draw yet" in described(form)[0]
    both = {"content_image": image, "style_image": image}
    assert "Layout kept, in the style of the style image." in described(form, **both)[0]
    assert "Layout kept, in the style" not in described(form, **both, style_strength=0)[0]
    assert "Seed 7, not a random one." in described(form, prompt="a", seed=7)[0]
    assert not any("Seed" in described(form, prompt="a", seed=seed)[0] for seed in (-1, None, "7<b>"))
    assert described(form, prompt=["no text"]) == described(form)


def test_tokens_are_counted_against_what_the_model_reads(form: FormEvents) -> None:
    """Catches a prompt that is refused after it has waited, without a word before."""
    assert "4 of 32 tokens" in described(form, prompt="a red fox")[1]  # as the script counts: words, and the end
    assert described(form, prompt="")[1] == described(form, prompt="a" * 10_001)[1] == ""
    assert "33 of 32 tokens: shorten" in described(form, prompt="fox " * 32)[1]
    with pytest.raises(RequestError, match=r"has 33 tokens; this model reads 32\. Shorten") as refused:
        asyncio.run(form.calls.submit(Inputs("fox " * 32), visitor(ANN)))
    assert refused.value.field == "prompt"


def test_a_model_that_loads_counts_nothing(events: Events) -> None:
    """Catches a page that fails before the model is there; this queue has not started."""
    assert described(FormEvents(events.calls), prompt="a red fox")[1] == ""


@pytest.mark.parametrize("values", [{}, {"prompt": " \n"}, {"prompt": None}])
def test_nothing_is_refused(values: dict[str, Any]) -> None:
    """Catches a picture of nothing that somebody waits for."""
    with pytest.raises(RequestError, match="Nothing to draw yet") as refused:
        check_something(Inputs(**values))
    assert refused.value.field == "prompt"
    check_something(Inputs("a"))


# What the model sees.


def seen(answer: str) -> Image.Image:
    """The second picture of a dialog."""
    (url,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', answer)
    return Image.open(io.BytesIO(base64.b64decode(url)))


def look(form: FormEvents, field: str, value: Any, content_size: int = 96) -> str:
    answer: str = asyncio.run(form.viewer(field)(value, content_size, visitor(ANN)))
    return answer


def test_the_content_image_is_shown_as_it_is_fitted(form: FormEvents, upload: Any) -> None:
    """Catches a look that shows something else than what is encoded: another size, another crop, other pixels."""
    value = upload("wide.png", 333, 200)
    answer = look(form, "content", value)
    with Image.open(value["path"]) as image:
        fitted = fit_reference(image.convert("RGB"), 96)
    assert np.array_equal(np.asarray(seen(answer)), np.asarray(fitted)) and fitted.size == (96, 48)
    assert "long side of 96 pixels" in answer and "96 × 48" in answer and "wide.png, 333 × 200 pixels" in answer


@pytest.mark.parametrize("size", [(333, 200), (50, 50)])
def test_a_style_image_is_shown_as_siglip_reads_it(
    form: FormEvents, upload: Any, demo_pipeline: Any, size: tuple[int, int]
) -> None:
    """Catches a square that is cropped where the model squashes, or resized by another rule."""
    value = upload("style.png", *size)
    with Image.open(value["path"]) as image:
        pixels = demo_pipeline.preprocess_style(image.convert("RGB"))[0]
    read = ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    for field in ("style", "extra-style"):
        answer = look(form, field, value)
        assert np.array_equal(np.asarray(seen(answer)), read)
        assert ("Squashed" if size[0] != size[1] else "Resized") in answer


def test_what_cannot_be_shown_is_refused_in_the_dialog(form: FormEvents, uploads: Path, upload: Any) -> None:
    """Catches a file of the server that is shown, markup from a file's name, and a dialog that does not open."""
    (uploads / "junk.png").write_text("no picture")
    junk = {"path": str(uploads / "junk.png"), "orig_name": "<b>.png"}
    for value in (None, junk, {"path": "/etc/hostname"}, upload("thin.png", 2000, 20)):
        answer = look(form, "content", value)
        assert answer.startswith("<dialog") and 'role="alert"' in answer and "<img" not in answer
        assert "<b>" not in answer
    assert 'role="alert"' in look(form, "content", upload(), 7)


# A picture of the page that is dragged to a field.


def placed(form: FormEvents, data: Any, key: str = ANN) -> tuple[Any, ...]:
    return form.place(gr.EventData(None, data), visitor(key))


def test_a_dragged_picture_arrives_in_its_field_byte_for_byte(page: Events, form: FormEvents) -> None:
    """Catches a picture in another field, one that was re-encoded, and one of another person."""
    _, picture = made(page, prompt="a fox")
    for number, field in enumerate(("content", "style", "extra-style")):
        said, *fields = placed(form, {"picture": picture.id, "field": field})
        assert [value is KEEP for value in fields] == [place != number for place in range(3)]
        digests = [sha256(path.read_bytes()).digest() for path in (Path(fields[number]), picture.path)]
        assert digests[0] == digests[1] and "This picture is now the" in said
    nothing = [
        placed(form, {"picture": picture.id, "field": "style"}, BEN),
        *(placed(form, data) for data in (None, {}, {"picture": picture.id}, {"picture": [], "field": "style"})),
        placed(form, {"picture": picture.id, "field": "seed"}),
    ]
    assert all(GONE in said and set(map(id, fields)) == {id(KEEP)} for said, *fields in nothing)


# Shapes, and counting.


def test_shapes_have_about_the_area_of_the_model(demo_config: ModelConfig) -> None:
    """Catches shapes out of a model's range, or far from its area."""
    config = load_model_config("flux-dev")
    limits, area = config.limits, config.defaults.width * config.defaults.height
    for (name, size), (wide, high) in zip(aspects(config), SHAPES, strict=True):
        width, height = map(int, size.split("x"))
        assert name == f"{wide}:{high}" and width % 16 == height % 16 == 0
        assert limits.min_size <= min(width, height) <= max(width, height) <= limits.max_size
        assert abs(width / height / (wide / high) - 1) < 0.02 and abs(width * height / area - 1) < 0.06
    sizes = dict(aspects(demo_config))  # its least side is its usual one
    assert (sizes["1:1"], sizes["3:2"], sizes["9:16"]) == ("128x128", "192x128", "128x224")


def test_threads_count_while_the_model_reads(demo_pipeline: Any) -> None:
    """Catches a tokenizer that two threads share: it panics, and fails a picture that is being made."""
    count = demo_pipeline.prompt_counter()
    prompts = ["The owl stands in the snow at night." * (number % 7) for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        counted = pool.map(count, prompts)
        for prompt in prompts[:20]:
            demo_pipeline.check_prompt(prompt[:30])
        assert list(counted) == [count(prompt) for prompt in prompts]
