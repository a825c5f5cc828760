"""Saved styles: the same picture as their images give, and files that are anything else are refused."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors

from tests.conftest import draw_picture
from uso import USOPipeline
from uso.errors import ImageError, RequestError
from uso.pipeline.saved_styles import projector_fingerprint
from uso.request.references import MAX_STYLE_IMAGES, ReferenceImage, SavedStyle, read_reference
from uso.request.request import GenerationRequest

SMALL: dict[str, Any] = {"width": 128, "height": 128, "num_inference_steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def ink(demo_pipeline: USOPipeline) -> SavedStyle:
    return demo_pipeline.save_style(draw_picture(100, 80, seed=2), "Ink 墨", strength=0.5)


def picture(pipeline: USOPipeline, styles: Any, **values: Any) -> bytes:
    return pipeline("A fox.", **SMALL, style_images=styles, **values).images[0].tobytes()


def test_a_saved_style_is_its_image(demo_pipeline: USOPipeline, ink: SavedStyle, tmp_path: Path) -> None:
    """Bit for bit, from the file too. Catches tokens that lose digits, and a strength that is not applied."""
    image = draw_picture(100, 80, seed=2)
    (tmp_path / "a.safetensors").write_bytes(ink.data)
    for style in (ink, tmp_path / "a.safetensors"):
        assert picture(demo_pipeline, style, style_strengths=1) == picture(demo_pipeline, image)
        assert picture(demo_pipeline, style) == picture(demo_pipeline, image, style_strengths=0.5)
    assert ink.name == "Ink 墨.safetensors" and ink.image.size == (256, 256)
    request = GenerationRequest.create(demo_pipeline.model_config, style_images=[ink, image])
    assert request.style_strengths == (0.5, 1.0)


def test_several_images_count_as_one(demo_pipeline: USOPipeline) -> None:
    """Catches a style of two images that counts twice, and weights that are exchanged."""
    one, other = draw_picture(100, 80, seed=2), draw_picture(100, 80, seed=3)
    both = demo_pipeline.save_style([one, other], "Both")
    assert picture(demo_pipeline, both) == picture(demo_pipeline, [one, other], style_strengths=[0.5, 0.5])
    blend = demo_pipeline.save_style([one, other], "Blend", weights=[1.4, 0.6])
    assert picture(demo_pipeline, blend) == picture(demo_pipeline, [one, other], style_strengths=[1.4, 0.6])
    assert picture(demo_pipeline, [blend, one], style_strengths=[0, 1]) == picture(demo_pipeline, one)
    shape = GenerationRequest.create(demo_pipeline.model_config, style_images=blend).strengths
    assert shape == [1.4, 0.6]


def test_other_programs_can_read_the_file(ink: SavedStyle) -> None:
    tensors = load_tensors(ink.data)
    assert set(tensors) == {"tokens", "thumbnail"} and tensors["tokens"].shape == ink.head.shape


def test_a_new_name_changes_nothing_else(ink: SavedStyle) -> None:
    renamed = ink.renamed("x")
    assert renamed.head.title == "x" and renamed.name == "x.safetensors"
    assert (renamed.tokens, renamed.thumbnail) == (ink.tokens, ink.thumbnail)
    assert renamed.renamed("Ink 墨").data == ink.data
    for name in ("", " ", "a\nb", "x" * 61, "\ud800", None):
        with pytest.raises(RequestError, match="A style needs a name of 1 to 60 visible characters"):
            ink.renamed(name)  # type: ignore[arg-type]


def test_another_projectors_style_is_refused(demo_pipeline: USOPipeline, ink: SavedStyle) -> None:
    """It would be noise to this one. Catches a fingerprint that depends on the dtype, or not on the weights."""
    other = changed(ink, lambda header: header["__metadata__"].update(projector="0" * 64))
    with pytest.raises(RequestError, match="The style “Ink 墨” was saved with another style projector"):
        picture(demo_pipeline, other)
    shaped = changed(
        ink, lambda header: header["tokens"].update(shape=[1, ink.head.shape[1] * 2, ink.head.shape[2] // 2])
    )
    with pytest.raises(RequestError, match="tokens of another size"):
        picture(demo_pipeline, shaped)
    embedder: Any = demo_pipeline.context_embedder
    level = embedder.levels["low"].norm
    kept = level.weight.detach().clone()
    try:
        embedder.levels.to(torch.bfloat16)
        assert projector_fingerprint(embedder) == ink.head.projector
        level.weight.data[0] += 1
        assert projector_fingerprint(embedder) != ink.head.projector
    finally:
        embedder.levels.to(torch.float32)
        level.weight.data.copy_(kept)


def test_what_no_style_can_be_saved_from(demo_pipeline: USOPipeline, ink: SavedStyle) -> None:
    image = Image.new("RGB", (16, 16))
    for arguments, sentence in (
        (([], "x"), "1 to 8 images, not 0"),
        (([image] * (MAX_STYLE_IMAGES + 1), "x"), "1 to 8 images, not 9"),
        (([ink], "x"), "is a saved style already"),
        ((image, ""), "A style needs a name"),
    ):
        with pytest.raises(RequestError, match=sentence):
            demo_pipeline.save_style(*arguments)
    for weights in ([1, 1], [0], [2.5], [float("nan")]):
        with pytest.raises(RequestError, match=r"[Ww]eight"):
            demo_pipeline.save_style(image, "x", weights=weights)
    with pytest.raises(ImageError, match="is a saved style. The content must be an image"):
        GenerationRequest.create(demo_pipeline.model_config, content_images=ink)


def changed(style: SavedStyle, change: Callable[[dict[str, Any]], Any], rest: bytes | None = None) -> SavedStyle:
    """The style with another header, or with other bytes after it."""
    header = json.loads(style.data[8 : style.head.start])
    change(header)
    text = json.dumps(header).encode()
    return SavedStyle(
        len(text).to_bytes(8, "little") + text + (style.data[style.head.start :] if rest is None else rest), "x"
    )


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no metadata": lambda header: header.pop("__metadata__"),
    "another format": lambda header: header["__metadata__"].update(format="pt"),
    "no tokens": lambda header: header.pop("tokens"),
    "more tensors": lambda header: header.update(more=header["tokens"]),
    "huge shape": lambda header: header["tokens"].update(shape=[1, 2**62, 2**62]),
    "negative shape": lambda header: header["tokens"].update(shape=[-1, -1, 1]),
    "other dtype": lambda header: header["tokens"].update(dtype="I64"),
    "overlapping": lambda header: header["tokens"].update(data_offsets=[0, 8]),
    "thumbnail beyond": lambda header: header["thumbnail"].update(data_offsets=[0, 2**40], shape=[2**40]),
    "strength": lambda header: header["__metadata__"].update(strength="nan"),
    "weights": lambda header: header["__metadata__"].update(weights="[1, 1]"),
    "heavy": lambda header: header["__metadata__"].update(weights="[1e9]"),
    "fingerprint": lambda header: header["__metadata__"].update(projector="../" * 20),
    "name": lambda header: header["__metadata__"].update(title="a\u0000b"),
    "no text": lambda header: header["__metadata__"].update(title=7),
}


@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN.keys())
def test_a_strangers_file_is_checked(ink: SavedStyle, break_it: Callable[[dict[str, Any]], Any]) -> None:
    """Catches a shape that reserves all memory, and an error that is no sentence."""
    with pytest.raises(ImageError, match=r"^x cannot be used as a style: .*\. Choose an image, or a style"):
        _ = read_reference(changed(ink, break_it).data, "x").image


def test_the_numbers_and_the_thumbnail_are_checked(ink: SavedStyle) -> None:
    """Catches NaN, which would spoil pictures, and a thumbnail that fills the memory when it is shown."""
    numbers = np.frombuffer(ink.tokens, np.float32).copy()
    numbers[5] = np.inf
    spoiled = changed(ink, lambda header: None, ink.thumbnail + numbers.tobytes())
    with pytest.raises(ImageError, match="not finite"):
        _ = spoiled.image
    big = ReferenceImage.from_pil(Image.new("RGB", (300, 300))).data

    def with_big(header: dict[str, Any]) -> None:
        header["thumbnail"] = {"dtype": "U8", "shape": [len(big)], "data_offsets": [0, len(big)]}
        header["tokens"]["data_offsets"] = [len(big), len(big) + len(ink.tokens)]

    with pytest.raises(ImageError, match="larger than 256 pixels"):
        _ = changed(ink, with_big, big + ink.tokens).image
    for data in (b"", ink.data[:100], ink.data[:-1], ink.data + b"x", struct.pack("<Q", 5) + b"{" + b"[" * 5000):
        with pytest.raises(ImageError):
            _ = read_reference(data, "x").image
    for bits in (0x7F80, 0xFF80, 0x7FC0):  # bfloat16: infinities and NaN

        def as_bfloat16(header: dict[str, Any]) -> None:
            header["tokens"].update(dtype="BF16", shape=[1, 1, 2])
            start = header["tokens"]["data_offsets"][0]
            header["tokens"]["data_offsets"] = [start, start + 4]

        _ = changed(ink, as_bfloat16, ink.thumbnail + struct.pack("<HH", 0x3F80, 0x7F7F)).image
        with pytest.raises(ImageError, match="not finite"):
            _ = changed(ink, as_bfloat16, ink.thumbnail + struct.pack("<HH", 0x3F80, bits)).image
