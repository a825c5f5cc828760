"""TIFF: the first picture, if it is the picture; directories that are no bomb."""

import struct
import time

import numpy as np
import pytest
from PIL import Image

from tests.support.image_files import difference, encode, grey_tags, photo, scans, tiff
from uso.errors import ImageError
from uso.images.pixels import open_image, upright_size

FOUR = bytes((0, 10, 100, 255))


@pytest.mark.parametrize(
    "extra",
    [{50706: [1, 4]}, {262: [32803]}, {262: [34892]}, {259: [34713]}, {254: [1], 50706: [1]}],
    ids=["DNG", "colour filters", "linear raw", "Nikon", "DNG with a preview"],
)
def test_camera_raws_are_refused_as_raws(extra: dict[int, list[int]]) -> None:
    """Catches a raw that is read as the thumbnail that it begins with."""
    data = tiff(grey_tags(4, 8, 4) | extra, FOUR)
    for look in (open_image, upright_size):
        with pytest.raises(ImageError, match=r"photo\.tif is a camera raw.*small preview could be read\. Develop it"):
            look(data, "photo.tif")


@pytest.mark.parametrize("below", [True, False], ids=["below", "after"])
def test_a_raw_is_known_by_any_of_its_pictures(below: bool) -> None:
    """NEF and ARW begin with an ordinary preview, and have their raw data in a directory of their own."""
    second = struct.pack("<HHHIHHI", 1, 262, 3, 1, 32803, 0, 0)
    data = tiff(grey_tags(4, 8, 4) | ({330: [70000]} if below else {}), FOUR)
    data += bytes(70000 - len(data)) + second
    if not below:
        at = struct.unpack_from("<I", data, 4)[0] + 2 + 12 * 9
        data = data[:at] + struct.pack("<I", 70000) + data[at + 4 :]
    with pytest.raises(ImageError, match="is a camera raw"):
        open_image(data)


@pytest.mark.parametrize("tag", [{254: [1]}, {255: [2]}])
def test_a_reduced_first_picture_is_refused(tag: dict[int, list[int]]) -> None:
    with pytest.raises(ImageError, match=r"x is a TIFF whose first picture is a reduced preview\. Save the picture"):
        open_image(tiff(grey_tags(4, 8, 4) | tag, FOUR), "x")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_is_the_right_way_round(order: str, white_is_zero: bool, bits: int) -> None:
    """Catches a negative: Pillow does not turn 16 bits of which 0 is white."""
    numbers = (0, 100, 128, 255)
    data = struct.pack(
        f"{order}4{'B' if bits == 8 else 'H'}", *(number * (1 if bits == 8 else 257) for number in numbers)
    )
    tags = grey_tags(4, bits, len(data), photometric=0 if white_is_zero else 1)
    seen = [255 - number if white_is_zero else number for number in numbers]
    assert np.asarray(open_image(tiff(tags, data, order)))[0, :, 0].tolist() == seen


def test_grey_of_12_bits_is_not_black() -> None:
    data = tiff(grey_tags(4, 12, 6), bytes((0, 0, 0xFF, 0xFF, 0xF8, 0)))
    assert np.asarray(open_image(data))[0, :, 0].tolist() == [0, 16, 255, 128]


@pytest.mark.parametrize(
    "compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "zstd", "lzma", "group4"]
)
@pytest.mark.parametrize("big", [False, True])
def test_every_compression_is_read(compression: str, big: bool) -> None:
    picture = photo().convert("1") if compression == "group4" else photo()
    opened = open_image(encode(picture, "TIFF", compression=compression, big_tiff=big))
    assert difference(opened, picture.convert("RGB")) < 6


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "LA", "P", "1", "LAB"])
def test_every_mode_survives_the_new_directory(mode: str) -> None:
    picture = photo().convert(mode) if mode != "LAB" else Image.new("LAB", (9, 9), (128, 128, 128))
    opened = open_image(encode(picture, "TIFF"))
    if mode == "LAB":  # L 50: the middle grey
        assert np.abs(np.asarray(opened, np.float64) - 119).max() <= 4
    else:
        assert difference(opened, picture.convert("RGB")) < 0.01


@pytest.mark.parametrize(
    "extra",
    [
        {700: [9, 9, 9], 34665: [8], 34853: [12], 33723: [4, 5, 6], 34675: [1, 2, 3]},
        {tag: [1, 2, 3] for tag in range(40000, 43000)},
        {305: [70000], 306: [1], 282: [0], 296: [9]},
    ],
    ids=["metadata of nonsense", "thousands of entries", "texts and resolutions of wrong types"],
)
def test_other_entries_cost_no_picture(extra: dict[int, list[int]]) -> None:
    assert np.asarray(open_image(tiff(grey_tags(4, 8, 4) | extra, FOUR)))[0, :, 0].tolist() == list(FOUR)


JPEG = encode(Image.new("L", (64, 64), 90), "JPEG", progressive=True)


@pytest.mark.parametrize(
    ("tags", "data", "reason"),
    [
        (grey_tags(4, 8, 4) | {273: [8] * 70000, 279: [1] * 70000, 257: [1]}, FOUR, "more than 65536 strips"),
        (grey_tags(4, 8, 4) | {273: [8, 8, 8], 279: [4, 4, 4]}, FOUR, "more strips or tiles than its size allows"),
        (grey_tags(1, 8, 400) | {257: [1000], 273: [8] * 1000, 279: [4000] * 1000}, bytes(4000), "one upon the other"),
        (
            grey_tags(4, 8, 4) | {322: [60000], 323: [60000], 324: [8], 325: [4]},
            FOUR,
            "its tiles are far larger than the picture",
        ),
        (grey_tags(64, 8, len(JPEG), compression=7) | {257: [64], 278: [64]}, JPEG, None),
        (
            grey_tags(64, 8, 10**6, compression=7) | {257: [64], 278: [64]},
            scans(JPEG, 60),
            "holds a JPEG of more than 32 scans",
        ),
        (grey_tags(4, 8, 4, compression=6), FOUR, r"of a compression that is not read \(number 6\)"),
    ],
)
def test_work_is_bounded(tags: dict[int, list[int]], data: bytes, reason: str | None) -> None:
    """Catches directories of a few kilobytes that are minutes of decoding or gigabytes of memory."""
    started = time.process_time()
    if reason is None:
        assert open_image(tiff(tags, data)).size == (64, 64)
    else:
        with pytest.raises(ImageError, match=reason):
            open_image(tiff(tags, data))
    assert time.process_time() - started < 1


def test_entries_that_share_their_bytes_are_not_copied() -> None:
    entries = b"".join(struct.pack("<HHII", tag, 7, 700_000, 0) for tag in range(65535))
    started = time.process_time()
    with pytest.raises(ImageError):
        open_image(b"II*\0\x08\0\0\0\xff\xff" + entries)
    assert time.process_time() - started < 1
