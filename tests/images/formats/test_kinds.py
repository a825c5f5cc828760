"""What a file is: told by its first bytes, refused by name where it is not read."""

import subprocess

import pytest
from PIL import EpsImagePlugin, Image

from tests.support.image_files import difference, encode, photo
from uso.errors import ImageError
from uso.images.pixels import open_image, upright_size

PREFIX = "photo.png is not a picture this program can read (try PNG, JPEG or WebP)."


@pytest.mark.parametrize("form", ["PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_every_format_is_read_under_any_name(form: str) -> None:
    """Catches a format that falls off the list."""
    picture = Image.new("RGB", (48, 32), (200, 40, 80))
    opened = open_image(encode(picture, form), "notes.txt")
    assert opened.size == upright_size(encode(picture, form)) == (48, 32)
    assert difference(opened, picture) <= 4


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "an EPS file (PostScript)"),
        (b"\n %!PS-Adobe-3.0 EPSF-3.0\n", "an EPS file (PostScript)"),
        (b"\xc5\xd0\xd3\xc6" + bytes(28), "an EPS file (PostScript)"),
        (b"%PDF-1.7\n", "a PDF document"),
        (encode(photo(), "ICO"), "an icon (ICO)"),
        (b"8BPS\0\1" + bytes(30), "a Photoshop document (PSD)"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video"),
        (b"<!DOCTYPE html><html>", "a web page (HTML)"),
        (encode(photo(), "PPM"), "a Netpbm picture"),
        (encode(photo(), "PCX"), "a PCX picture"),
        (encode(photo(), "QOI"), "a QOI picture"),
        (encode(photo(), "DDS"), "a texture (DDS)"),
    ],
)
def test_other_formats_are_refused_by_name(data: bytes, what: str) -> None:
    """Catches a stranger's file that reaches a decoder which was never meant for it."""
    for look in (open_image, upright_size):
        with pytest.raises(ImageError) as refused:
            look(data, "photo.png")
        assert str(refused.value) == f"{PREFIX} It is {what}."


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"II*\0\x10\0\0\0CR\2\0", "CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
    ],
)
def test_camera_raws_that_are_no_tiff_are_refused_as_raws(head: bytes, what: str) -> None:
    with pytest.raises(ImageError, match=rf"It is a camera raw \({what}\)\. Develop it, and save it as PNG"):
        open_image(head + bytes(100))


def test_no_interpreter_starts_for_postscript(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an EPS called photo.png that runs Ghostscript."""

    def started(*args: object, **kwargs: object) -> None:
        raise AssertionError("an interpreter was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(subprocess, "check_call", started)
    with pytest.raises(ImageError, match="EPS"):
        open_image(encode(photo(), "EPS"), "photo.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_picture_cut_in_half_is_refused_with_the_reason(form: str, kept: float) -> None:
    """Catches grey in the lower half, and the words of a library where the file is simply not whole."""
    data = encode(photo(300, 300), form)
    with pytest.raises(ImageError) as refused:
        open_image(data[: round(len(data) * kept)], "photo")
    assert str(refused.value) in (
        "photo is damaged or incomplete (its pixel data end too early). Save it again as PNG or JPEG.",
        "photo is damaged, or of a kind of AVIF that is not read. Save it again as PNG or JPEG.",
    )
