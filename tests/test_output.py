"""Pictures on disk: they hold their whole request, appear complete or not at all, and are never lost or overwritten."""

import logging
import os
import re
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from tests.support.records import DEMO, MODEL, result, rewritten
from uso import output
from uso.errors import OutputError
from uso.request.request import GenerationRequest, ReferenceImage


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# There and back.


@pytest.mark.parametrize(
    "prompt",
    ["", "A red fox", "一只红色的狐狸", "ثعلب أحمر", "лиса 🦊", 'quotes " and \\ and\nnew lines', "x" * 10_000],
)
def test_whole_request_survives_in_any_language(tmp_path: Path, image: Image.Image, prompt: str) -> None:
    """A tEXt chunk would break outside Latin-1, a forgotten field would repeat another picture."""
    content, style = (
        ReferenceImage.from_pil(image.resize(size), f"{size[0]} 图.png") for size in ((200, 150), (64, 64))
    )
    made = result(
        image,
        prompt=prompt,
        content_images=[content],
        style_images=[style, content],
        keep_input_size=True,
        num_inference_steps=7,
        guidance_scale=2.5,
        content_size=96,
        seed=2**32 - 1,
        schedule=0.75,
        tiled_decode=True,
    )
    saved = output.read(output.save(made, tmp_path))
    again = GenerationRequest.create(DEMO, **saved.values(), **saved.references([tmp_path]))
    assert again == made.request
    assert saved.model == MODEL
    assert saved.record["program"]["name"] == "uso"
    assert saved.record["timings"] == {"denoise": 1.235}


def test_pixels_are_the_pictures_own(tmp_path: Path, image: Image.Image) -> None:
    with Image.open(output.save(result(image), tmp_path)) as saved:
        assert (saved.format, saved.mode, saved.tobytes()) == ("PNG", "RGB", image.tobytes())


def test_the_record_is_an_international_text_chunk(tmp_path: Path, image: Image.Image) -> None:
    """What other programs find: keyword `uso` in an iTXt chunk, JSON in UTF-8, readable as it stands."""
    data = output.save(result(image, prompt="狐狸"), tmp_path).read_bytes()
    assert b"iTXtuso\0\0\0\0\0{" in data
    assert "狐狸".encode() in data


def test_a_record_is_read_however_long_it_is_and_without_decoding(tmp_path: Path, image: Image.Image) -> None:
    """Catches a picture that cannot be repeated because Pillow reads no text of more than a megabyte."""
    path = output.save(result(image), tmp_path, extra={"note": "a" * 2_000_000})
    whole = path.read_bytes()
    at = whole.index(b"IDAT") + 20
    path.write_bytes(whole[:at] + b"xxxx" + whole[at + 4 :])
    assert output.read(path).record["note"] == "a" * 2_000_000
    path.write_bytes(whole[:-20])
    with pytest.raises(OutputError, match="is not a picture that can be read"):
        output.read(path)


# Names.


@pytest.mark.parametrize(
    "prompt", ["../../../tmp/evil", "/etc/passwd", "con", "a" * 5000, ".hidden", "-rf", "~", "$(id)"]
)
def test_hostile_prompts_stay_in_the_folder_under_a_plain_name(tmp_path: Path, image: Image.Image, prompt: str) -> None:
    path = output.save(result(image, prompt=prompt), tmp_path / "out")
    assert path.parent == tmp_path / "out"
    assert re.fullmatch(r"\d{8}-\d{6}_seed42_[a-z0-9-]+\.png", path.name)
    assert names(tmp_path) == [path.name]


# Failures.


def test_an_impossible_name_does_not_cost_the_picture(
    tmp_path: Path, image: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    path = output.save(result(image, prompt="kept"), tmp_path, "x" * 300)
    assert path.parent == tmp_path and output.read(path).record["request"]["prompt"] == "kept"
    assert "was saved as" in caplog.text and "File name too long" in caplog.text


def test_an_unwritable_folder_does_not_cost_the_picture(
    tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder was checked at the door, but minutes pass before the picture is there."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    made = result(image, content_images=[image])
    path = output.save(made, tmp_path / "file" / "out")
    assert path.parent == tmp_path / "temporary" / "uso-outputs"
    saved = output.read(path)
    assert saved.references([path.parent])["content_images"] == list(made.request.content_images)
    assert str(path) in caplog.text and "Not a directory" in caplog.text


def test_nowhere_to_write_is_said(tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"^The picture could not be saved: .* Free some space and try again\.$"):
        output.save(result(image), tmp_path / "file")


def test_a_file_name_that_is_no_utf8_does_not_cost_the_picture(tmp_path: Path, image: Image.Image) -> None:
    """Such names reach Python with lone surrogates, which no iTXt chunk can hold."""
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")
    image.save(odd)
    saved = output.read(output.save(result(image, content_images=[odd]), tmp_path / "out"))
    assert saved.record["request"]["content_images"][0]["name"] == "caf?.png"


# The door.


def test_unwritable_folder_is_refused_at_the_door(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"^Pictures cannot be written to .*file/out \(Not a directory\)\. Choose another output folder\.$"
    with pytest.raises(OutputError, match=message):
        output.check_folder(tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_refused_at_the_door(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"Permission denied"):
        output.check_folder(tmp_path)


def test_checking_a_file_leaves_nothing(tmp_path: Path) -> None:
    output.check_file(tmp_path / "new" / "a.png")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.jpg", r"a\.jpg does not end in \.png; pictures are PNG files, which hold their request\."),
        ("there.png", r"there\.png exists already, and nothing is overwritten\. Choose another name or remove it\."),
        ("link.png", r"link\.png exists already"),
        ("x" * 300 + ".png", r"cannot be written \(File name too long\)\. Choose another name\."),
    ],
)
def test_files_refused_at_the_door(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "there.png").write_text("")
    (tmp_path / "link.png").symlink_to("nowhere")
    with pytest.raises(OutputError, match=sentence):
        output.check_file(tmp_path / name)


# References.


def test_references_are_kept_once_by_hash(tmp_path: Path, image: Image.Image) -> None:
    """A thousand pictures in one style keep one copy of it, byte for byte."""
    style, content = ReferenceImage.from_pil(image), ReferenceImage.from_pil(image.resize((64, 64)))
    for number in range(3):
        output.save(result(image, style_images=[style, style], content_images=[content], seed=number), tmp_path)
    kept = sorted((tmp_path / output.REFERENCES).iterdir())
    assert [path.name for path in kept] == sorted([style.sha256, content.sha256])
    assert (tmp_path / output.REFERENCES / style.sha256).read_bytes() == style.data


def test_references_that_cannot_be_kept_do_not_cost_the_picture(
    tmp_path: Path, image: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / output.REFERENCES).write_text("in the way")
    with caplog.at_level(logging.WARNING):
        path = output.save(result(image, content_images=[image]), tmp_path)
    assert path.exists() and "could not be kept" in caplog.text


@pytest.mark.parametrize(("kind", "flag"), [("content_images", "--content"), ("style_images", "--style")])
def test_a_missing_reference_is_named_and_can_be_given_again(
    tmp_path: Path, image: Image.Image, kind: str, flag: str
) -> None:
    lost = ReferenceImage.from_pil(image, "cat.jpg")
    saved = output.read(output.save(result(image, **{kind: [lost]}), tmp_path))
    (tmp_path / output.REFERENCES / lost.sha256).unlink()
    word = kind.split("_")[0]
    message = (
        rf"The {word} image 'cat\.jpg' \(SHA-256 {lost.sha256[:12]}\.\.\.\) of .* Give it again with {flag} FILE\."
    )
    with pytest.raises(OutputError, match=message):
        saved.references([tmp_path])
    wrong = ReferenceImage.from_pil(image.rotate(90), "cat.jpg")
    with pytest.raises(OutputError, match=message):
        saved.references([tmp_path], [wrong])
    renamed = ReferenceImage(lost.data, "other name.png")
    assert saved.references([tmp_path], [wrong, renamed])[kind] == [renamed]


def test_references_are_looked_for_in_every_folder(tmp_path: Path, image: Image.Image) -> None:
    made = result(image, style_images=[image])
    saved = output.read(output.save(made, tmp_path / "a"))
    assert saved.references([tmp_path / "b", tmp_path / "a"])["style_images"] == list(made.request.style_images)


def test_a_changed_reference_does_not_pass_for_the_recorded_one(tmp_path: Path, image: Image.Image) -> None:
    made = result(image, style_images=[image])
    saved = output.read(output.save(made, tmp_path))
    (tmp_path / output.REFERENCES / made.request.style_images[0].sha256).write_bytes(b"another picture")
    with pytest.raises(OutputError, match="Give it again"):
        saved.references([tmp_path])


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_tampered_hash_is_not_taken_for_a_path(tmp_path: Path, image: Image.Image, name: str) -> None:
    """Joined to the folder unseen, it would read any file of the server into a picture."""
    path = output.save(result(image, content_images=[image]), tmp_path)
    changed = rewritten(path, lambda record: record["request"]["content_images"][0].update(sha256=name))
    with pytest.raises(OutputError, match=r"names a reference by something other than a SHA-256\."):
        output.read(changed).references([tmp_path])
