"""JPEG: scans are counted, metadata cost nothing, and a missing end only where pixels are there."""

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.image_files import difference, encode, noise, photo, scans
from uso.errors import ImageError
from uso.images.formats.jpeg import MAX_SCANS
from uso.images.pixels import open_image, upright_size

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full colour": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 4},
    "own tables": {"optimize": True},
}
MODES = ("L", "RGB", "CMYK")


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segment(data: bytes, marker: int, body: bytes, times: int = 1) -> bytes:
    return data[:2] + segment(marker, body) * times + data[2:]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_pass_over_all_pixels_costs_more_bytes_than_are_sent(mode: str) -> None:
    """Catches a small file of 150 scans that keeps a reader busy for a minute; ten are usual."""
    data = encode(Image.new(mode, (1000, 1000), 128 if mode == "L" else (1, 128, 40)), "JPEG", progressive=True)
    usual = data.count(b"\xff\xda")
    assert open_image(scans(data, MAX_SCANS - usual)).size == (1000, 1000)
    started = time.process_time()
    for extra in (MAX_SCANS - usual + 1, 150):
        for look in (open_image, upright_size):
            with pytest.raises(
                ImageError, match=r"p\.jpg would take too long to open: it is a JPEG of more than 32 scans"
            ):
                look(scans(data, extra), "p.jpg")
    assert time.process_time() - started < 0.5


def test_scans_of_a_preview_do_not_count() -> None:
    data = encode(photo(), "JPEG")
    preview = scans(encode(noise(), "JPEG", progressive=True), 60)
    assert len(preview) < 65000
    assert open_image(with_segment(data, 0xE2, preview)).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_end_marker_may_be_missing(mode: str, kind: str) -> None:
    """Catches a photograph that every browser shows, refused for its last two bytes."""
    data = encode(photo().convert(mode), "JPEG", **KINDS[kind])
    for off in (1, 2):
        assert open_image(data[:-off]).tobytes() == open_image(data).tobytes()
    assert difference(open_image(data[:-3]), open_image(data)) < 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_pixels_that_are_missing_are_not_made_up(mode: str, kind: str) -> None:
    """Catches grey where the file was cut, in every order in which pixels are written."""
    data = encode(photo(400, 300).convert(mode), "JPEG", quality=95, **KINDS[kind])
    for kept in (0.3, 0.5, 0.7, 0.85):
        with pytest.raises(ImageError, match=r"its pixel data end too early"):
            open_image(data[: round(len(data) * kept)])


def test_all_of_a_tiny_picture_is_not_its_last_rows() -> None:
    data = encode(noise(16), "JPEG", quality=95)
    with pytest.raises(ImageError, match="its pixel data end too early"):
        open_image(data[: data.rindex(b"\xff\xda") + 40])


def test_what_follows_the_end_does_not_matter() -> None:
    """Phones append films and depth maps."""
    data = encode(photo(), "JPEG")
    film = encode(noise(), "JPEG") + b"ftyp" + bytes(1000)
    assert open_image(data + film).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize(
    "spare",
    [
        (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 99),
        (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xc4\x09" + struct.pack("<HHII", 30000, 7, 60000, 0) * 2500),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<broken"),
        (0xE2, b"ICC_PROFILE\0\1\2half"),
        (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
        (0xED, b"Photoshop 3.0\x008BIM\xff"),
        (0xEE, b"Adobe"),
        (0xE0, b"JFIF\0\1"),
        (0xFE, b"\xff" * 60000),
    ],
)
def test_broken_metadata_cost_no_picture(spare: tuple[int, bytes]) -> None:
    data = encode(photo(), "JPEG")
    assert open_image(with_segment(data, *spare)).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize("scan", [False, True], ids=["before", "after the scan"])
def test_millions_of_empty_segments_cost_nothing(scan: bool) -> None:
    data = encode(photo(), "JPEG")
    at = len(data) - 2 if scan else 2
    started = time.process_time()
    with pytest.raises(ImageError, match="would take too long to open: it is made of more than 65536 parts"):
        open_image(data[:at] + segment(0xFE, b"") * 3_000_000 + data[at:])
    filled = data[:at] + b"\xff" * 10_000_000 + data[at:]
    assert open_image(filled).tobytes() == open_image(data).tobytes()
    assert time.process_time() - started < 2


def test_an_mpo_is_its_first_picture() -> None:
    frames = [photo(), noise(48)]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    first = Image.open(io.BytesIO(data))
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(first))


def test_twelve_bits_are_refused_as_such() -> None:
    data = bytearray(encode(photo(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageError, match="is a JPEG of 12 bits per colour; 8 are read"):
        open_image(bytes(data))
