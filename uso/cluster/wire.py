"""Requests, progress, pictures and errors as plain values, and back: dictionaries, lists, numbers, strings, bytes.

Ray pickles what it sends. Of plain values a pickle needs no code: neither the head nor a node of another version can
stumble over them, and a cluster can send none that would run here.
"""

import traceback
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from PIL import Image

from uso import errors
from uso.errors import RequestError, USOError
from uso.language import Text, text_of
from uso.request.references import ReferenceImage, SavedStyle
from uso.request.request import GenerationRequest, GenerationResult, Progress

KINDS = ("content_images", "style_images")
_PROGRESS = ("stage", "step", "num_steps", "image_index", "num_images", "seconds", "height", "width")
"""The fields of a `Progress` that are no tensors; these stay where they are."""

Value = Any
"""Dictionaries, lists, numbers, strings and bytes."""


def text_out(text: Any) -> Value:
    """A text with its template and values, so that it can be told in other languages; else a plain value as it is."""
    if isinstance(text, Text):
        return {"template": text.template, "values": [text_out(value) for value in text.values]}
    return text if isinstance(text, int | float | str) else str(text)


def text_in(value: Value) -> Any:
    if isinstance(value, dict):
        return Text.__new__(Text, value["template"], *(text_in(one) for one in value["values"]))
    return value


# Requests


def references_of(request: GenerationRequest) -> list[ReferenceImage]:
    return [*request.content_images, *request.style_images]


def request_out(request: GenerationRequest) -> Value:
    """Without the bytes of its images, which go beside it, in the order of `references_of`."""
    plain = {field.name: getattr(request, field.name) for field in fields(request) if field.name not in KINDS}
    names = {kind: [_named(reference) for reference in getattr(request, kind)] for kind in KINDS}
    return plain | names


def request_in(value: Value, images: Sequence[bytes]) -> GenerationRequest:
    """It was verified when it was made."""
    data = iter(images)
    found = {kind: tuple(reference_in(named, next(data)) for named in value[kind]) for kind in KINDS}
    return GenerationRequest(**(value | found | {"style_strengths": tuple(value["style_strengths"])}))


def _named(reference: ReferenceImage) -> Value:
    return {"name": reference.name, "saved": isinstance(reference, SavedStyle)}


def reference_out(reference: ReferenceImage) -> Value:
    return _named(reference) | {"data": reference.data}


def reference_in(value: Value, data: bytes | None = None) -> ReferenceImage:
    made = SavedStyle if value["saved"] else ReferenceImage
    return made(value["data"] if data is None else data, value["name"])


# What comes back


def event_out(event: Progress | GenerationResult, request: GenerationRequest) -> Value:
    if isinstance(event, Progress):
        return {name: getattr(event, name) for name in _PROGRESS}
    return {
        "picture": event.request.seed - request.seed,
        "image": image_out(event.image),
        "model": event.model,
        "timings": event.timings,
        "peak_memory_gib": event.peak_memory_gib,
        "notes": [text_out(note) for note in event.notes],
    }


def event_in(value: Value, request: GenerationRequest, node: str) -> Progress | GenerationResult:
    """
    Args:
        request: what was asked for.
        node: the machine that it comes from; recorded in the picture.
    """
    if "picture" not in value:
        return Progress(**value)
    return GenerationResult(
        image=image_in(value["image"]),
        request=request.single(value["picture"]),
        model=value["model"] | {"node": node},
        timings=value["timings"],
        peak_memory_gib=value["peak_memory_gib"],
        notes=tuple(text_in(note) for note in value["notes"]),
    )


def image_out(image: Image.Image) -> Value:
    """8-bit RGB."""
    return {"size": list(image.size), "pixels": image.convert("RGB").tobytes()}


def image_in(value: Value) -> Image.Image:
    return Image.frombytes("RGB", tuple(value["size"]), value["pixels"])


# Errors


def error_out(error: BaseException) -> Value:
    return {
        "error": type(error).__name__,
        "text": text_out(text_of(error)) if isinstance(error, USOError) else "",
        "field": getattr(error, "field", ""),
        "traceback": "".join(traceback.format_exception(error)),
    }


def error_in(value: Value, node: str) -> Exception:
    """The same error, if it is one of this program's; else one that holds the traceback, for the log."""
    kind = getattr(errors, value["error"], None)
    if not (isinstance(kind, type) and issubclass(kind, USOError)):
        return RuntimeError(f"On {node}: {value['traceback']}")
    text = text_in(value["text"])
    return kind(text, value["field"]) if issubclass(kind, RequestError) else kind(text)
