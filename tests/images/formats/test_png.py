"""PNG: pixels decide; what else a file holds costs neither the picture nor time."""

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support.image_files import SIGNATURE, chunk, chunks, encode, photo, png, with_chunk
from uso.errors import ImageError
from uso.images.formats.png import text_of
from uso.images.pixels import open_image, upright_size

PICTURE = photo()
FILE = encode(PICTURE)

SPARE = {
    "a workflow of 2 MB": (b"zTXt", b"workflow\0\0" + zlib.compress(b"a" * 2_000_000)),
    "text of 200 MB": (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(200_000_000))),
    "text of an unknown packing": (b"zTXt", b"a\0\7junk"),
    "text without an end": (b"tEXt", b"\xff" * 50),
    "a profile of 1.2 MB": (b"iCCP", b"p\0\0" + zlib.compress(np.random.default_rng(0).bytes(1_200_000))),
    "a profile of 60 MB": (b"iCCP", b"p\0\0" + zlib.compress(bytes(60_000_000))),
    "a profile that is not packed": (b"iCCP", b"p\0\0junk"),
    "EXIF of nonsense": (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 99),
    "EXIF of gigabytes": (
        b"eXIf",
        b"II*\0\x08\0\0\0\xff\xff" + b"".join(struct.pack("<HHII", tag, 7, 700_000, 0) for tag in range(65535)),
    ),
    "a rendering intent without one": (b"sRGB", b""),
    "a size without one": (b"pHYs", b"\1"),
    "colours cut short": (b"cHRM", b"abc"),
    "brightness cut short": (b"gAMA", b""),
    "half an animation": (b"acTL", b"\0"),
    "a palette of no use": (b"PLTE", b"ab"),
    "transparency cut short": (b"tRNS", b"\0"),
    "something unknown": (b"abCd", b"x"),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("spare", SPARE)
def test_a_chunk_that_is_not_needed_costs_no_picture(spare: str, after: bool) -> None:
    """Catches metadata that are damaged or huge and make a file that every browser shows "no picture"."""
    started = time.process_time()
    for wrong in (False, True):
        opened = open_image(with_chunk(FILE, *SPARE[spare], wrong=wrong, after=after))
        assert opened.tobytes() == PICTURE.tobytes()
    assert time.process_time() - started < 2


def test_pixels_may_be_in_pieces_with_text_between() -> None:
    head, (_, pixels), tail = chunks(FILE)
    parts = [(b"IDAT", pixels[at : at + 100]) for at in range(0, len(pixels), 100)]
    parts.insert(3, (b"tEXt", b"a\0b"))
    assert open_image(png([head, *parts, tail])).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("bytes_off", range(1, 21))
def test_the_end_may_be_missing_where_all_pixels_are_there(bytes_off: int) -> None:
    """Catches a file refused for its last chunk, or for the checksum of its pixels."""
    assert open_image(FILE[:-bytes_off]).tobytes() == PICTURE.tobytes()


def test_a_wrong_checksum_of_all_pixels_costs_no_picture() -> None:
    head, (_, pixels), tail = chunks(FILE)
    assert open_image(png([head, (b"IDAT", pixels[:-4] + b"abcd"), tail])).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_the_end_may_be_missing_in_every_mode(mode: str) -> None:
    """Catches rows counted wrongly when the pixels are packed anew."""
    deep = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    data = encode(deep if mode == "I;16" else PICTURE.convert(mode))
    assert open_image(data[:-18]).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SIGNATURE + chunk(*chunks(FILE)[0], wrong=True) + FILE[33:], "its header is damaged"),
        (png([chunks(FILE)[0], chunks(FILE)[-1]]), "its pixel data end too early"),
        (png([part for part in chunks(encode(PICTURE.convert("P"))) if part[0] != b"PLTE"]), "its palette is missing"),
        (png([chunks(FILE)[0], *[(b"tEXt", b"")] * 70_000, *chunks(FILE)[1:]]), "more than 65536 chunks"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=rf"^photo\.png .*{reason}.*Save it again as PNG or JPEG\.$"):
        open_image(data, "photo.png")


def test_few_bytes_that_unpack_to_gigabytes_cost_a_row() -> None:
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 << 20)) for _ in range(500)) + packer.flush()
    started = time.process_time()
    open_image(png([(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")]))
    assert time.process_time() - started < 1


@pytest.mark.parametrize("after", [False, True])
def test_exif_counts_wherever_it_stands(after: bool) -> None:
    """Catches a size told from the head that is not the picture's."""
    exif = b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    data = with_chunk(FILE, b"eXIf", exif, after=after)
    assert upright_size(data) == open_image(data).size == (120, 160)


@pytest.mark.parametrize(
    ("bits", "row", "seen"),
    [(1, b"\xa0", [255, 0, 255, 0]), (2, b"\x1b", [0, 255, 170, 255]), (4, b"\x01\x23", [0, 255, 34, 51])],
)
def test_transparent_grey_of_few_bits(bits: int, row: bytes, seen: list[int]) -> None:
    """The transparent value is counted in the file's bits: as 8 bits, another grey or none becomes transparent."""
    header = (b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0))
    data = png([header, (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")])
    assert np.asarray(open_image(data))[0, :, 0].tolist() == seen


def test_transparent_grey_of_16_bits() -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16
    data = with_chunk(encode(Image.fromarray(values)), b"tRNS", struct.pack(">H", 160))
    opened = np.asarray(open_image(data)).astype(float)[..., 0]
    assert opened[0, 10] == 255
    opened[0, 10] = values[0, 10] / 257
    assert np.abs(opened - values / 257).max() <= 0.5 + 1e-3


def test_transparent_colour_of_16_bits() -> None:
    colours = (0x1234, 0x5678, 0x9ABC), (0, 0x8000, 0xFFFF)
    header = (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    row = b"\0" + struct.pack(">6H", *colours[0], *colours[1])
    data = png([header, (b"tRNS", struct.pack(">3H", *colours[0])), (b"IDAT", zlib.compress(row)), (b"IEND", b"")])
    assert np.asarray(open_image(data))[0].tolist() == [[255, 255, 255], [0, 128, 255]]


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "packed iTXt"])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_text_is_read_in_all_its_forms(kind: str, size: int) -> None:
    """Catches a record that an editor wrote in another kind of chunk, and one longer than Pillow reads."""
    text, info = "a" * size, PngImagePlugin.PngInfo()
    if kind.endswith("iTXt"):
        info.add_itxt("uso", text, zip=kind.startswith("packed"))
    else:
        info.add_text("uso", text, zip=kind == "zTXt")
    data = encode(PICTURE, pnginfo=info)
    assert text_of(data, "uso") == text and text_of(data, "us") is None
