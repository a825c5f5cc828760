"""From a finished picture back to the fields of the page: what its PNG records, as far as model and asker allow.

A PNG from a browser may hold anything. So each value is checked by itself, and the images that it names are given only
to the person they belong to (`entitled`).
"""

import filecmp
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gradio.utils import get_upload_folder

from uso import files, output
from uso.config import ModelConfig
from uso.errors import ImageError, RequestError
from uso.images.formats.kinds import kind_of
from uso.images.pixels import MAX_PIXELS
from uso.language import Text, joined, text_of
from uso.request.checks import check_style_strength, check_style_strengths
from uso.request.references import ReferenceImage, SavedStyle, read_reference
from uso.request.request import RANDOM_SEED, GenerationRequest
from uso.web.access.identity import Asker
from uso.web.api.calls import IMAGE_FIELDS, STRENGTH_FIELDS, Inputs, number_of_images
from uso.web.api.files import upload_path, uploaded
from uso.web.page.inputs import KEEP
from uso.web.page.record import loras, loras_of
from uso.web.store.history import of_job_digest, record_of
from uso.web.store.ledger import Ledger

MAX_SENTENCE = 240
"""Characters of a remark about one value: a hostile value may be long."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Restored(NamedTuple):
    """Values for the fields, and what could not be filled in."""

    inputs: Inputs
    """`KEEP` where a field stays as it is."""
    remarks: list[str]
    """Sentences, each about something that is missing or different."""


def with_remarks(sentence: str, found: Restored) -> str:
    return joined(sentence, *found.remarks)


def brought(value: Any, max_pixels: int = MAX_PIXELS) -> tuple[str, output.SavedPicture]:
    """(name, record) of the PNG that the raw value of a file field stands for. Decodes the picture.

    Raises:
        RequestError, OutputError: it was not uploaded here, or holds no request. Paths of the server are not named.
    """
    file = uploaded(value, max_pixels)
    if file is None:
        raise RequestError(Text("Choose a PNG file that was made with USO."))
    return file.name, output.read(value["path"], file.name)


def entitled(ledger: Ledger, asker: Asker, saved: output.SavedPicture) -> output.SavedPicture | None:
    """The record whose reference images this asker may have: somebody's PNG must not give access to their photos.

    For a person at this machine it is the PNG's own record. For everybody else it is the server's own copy, of a
    picture that it made for this asker, or None.
    """
    if asker.local:
        return saved
    named = saved.record.get("job")
    found = of_job_digest(ledger, asker.owner, named) if isinstance(named, str) else None
    return None if found is None else record_of(found)


def restored(
    config: ModelConfig, saved: output.SavedPicture, source: output.SavedPicture | None, pictures: Path
) -> Restored:
    """The values that make a picture again.

    Args:
        saved: the PNG's record.
        source: the record whose reference images may be given out.
        pictures: the output folder, where reference images are kept.
    """
    remarks = _differences(config, saved)
    allowed = {sha for sha, _ in _named(source)} if source is not None else set()
    images = _images(saved, lambda sha: stored(pictures, sha) if sha in allowed else None, remarks)
    values = field_values(config, saved.values(), remarks)
    return Restored(values._replace(**images, **_strengths(saved, remarks)), remarks)


def unless_held(fields: Inputs, held: Inputs) -> Inputs:
    """The same values, but a field that holds its image already keeps it, with the name of its own file.

    Args:
        held: raw values of the fields as they are.
    """
    same = {name for name in IMAGE_FIELDS if _is_file(getattr(fields, name), getattr(held, name))}
    return fields._replace(**dict.fromkeys(same, KEEP))


def _is_file(path: Any, value: Any) -> bool:
    """Whether the raw value of an image field stands for the bytes of a file."""
    given = upload_path(value)
    try:
        return isinstance(path, str) and given is not None and filecmp.cmp(path, given, shallow=False)
    except (OSError, ValueError):
        return False


def field_values(config: ModelConfig, values: dict[str, Any], remarks: list[str]) -> Inputs:
    """All fields but the images. Each value is checked alone, with the model's defaults for the others.

    Args:
        remarks: gets a sentence for each value that is refused.
    """
    kept = values.get("keep_input_size") is True  # then width and height follow from the content image
    width, height, longest = values.get("width"), values.get("height"), config.limits.max_size
    if kept and isinstance(width, int) and isinstance(height, int) and max(width, height) > longest:
        remarks.append(
            _short(Text("It is {} × {}; here Keep input size gives a long side of {}.", width, height, longest))
        )
    taken: dict[str, Any] = {}
    for name in Inputs._fields:
        if name.endswith("_image") or name not in values:
            continue
        taken[name] = KEEP
        if name == "keep_input_size":
            taken[name] = kept
        elif not (name in ("width", "height") and kept) and not (name == "guidance_scale" and not config.guidance):
            try:
                taken[name] = _checked(config, name, values[name])
            except (RequestError, OverflowError) as error:
                remarks.append(_short(text_of(error)))
    return Inputs(**{name: taken.get(name, KEEP) for name in Inputs._fields})


def _checked(config: ModelConfig, name: str, value: Any) -> Any:
    """A field's value, held to what the model takes.

    Raises:
        RequestError: it is refused, with the reason.
    """
    if name in STRENGTH_FIELDS:
        return check_style_strength(name, value)
    if name == "num_images":
        return number_of_images(Inputs(num_images=value))
    checked = getattr(GenerationRequest.create(config, **{name: value}), name)
    return RANDOM_SEED if name == "seed" and value == RANDOM_SEED else checked  # not the one that was drawn


def _differences(config: ModelConfig, saved: output.SavedPicture) -> list[str]:
    """Settings that the page has no field for."""
    remarks, values = [], saved.values()
    if saved.model.get("name") != config.name:
        made_by = saved.model.get("title") or saved.model.get("name")
        here = Text("This page runs {}, which makes a different picture.", config.title)
        remarks.append(_short(joined(Text("It was made with {}.", made_by), here)))
        return remarks
    its, ours = loras({"lora_scale": 1.0} | saved.model), loras(loras_of(config))
    if its != ours:
        remarks.append(
            _short(Text("Its LoRAs: {}. Those of this page: {}.", its or Text("none"), ours or Text("none")))
        )
    if values.get("schedule", config.defaults.schedule) != config.defaults.schedule:
        remarks.append(_short(Text("Its schedule ({}) cannot be chosen on this page.", values["schedule"])))
    return remarks


def _images(
    saved: output.SavedPicture, find: Callable[[str], ReferenceImage | None], remarks: list[str]
) -> dict[str, str | None]:
    """The image fields, as paths of new files among the uploads. Missing images are named in `remarks`."""
    fields: dict[str, str | None] = {}
    missing: list[Text] = []
    for kind, names in (("content_images", ["content_image"]), ("style_images", ["style_image", "extra_style_image"])):
        entries = saved.record["request"][kind]
        for name, entry in zip(names, [*entries, *[None] * len(names)], strict=False):
            found = find(entry["sha256"]) if entry else None
            fields[name] = None if found is None else put(found, entry["name"])
            if entry and found is None:
                missing.append(
                    Text("the content image “{}”", entry["name"][:60])
                    if kind == "content_images"
                    else Text("the style image “{}”", entry["name"][:60])
                )
        if len(entries) > len(names):
            remarks.append(
                Text("It used {} content images; this page takes {}.", len(entries), len(names))
                if kind == "content_images"
                else Text("It used {} style images; this page takes {}.", len(entries), len(names))
            )
    if len(missing) == 1:
        remarks.append(_short(Text("Add {} again; this page cannot bring it back.", missing[0])))
    elif missing:
        listed = joined(*missing, between=", ")
        remarks.append(_short(Text("Add {} again; this page cannot bring them back.", listed)))
    return fields


def _strengths(saved: output.SavedPicture, remarks: list[str]) -> dict[str, float]:
    """The strength fields; a picture from before there were strengths has 1."""
    names = ("style_strength", "extra_style_strength")
    try:
        styles = [1.0] * len(saved.record["request"]["style_images"])
        strengths = check_style_strengths(saved.values().get("style_strengths"), styles)
    except RequestError as error:
        remarks.append(_short(text_of(error)))
        strengths = ()
    return dict(zip(names, [*strengths, 1.0, 1.0], strict=False))


def _named(saved: output.SavedPicture) -> list[tuple[str, str]]:
    """(SHA-256, name) of every reference image."""
    return [(entry["sha256"], entry["name"]) for kind in output.KINDS for entry in saved.record["request"][kind]]


def stored(pictures: Path, sha256: str) -> ReferenceImage | None:
    """A reference image that is kept with the pictures, if it is there and unchanged."""
    if not _SHA256.fullmatch(sha256):
        return None
    try:
        found = read_reference((pictures / output.REFERENCES / sha256).read_bytes(), sha256)
    except (OSError, ImageError):
        return None
    return found if found.sha256 == sha256 else None


def put(image: ReferenceImage, name: str) -> str | None:
    """The image as a file among the uploads, byte for byte. Its name tells nothing but the image's own name."""
    kind = "safetensors" if isinstance(image, SavedStyle) else kind_of(image.data)
    if not kind:
        return None
    try:
        folder = Path(get_upload_folder()) / uuid.uuid4().hex
        folder.mkdir(parents=True)
        path = folder / f"{files.slug(Path(name).stem)}.{kind.lower()}"
        path.write_bytes(image.data)
    except OSError:  # a full disk
        return None
    return str(path)


def _short(sentence: str) -> str:
    """A sentence that contains foreign text, cut to a length that can be shown and made valid Unicode."""
    valid = sentence.encode("utf-8", "replace").decode()
    if valid == sentence and len(valid) <= MAX_SENTENCE:
        return sentence
    return valid if len(valid) <= MAX_SENTENCE else f"{valid[:MAX_SENTENCE]} ..."
