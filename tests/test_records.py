"""Records of pictures, read back: whole, without pixels, and refused where they are damaged or another's."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tests.support.records import foreign, result, rewritten
from uso import output
from uso.errors import OutputError


def test_files_that_hold_no_request_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^There is no file .*none\.png\.$"):
        output.read(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(OutputError, match=r"text\.png is not a picture that can be read\.$"):
        output.read(tmp_path / "text.png")
    with pytest.raises(
        OutputError, match=r"plain\.png holds no request: it was not made by this program, or an editor"
    ):
        output.read(foreign(tmp_path / "plain.png", None))
    with pytest.raises(OutputError, match=r"other\.png holds no request"):
        output.read(foreign(tmp_path / "other.png", "{}", keyword="parameters"))
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.jpg")
    with pytest.raises(OutputError, match=r"photo\.jpg holds no request"):
        output.read(tmp_path / "photo.jpg")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": "uso-picture/1"}', "[" * 100_000])
def test_damaged_records_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(OutputError, match=r"a\.png holds a damaged request\."):
        output.read(foreign(tmp_path / "a.png", text))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(request=[]),
        lambda record: record.update(model="demo"),
        lambda record: record["model"].pop("name"),
        lambda record: record["request"].pop("style_images"),
        lambda record: record["request"].update(style_images="abc"),
        lambda record: record["request"].update(style_images=[{"name": "a"}]),
        lambda record: record["request"].update(style_images=[{"sha256": 7, "name": "a"}]),
        lambda record: record["request"].update(config="/etc/passwd"),
    ],
)
def test_tampered_records_are_refused(tmp_path: Path, image: Image.Image, change: Any) -> None:
    """Repeating one would fail with a TypeError, or pass arguments that a request does not have."""
    changed = rewritten(output.save(result(image), tmp_path), change)
    with pytest.raises(OutputError, match=r"changed\.png holds a damaged request\."):
        output.read(changed)


def test_a_newer_form_is_refused_by_name(tmp_path: Path, image: Image.Image) -> None:
    path = output.save(result(image), tmp_path)
    changed = rewritten(path, lambda record: record.update(format="uso-picture/9"))
    with pytest.raises(
        OutputError, match=r"a request of the form 'uso-picture/9'; this program reads 'uso-picture/1'\."
    ):
        output.read(changed)


def test_every_picture_of_several_records_itself_alone(tmp_path: Path, image: Image.Image) -> None:
    """Recorded as the first of three, the second would repeat as the first."""
    whole = result(image, num_images=3, seed=7)
    saved = output.read(output.save(replace(whole, request=whole.request.single(1)), tmp_path))
    assert (saved.values()["seed"], saved.values()["num_images"]) == (8, 1)


# The record alone is read.


@pytest.mark.parametrize("add", ["add_itxt", "add_text"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_record_is_found_in_every_kind_of_chunk(
    tmp_path: Path, image: Image.Image, add: str, packed: bool, after: bool
) -> None:
    """An editor may write the text anew: packed, as another kind, behind the pixels."""
    text = json.dumps(output.read(output.save(result(image, prompt="a fox"), tmp_path)).record)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("usofar", "{")
    getattr(info, add)(output.CHUNK, text, zip=packed)
    image.save(tmp_path / "edited.png", pnginfo=info)
    data = (tmp_path / "edited.png").read_bytes()
    chunks = list(pieces(data))
    if after:
        chunks.insert(-1, chunks.pop(next(n for n, one in enumerate(chunks) if one[8:12] == b"uso\0")))
    (tmp_path / "edited.png").write_bytes(data[:8] + b"".join(chunks))
    assert output.read(tmp_path / "edited.png").values()["prompt"] == "a fox"


def pieces(data: bytes) -> Iterator[bytes]:
    """The chunks of a PNG, whole."""
    at = 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at:end]
        at = end


def test_pixels_are_not_decoded_to_read_the_record(
    tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding every picture of a folder took a minute at a start after a crash."""
    path = output.save(result(image), tmp_path)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    assert output.read(path).values()["seed"] == 42


def test_a_record_that_was_changed_or_is_too_long_is_refused(tmp_path: Path, image: Image.Image) -> None:
    """A byte that flipped would repeat another picture; a text that unpacks to a gigabyte would stop the server."""
    data = output.save(result(image, prompt="a fox"), tmp_path).read_bytes()
    (tmp_path / "flipped.png").write_bytes(data.replace(b"a fox", b"a box"))
    info = PngImagePlugin.PngInfo()
    info.add_itxt(output.CHUNK, " " * 2**28, zip=True)
    image.save(tmp_path / "bomb.png", pnginfo=info)
    for name in ("flipped", "bomb"):
        with pytest.raises(OutputError, match=rf"{name}\.png holds (no|a damaged) request"):
            output.read(tmp_path / f"{name}.png")


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    """A pipe under a picture's name held the start up for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        with pytest.raises(OutputError, match=rf"{name}\.png is not a picture that can be read\.$"):
            output.read(tmp_path / f"{name}.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match=r"There is no file"):
        output.read(tmp_path / "link.png")
