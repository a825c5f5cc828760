"""Pictures from before fill the fields in again: by the buttons under them, and by a PNG that somebody drops."""

import asyncio
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tests.support.visitor import ANN, BEN, Events, made, visitor
from uso import output
from uso.request.request import RANDOM_SEED, ReferenceImage
from uso.web.api.calls import Inputs
from uso.web.page.events.pictures import GONE
from uso.web.page.inputs import KEEP


@pytest.fixture
def events(serve: Callable[..., Events]) -> Events:
    return serve()


@pytest.fixture
def reference(picture: Callable[..., Image.Image]) -> Callable[..., ReferenceImage]:
    def make(name: str, seed: int = 0) -> ReferenceImage:
        return ReferenceImage.from_pil(picture(80, 60, seed), name)

    return make


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


def restore(events: Events, file: Any, key: str | None = ANN, local: bool = False) -> tuple[str, Inputs]:
    """(message, the fields)."""
    message, *inputs = asyncio.run(events.inputs.restore(file, visitor(key, local=local)))
    return message, Inputs(*inputs)


def hashes(*paths: Any) -> list[str]:
    return [sha256(Path(path).read_bytes()).hexdigest() for path in paths]


def test_all_settings_are_reused_the_images_too(events: Events, reference: Any) -> None:
    """Catches a value, an image or the order of the styles that is lost on the way."""
    content, one, other = reference("cat.png", 1), reference("oil.png", 2), reference("ink.png", 3)
    values: dict[str, Any] = {
        "prompt": "a fox",
        "width": 160,
        "height": 128,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
    }
    styles: dict[str, Any] = {"style_images": [one, other], "style_strengths": [0.5, 2]}
    picture = made(events, content_images=[content], **styles, content_size=96, seed=42, **values)[1]
    message, advanced, *fields = asyncio.run(events.pictures.repeat(picture.id, visitor()))
    inputs = Inputs(*fields)
    assert "The settings of this picture are filled in, with its seed.<" in message and advanced["open"] is True
    assert hashes(inputs.content_image, inputs.style_image, inputs.extra_style_image) == [
        content.sha256,
        one.sha256,
        other.sha256,
    ]
    assert Path(inputs.content_image).name == "cat.png"
    found = inputs._asdict()
    assert {name: found[name] for name in values} == values
    assert (inputs.content_size, inputs.seed, inputs.keep_input_size) == (96, 42, False)
    assert (inputs.style_strength, inputs.extra_style_strength) == (0.5, 2)


def test_an_image_that_is_there_already_stays(events: Events, reference: Any, upload: Any, uploads: Path) -> None:
    """Catches a field that loses its file's name to a copy of it, and one that keeps another image."""
    cat, oil = reference("cat.png", 1), reference("oil.png", 2)
    picture = made(events, content_images=[cat], style_images=[oil])[1]
    (uploads / "My Cat.png").write_bytes(cat.data)
    mine, other = {"path": str(uploads / "My Cat.png")}, upload("other.png")
    for repeated in (events.pictures.repeat, events.pictures.remix):
        held = Inputs(content_image=mine, style_image=other, extra_style_image=mine)
        inputs = Inputs(*asyncio.run(repeated(picture.id, visitor(), *held))[2:])
        assert inputs.content_image == KEEP and inputs.extra_style_image is None
        assert hashes(inputs.style_image) == [oil.sha256]
    file = brought(uploads, picture.path)
    for content, stays in ((mine, True), (other, False), ({"path": "/etc/hostname"}, False), (None, False)):
        answer = asyncio.run(events.inputs.restore(file, visitor(), *Inputs(content_image=content)))
        assert (Inputs(*answer[1:]).content_image == KEEP) == stays


def test_a_remix_has_a_random_seed(events: Events) -> None:
    """Catches a Remix that makes the same picture again, and one of somebody else's that fills anything in."""
    picture = made(events, prompt="a fox", seed=42)[1]
    message, advanced, *fields = asyncio.run(events.pictures.remix(picture.id, visitor()))
    inputs = Inputs(*fields)
    assert "random seed" in message and advanced["open"] is True
    assert (inputs.prompt, inputs.seed) == ("a fox", RANDOM_SEED)
    message, advanced, *fields = asyncio.run(events.pictures.remix(picture.id, visitor(BEN)))
    assert GONE in message and advanced is KEEP and set(map(id, fields)) == {id(KEEP)}


def test_seed_content_and_style_are_reused(events: Events) -> None:
    """Catches a style that replaces the wrong one, and a picture that is not the one that was made."""
    picture = made(events, seed=42)[1]
    message, seed, advanced = events.pictures.reuse_seed(picture.id, visitor())
    assert "42" in message and seed == 42 and advanced["open"] is True
    message, content = events.pictures.as_content(picture.id, visitor())
    assert hashes(content) == hashes(picture.path) and "content image" in message
    there = {"path": "somewhere"}
    for style, extra, first_is_new in (
        (None, None, True),
        (there, None, False),
        (None, there, True),
        (there, there, True),
    ):
        message, first, second = events.pictures.as_style(picture.id, style, extra, visitor())
        assert ((first, second) == (content, KEEP)) == first_is_new and (
            (first, second) == (KEEP, content)
        ) != first_is_new
        assert ("extra style image" in message) != first_is_new


def test_a_dropped_png_restores_everything(events: Events, uploads: Path, reference: Any) -> None:
    """Catches a PNG that this program wrote and does not understand."""
    content = reference("wide.png")
    picture = made(events, content_images=[content], keep_input_size=True, prompt="狐", seed=7, content_size=64)[1]
    message, inputs = restore(events, brought(uploads, picture.path))
    assert "The settings of brought.png are filled in.<" in message and "alert" not in message
    assert (inputs.prompt, inputs.seed, inputs.content_size, inputs.keep_input_size) == ("狐", 7, 64, True)
    assert hashes(inputs.content_image) == [content.sha256] and inputs.style_image is None
    assert inputs.width == inputs.height == KEEP  # they follow from the content image
    assert restore(events, None)[1] == Inputs(*[KEEP] * len(Inputs._fields))


@pytest.mark.parametrize("public", [{}, {"host": "0.0.0.0"}, {"user_header": "x-user"}])
def test_photographs_stay_with_their_owner(serve: Any, uploads: Path, reference: Any, public: dict[str, Any]) -> None:
    """Catches a server that hands out somebody's reference images to whoever has, or forges, one of their pictures."""
    events = serve(**public)
    photograph, other = reference("me.png", 1), reference("other.png", 2)
    hers = made(events, ANN, content_images=[photograph], prompt="me")[1]
    his = made(events, BEN, content_images=[other], prompt="not me")[1]
    message, inputs = restore(events, brought(uploads, hers.path), ANN)
    assert hashes(inputs.content_image) == [photograph.sha256] and "again" not in message
    message, inputs = restore(events, brought(uploads, hers.path), BEN)
    assert inputs.content_image is None and inputs.prompt == "me"
    assert "Add the content image “me.png” again; this page cannot bring it back." in message
    named = output.read(hers.path).record["request"]["content_images"]
    with_his_job = forged(uploads, his.path, lambda record: record["request"].update(content_images=named))
    assert restore(events, with_his_job, BEN)[1].content_image is None
    assert restore(events, brought(uploads, hers.path), None)[1].content_image is None


def test_at_the_machine_itself_any_png_brings_its_photographs(events: Events, uploads: Path, reference: Any) -> None:
    """Catches a person alone with their machine who cannot restore what the command line, or another browser, made."""
    photograph = reference("me.png", 1)
    picture = made(events, ANN, content_images=[photograph])[1]
    inputs = restore(events, brought(uploads, picture.path), BEN, local=True)[1]
    assert hashes(inputs.content_image) == [photograph.sha256]


def test_a_png_from_elsewhere_restores_what_it_can(events: Events, uploads: Path, reference: Any) -> None:
    """Catches one value too large, or one image too many, that costs all the others."""
    picture = made(events, content_images=[reference("a.png")], style_images=[reference("b.png")], prompt="x")[1]

    def change(record: dict[str, Any]) -> None:
        record["request"] |= {"width": 2048, "num_inference_steps": 900, "seed": 9, "schedule": "flux"}
        record["request"]["content_images"][0]["sha256"] = "../../../etc/passwd"
        record["request"]["style_images"] *= 3
        record["model"] |= {"name": "flux-dev", "title": "FLUX.1-dev"}

    message, inputs = restore(events, forged(uploads, picture.path, change), local=True)
    assert "Width is 2048; a whole number from 128 to 256" in message and "Number of steps is 900" in message
    assert "It was made with FLUX.1-dev. This page runs Demo (miniature)" in message
    assert "Add the content image “a.png” again" in message and "It used 3 style images; this page takes 2." in message
    assert inputs.width == inputs.num_inference_steps == KEEP and (inputs.seed, inputs.prompt) == (9, "x")
    assert inputs.content_image is None and len(hashes(inputs.style_image, inputs.extra_style_image)) == 2


def test_a_picture_with_other_loras_or_another_kept_size_is_told(events: Events, uploads: Path) -> None:
    """Catches settings that are "filled in" and make another picture, and a record that fails the page."""
    picture = made(events, prompt="x")[1]

    def change(record: dict[str, Any]) -> None:
        record["request"] |= {"keep_input_size": True, "width": 304, "height": 208}
        record["model"] |= {"added_loras": [{"file": "<ink>", "strength": 0.8}, 7], "lora_scale": 0.5}

    message = restore(events, forged(uploads, picture.path, change))[0]
    assert "Its LoRAs: &lt;ink&gt; at 0.8, USO&#x27;s own at 0.5. Those of this page: USO&#x27;s own at 1." in message
    assert "It is 304 × 208; here Keep input size gives a long side of 256." in message
    assert "LoRA" not in restore(events, brought(uploads, picture.path))[0]


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": ["x"], "width": "w" * 9999, "seed": 10**400, "guidance_scale": {}, "keep_input_size": 7},
        {"prompt": "\ud800", "height": None, "content_size": float("inf"), "num_inference_steps": True},
        {"prompt": "a" * 10**6, "schedule": "<b>" * 999},
    ],
)
def test_hostile_values_are_told_in_sentences(events: Events, uploads: Path, values: dict[str, Any]) -> None:
    """Catches a record that fails the page, floods it, or is run in it."""
    picture = made(events)[1]
    message, inputs = restore(events, forged(uploads, picture.path, lambda record: record["request"].update(values)))
    message.encode()
    assert len(message) < 4000 and "<b>" not in message and "Traceback" not in message
    assert inputs.prompt == KEEP and inputs.num_inference_steps in (2, KEEP)


def test_files_that_are_no_pictures_of_ours_are_refused(events: Events, uploads: Path, tmp_path: Path) -> None:
    """Catches a refusal that shows where the server keeps things, or that empties what was filled in."""
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (20, 20)).save(tmp_path / "other.png")
    whole = made(events)[1].path.read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    for name, words in (
        ("text.png", "mine.png is not a picture"),
        ("other.png", "mine.png holds no request: it was not made by this program"),
        ("torn.png", "mine.png is damaged or incomplete"),
    ):
        message, inputs = restore(events, brought(uploads, tmp_path / name, "mine.png"))
        assert words in message and 'role="alert"' in message and str(uploads) not in message
        assert inputs == Inputs(*[KEEP] * len(Inputs._fields))
    message, _ = restore(events, {"path": "/etc/hostname"})
    assert "was not uploaded to this page" in message
