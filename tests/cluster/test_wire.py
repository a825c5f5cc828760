"""Requests, progress, pictures and errors survive the way to another machine, as plain values."""

from typing import Any

import pytest
from PIL import Image, ImageChops

from uso import errors
from uso.cluster import wire
from uso.errors import ImageError, MissingWeightsError, RequestError, USOError
from uso.language import ENGLISH, Text, speak, told
from uso.request.references import ReferenceImage, SavedStyle
from uso.request.request import GenerationRequest, GenerationResult, Progress

PLAIN = (dict, list, tuple, str, bytes, int, float, bool, type(None))


def check_plain(value: Any) -> None:
    """Nothing that a pickle would need code for."""
    assert type(value) in PLAIN, value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        check_plain(one)


def a_style(image: Image.Image) -> SavedStyle:
    return SavedStyle.build(
        b"\0" * 24,
        "F32",
        (1, 2, 3),
        title="ink",
        thumbnail=ReferenceImage.from_pil(image.resize((8, 8))).data,
        strength=0.5,
        weights=[1.0],
        projector="ab" * 32,
    )


def test_a_request_is_the_same_on_the_other_side(demo_config: Any, image: Image.Image) -> None:
    """Catches a field that is forgotten, and a saved style that arrives as a broken image."""
    request = GenerationRequest.create(
        demo_config, "a fox", content_images=image, style_images=[image, a_style(image)], seed=7, num_images=3
    )
    plain = wire.request_out(request)
    check_plain(plain)
    assert b"" not in plain.values() and not any(isinstance(value, bytes) for value in plain.values())
    again = wire.request_in(plain, [reference.data for reference in wire.references_of(request)])
    assert again == request and isinstance(again.style_images[1], SavedStyle)


def test_progress_and_picture_are_the_same_on_the_other_side(demo_config: Any, image: Image.Image) -> None:
    """Catches tensors on the wire, and a picture that has another request than its own."""
    request = GenerationRequest.create(demo_config, "a fox", seed=7, num_images=3)
    step = Progress(stage="denoise", step=2, num_steps=9, image_index=1, num_images=3, seconds=0.5, denoised=object())
    plain = wire.event_out(step, request)
    check_plain(plain)
    assert wire.event_in(plain, request, "n") == Progress(**(vars(step) | {"denoised": None}))
    note = Text("{} reads English. T5 cannot read: {}.", "FLUX", "x")
    result = GenerationResult(
        image=image,
        request=request.single(2),
        model={"name": "demo", "versions": {"uso": "1"}},
        timings={"denoise": 1.5},
        peak_memory_gib=None,
        notes=(note,),
    )
    plain = wire.event_out(result, request)
    check_plain(plain)
    again = wire.event_in(plain, request, "node-7")
    assert isinstance(again, GenerationResult) and again.request == request.single(2)
    assert again.model == result.model | {"node": "node-7"} and again.timings == result.timings
    assert ImageChops.difference(again.image, image).getbbox() is None
    speak("zh-CN")
    try:
        assert told(again.notes[0]) == told(note) != str(note)
    finally:
        speak(ENGLISH)


@pytest.mark.parametrize(
    "error",
    [
        USOError("Out of memory."),
        RequestError(Text("The prompt has {} tokens; this model reads {}. Shorten it.", 99, 32), "prompt"),
        ImageError("No.", "content_images"),
        MissingWeightsError("Fetch them."),
    ],
)
def test_an_error_of_ours_stays_what_it_is(error: USOError) -> None:
    """Catches a refusal that people read as an accident, and a field that is not marked."""
    plain = wire.error_out(error)
    check_plain(plain)
    again = wire.error_in(plain, "n")
    assert type(again) is type(error) and str(again) == str(error)
    assert getattr(again, "field", "") == getattr(error, "field", "")


def test_an_error_of_a_stranger_brings_its_traceback_for_the_log() -> None:
    """Catches a name that is looked up and called because a node said so."""
    try:
        raise KeyError("secret")
    except KeyError as error:
        again = wire.error_in(wire.error_out(error), "node-7")
    assert type(again) is RuntimeError and "Traceback" in str(again) and "node-7" in str(again)
    for name in ("Iterator", "contextmanager", "about", "ValueError"):
        assert type(wire.error_in({"error": name, "text": "", "field": "", "traceback": ""}, "n")) is RuntimeError
    assert hasattr(errors, "contextmanager")
