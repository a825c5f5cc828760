"""WebP, GIF, BMP, AVIF and JPEG 2000: the first picture, metadata aside, and bounded work."""

import struct
import time
from typing import Any

import pytest
from PIL import Image

from tests.support.image_files import P3, difference, encode, photo, rgb_profile
from uso.errors import ImageError
from uso.images.pixels import open_image, upright_size

RED, BLUE = (255, 0, 0), (0, 0, 255)


def riff(data: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_webp_without_its_metadata(lossless: bool, alpha: bool) -> None:
    """Catches a picture lost with EXIF that is cut off or nonsense."""
    picture = photo()
    if alpha:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    data = encode(picture, "WEBP", lossless=lossless, exif=b"Exif\0\0II*\0" + b"\xff" * 400, xmp=b"<x" * 100)
    plain = open_image(encode(picture, "WEBP", lossless=lossless))
    for off in (0, 1, 30, 150, 300):
        assert open_image(data[: len(data) - off]).tobytes() == plain.tobytes()
    assert open_image(data[:4] + b"\1\0\0\0" + data[8:]).tobytes() == plain.tobytes()  # a wrong size of the whole


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_many_frames_cost_as_much_as_one(form: str) -> None:
    frames = [Image.new("RGB", (600, 600), (4 * number, 0, 0)) for number in range(50)]
    one, many = encode(frames[0], form), encode(frames[0], form, save_all=True, append_images=frames[1:])
    open_image(one)
    started = time.process_time()
    first = open_image(one)
    single = time.process_time() - started
    opened = open_image(many)
    assert difference(opened, first) < 1
    assert time.process_time() - started - single < 5 * single + 0.2


def test_an_animation_that_is_cut_after_its_first_frame_is_read() -> None:
    for form in ("GIF", "WEBP"):
        frames = [photo(), photo().transpose(Image.Transpose.ROTATE_180)]
        data = encode(frames[0], form, save_all=True, append_images=frames[1:])
        assert open_image(data[:-500]).tobytes() == open_image(data).tobytes()


def test_a_gif_without_its_comments() -> None:
    """Each comment is added to those before it: a few bytes each, and the whole again for each."""
    data = encode(photo().quantize(64), "GIF")
    at = 13 + 3 * 64
    started = time.process_time()
    assert open_image(data[:at] + b"!\xfe\1a\0" * 300_000 + data[at:]).tobytes() == open_image(data).tobytes()
    with pytest.raises(ImageError, match="more than a million blocks"):
        open_image(data[:at] + b"!\xfe\1a\0" * 1_200_000 + data[at:])
    assert time.process_time() - started < 3


def test_a_bmp_of_run_lengths_is_small() -> None:
    """Decoded in Python, pixel by pixel where a row ends early."""

    def file(side: int) -> bytes:
        body = b"\1\1\0\0" * side + b"\0\1"
        head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0) + b"\0\0\1\0" * 256
        return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body

    assert open_image(file(300)).size == (300, 300)
    with pytest.raises(ImageError, match="a BMP with run lengths of more than 8 megapixels"):
        open_image(file(4000))


def test_a_bmp_keeps_its_profile() -> None:
    profile, picture = rgb_profile(P3, 2.2), photo()
    plain = encode(picture, "BMP")
    pixels = plain[54:]
    head = struct.pack("<I", 124) + plain[18:54] + bytes(16) + b"DEBM" + bytes(48)
    head += struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 124) + head + pixels + profile
    assert open_image(data).tobytes() == open_image(encode(picture, icc_profile=profile)).tobytes()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tile_size": (16, 16)}, r"a JPEG 2000 of 256 tiles"),
        ({"codeblock_size": (4, 4)}, r"code blocks of 4 x 4 pixels"),
    ],
)
@pytest.mark.parametrize("bare", [False, True], ids=["jp2", "code stream"])
def test_a_jpeg_2000_of_small_pieces_is_refused(options: dict[str, Any], reason: str, bare: bool) -> None:
    data = encode(Image.new("RGB", (256, 256), RED), "JPEG2000", no_jp2=bare, **options)
    for look in (open_image, upright_size):
        with pytest.raises(ImageError, match=reason):
            look(data)


@pytest.mark.parametrize(
    ("at", "number", "reason"),
    [(6, struct.pack(">H", 300), "of 300 layers"), (14, b"\0\0\0\0\0\0", "of more than 262144 precincts")],
    ids=["layers", "precincts"],
)
def test_a_jpeg_2000_of_many_passes_is_refused(at: int, number: bytes, reason: str) -> None:
    data = encode(Image.new("L", (1024, 1024)), "JPEG2000", precinct_size=(64, 64), no_jp2=True)
    assert open_image(data).size == (1024, 1024)
    at += data.index(b"\xff\x52")
    with pytest.raises(ImageError, match=reason):
        open_image(data[:at] + number + data[at + len(number) :])


@pytest.mark.parametrize(
    "options",
    [{}, {"tile_size": (64, 64)}, {"codeblock_size": (16, 16)}, {"precinct_size": (64, 64)}, {"irreversible": True}],
)
def test_an_ordinary_jpeg_2000_is_read(options: dict[str, Any]) -> None:
    for bare in (False, True):
        opened = open_image(encode(photo(), "JPEG2000", no_jp2=bare, **options))
        assert difference(opened, photo()) < 3


def test_a_jpeg_2000_is_as_large_as_its_code_stream() -> None:
    """Catches a header that says 64 x 64 before 89 megapixels, and what is beyond the limit of this slow format."""
    data = encode(Image.new("L", (5000, 5000)), "JPEG2000")
    with pytest.raises(ImageError, match=r"x has 5000 x 5000 pixels; of a JPEG 2000 at most 24 megapixels"):
        open_image(data, "x")
    data = encode(photo(), "JPEG2000")
    at = data.index(b"ihdr") + 4
    with pytest.raises(ImageError, match="it names two sizes"):
        open_image(data[:at] + struct.pack(">II", 64, 64) + data[at + 8 :])
