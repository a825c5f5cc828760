"""From a finished picture back to the fields of the page: what its PNG records, as far as model and asker allow.

A PNG that somebody brings holds whatever its sender wanted: each value is verified by itself, and the images that it
names are handed out only to whom they belong (`entitled`).
"""

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder

from uso import output
from uso.config import ModelConfig
from uso.errors import OutputError, RequestError
from uso.image_formats.kinds import kind_of
from uso.images import MAX_PIXELS
from uso.request import GenerationRequest, ReferenceImage
from uso.web.access.identity import Asker
from uso.web.api.calls import Inputs, uploaded
from uso.web.jobs.queue import JobQueue
from uso.web.store.history import record_of

MAX_SENTENCE = 240
"""Characters of what is said about one value: a hostile one may be long."""

CONTENTS, STYLES = 1, 2
"""Images of each kind that the page has fields for."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

KEEP = gr.skip()
"""In place of a value: leaves a component as it is."""


class Restored(NamedTuple):
    """What goes into the fields, and what could not."""

    inputs: Inputs
    """`KEEP` where a field stays as it is."""
    remarks: list[str]
    """Sentences, each about something that was not filled in or is not as it was."""


def brought(value: Any, max_pixels: int = MAX_PIXELS) -> tuple[str, output.SavedPicture]:
    """(name, record) of the PNG that a raw value of a file field stands for. It decodes the picture.

    Raises:
        RequestError, OutputError: it was not uploaded here, or holds no request; in words without places on the server.
    """
    file = uploaded(value, max_pixels)
    if file is None:
        raise RequestError("Choose a PNG file that this program made.")
    path = Path(value["path"])
    try:
        return file.name, output.read(path)
    except OutputError as error:
        raise OutputError(str(error).replace(str(path), file.name)) from error


def entitled(queue: JobQueue, asker: Asker, saved: output.SavedPicture) -> output.SavedPicture | None:
    """The record whose reference images this asker may have: whoever has somebody's PNG must not get their photographs.

    For a person at this very machine it is the PNG's own. For everybody else it is the copy that the server itself
    kept, of a picture that it made for this asker; None if there is none.
    """
    if asker.local:
        return saved
    named = saved.record.get("job")
    found = queue.ledger.of_record(asker.owner, named) if isinstance(named, str) else None
    return None if found is None else record_of(found)


def restored(
    config: ModelConfig, saved: output.SavedPicture, source: output.SavedPicture | None, pictures: Path
) -> Restored:
    """The fields that make a picture again.

    Args:
        saved: the PNG's record.
        source: the record whose reference images may be handed out.
        pictures: the folder beside which they are kept.
    """
    remarks = _differences(config, saved)
    allowed = {sha for sha, _ in _named(source)} if source is not None else set()
    images = _images(saved, lambda sha: _stored(pictures, sha) if sha in allowed else None, remarks)
    return Restored(_values(config, saved.values(), remarks)._replace(**images), remarks)


def _values(config: ModelConfig, values: dict[str, Any], remarks: list[str]) -> Inputs:
    """All fields but the images; each value alone at the door, the others being the model's defaults."""
    kept = values.get("keep_input_size") is True  # then width and height follow from the content image
    taken: dict[str, Any] = {}
    for name in Inputs._fields:
        if name.endswith("_image") or name not in values:
            continue
        taken[name] = KEEP
        if name == "keep_input_size":
            taken[name] = kept
        elif not (name in ("width", "height") and kept) and not (name == "guidance_scale" and not config.guidance):
            try:
                taken[name] = getattr(GenerationRequest.create(config, **{name: values[name]}), name)
            except (RequestError, OverflowError) as error:
                remarks.append(_short(str(error)))
    return Inputs(**{name: taken.get(name, KEEP) for name in Inputs._fields})


def _differences(config: ModelConfig, saved: output.SavedPicture) -> list[str]:
    """What the page has no field for, and so cannot bring back."""
    remarks, values = [], saved.values()
    if saved.model.get("name") != config.name:
        made_by = saved.model.get("title") or saved.model.get("name")
        remarks.append(_short(f"It was made by {made_by}; {config.title} runs here and will make another picture."))
    elif values.get("schedule", config.defaults.schedule) != config.defaults.schedule:
        remarks.append(_short(f"Its schedule ({values['schedule']}) cannot be chosen on this page."))
    return remarks


def _images(
    saved: output.SavedPicture, find: Callable[[str], ReferenceImage | None], remarks: list[str]
) -> dict[str, str | None]:
    """The image fields, as paths of new files where uploads are; what is missing is named."""
    fields: dict[str, str | None] = {}
    missing = []
    for kind, names in (("content_images", ["content_image"]), ("style_images", ["style_image", "extra_style_image"])):
        entries = saved.record["request"][kind]
        for name, entry in zip(names, [*entries, *[None] * len(names)], strict=False):
            found = find(entry["sha256"]) if entry else None
            fields[name] = None if found is None else _put(found, entry["name"])
            if entry and found is None:
                missing.append(f"the {kind.split('_')[0]} image “{entry['name'][:60]}”")
        if len(entries) > len(names):
            remarks.append(f"It used {len(entries)} {kind.replace('_', ' ')}; this page takes {len(names)}.")
    if missing:
        what = "it" if len(missing) == 1 else "them"
        remarks.append(_short(f"Add {', '.join(missing)} again; this page cannot bring {what} back."))
    return fields


def _named(saved: output.SavedPicture) -> list[tuple[str, str]]:
    """(SHA-256, name) of every reference image."""
    return [(entry["sha256"], entry["name"]) for kind in output.KINDS for entry in saved.record["request"][kind]]


def _stored(pictures: Path, sha256: str) -> ReferenceImage | None:
    """A reference image that is kept beside the pictures and is still what it was."""
    if not _SHA256.fullmatch(sha256):
        return None
    try:
        found = ReferenceImage((pictures / output.REFERENCES / sha256).read_bytes())
    except OSError:
        return None
    return found if found.sha256 == sha256 else None


def _put(image: ReferenceImage, name: str) -> str | None:
    """A file where uploads are, byte for byte, under a name that says nothing but what the image is called."""
    try:
        ending = kind_of(image.data).lower()
        if not ending:
            return None
        folder = Path(get_upload_folder()) / uuid.uuid4().hex
        folder.mkdir(parents=True)
        path = folder / f"{output.slug(Path(name).stem)}.{ending}"
        path.write_bytes(image.data)
    except OSError:  # the disk is full, say
        return None
    return str(path)


def _short(sentence: str) -> str:
    """A sentence that holds foreign text, so that it can be shown: not endless, and valid Unicode."""
    told = sentence.encode("utf-8", "replace").decode()
    return told if len(told) <= MAX_SENTENCE else f"{told[:MAX_SENTENCE]} ..."
