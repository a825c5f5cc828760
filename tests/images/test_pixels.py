"""Reference images: what people send is opened as a person sees it, and fitted as the released code fits it."""

import contextlib
import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from uso.errors import ImageError
from uso.images.pixels import (
    MAX_PIXELS,
    check_reference,
    fit_reference,
    fitted_size,
    open_image,
    upright,
    upright_size,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "case-a"
SIZES = json.loads((GOLDEN / "case.json").read_text())["preprocessed_sizes"]
GREY, RED, BLUE, WHITE, BLACK = (128, 128, 128), (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def split(left: Any, right: Any, mode: str = "RGB", size: tuple[int, int] = (8, 4)) -> Image.Image:
    """A picture whose left and right halves have one colour each."""
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    return image


def png_header(width: int, height: int) -> bytes:
    """The first bytes of a PNG that says it is this large: what a decompression bomb looks like."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (ihdr, idat)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# Opening.


def test_exif_orientation_is_applied() -> None:
    """Phone pictures lie on their side in the file; the network must see them upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    opened = open_image(encode(split(RED, BLUE), exif=exif))
    assert opened.size == (4, 8)
    assert opened.getpixel((0, 0)) == RED and opened.getpixel((0, 7)) == BLUE


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_applied_as_pillow_does(form: str, orientation: int) -> None:
    """Catches one of the eight ways to hold a camera that is turned wrongly, and a TIFF that is turned twice."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = split(RED, BLUE, size=(64, 32))
    image.paste(WHITE, (0, 0, 16, 16))
    data = encode(image, form, exif=exif)
    opened, expected = open_image(data), ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert opened.tobytes() == expected.tobytes()
    assert upright(opened).tobytes() == opened.tobytes()  # what was turned does not say so any more


def test_exif_of_unusual_types_does_not_matter() -> None:
    """Catches a photograph called damaged because some camera stored a number of its EXIF as text."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0128] = 2  # ResolutionUnit
    plain = encode(split(RED, BLUE, size=(64, 32)), "JPEG", exif=exif)
    odd = plain.replace(struct.pack(">HHIHH", 0x0128, 3, 1, 2, 0), struct.pack(">HHI4s", 0x0128, 2, 2, b"2"))
    assert odd != plain
    assert open_image(odd).tobytes() == open_image(plain).tobytes()
    assert upright_size(odd) == (32, 64)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_upright_size_is_known_from_the_head(form: str) -> None:
    """Catches a size told beforehand that is not the picture's, for one format or one way to hold a camera."""
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(Image.new("RGB", (40, 24)), form, exif=exif)
        assert upright_size(data) == open_image(data).size, orientation
    assert upright_size(encode(Image.new("RGB", (40, 24)), form)) == (40, 24)


def test_a_size_costs_no_pixels() -> None:
    """Catches a size for which a large picture is decoded: a file with nothing behind its head has one too."""
    assert upright_size(png_header(9000, 9000)) == (9000, 9000)
    with pytest.raises(ImageError, match="at most 50 megapixels"):
        upright_size(png_header(9000, 9000), max_pixels=50 * 10**6)
    with pytest.raises(ImageError, match="is not a picture"):
        upright_size(b"no picture")


@pytest.mark.parametrize(
    ("mode", "clear", "half"), [("RGBA", (255, 0, 0, 0), (255, 0, 0, 128)), ("LA", (0, 0), (0, 128))]
)
def test_alpha_is_composited_on_white(mode: str, clear: object, half: object) -> None:
    """Dropping alpha instead would show the hidden colour (often black) around a cut-out subject."""
    opened = open_image(encode(split(clear, half, mode)))
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == WHITE
    assert opened.getpixel((7, 0)) == ((255, 127, 127) if mode == "RGBA" else (127, 127, 127))


def test_palette_with_transparency_is_composited_on_white() -> None:
    """A palette index marked transparent keeps its colour in the file; plain convert("RGB") would show it."""
    image = Image.new("P", (8, 4), 0)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.paste(1, (4, 0, 8, 4))
    opened = open_image(encode(image, transparency=0))
    assert (opened.getpixel((0, 0)), opened.getpixel((7, 0))) == (WHITE, BLUE)


def test_plain_palette_keeps_its_colours() -> None:
    image = split(RED, BLUE).convert("P", palette=Image.Palette.ADAPTIVE)
    assert open_image(encode(image, "GIF")).tobytes() == split(RED, BLUE).tobytes()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(form: str) -> None:
    """Pillow's own conversion clips at 255, which turns nearly every 16-bit picture white."""
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    opened = open_image(encode(Image.fromarray(values), form))
    assert np.asarray(opened)[0].tolist() == [[v, v, v] for v in (0, 1, 128, 255)]


def test_16_bit_grey_is_the_same_in_either_order_of_bytes() -> None:
    """Catches a TIFF of a big-endian program that is called damaged."""
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    little = encode(Image.fromarray(values), "TIFF")
    big = encode(Image.frombytes("I;16B", (32, 32), values.astype(">u2").tobytes()), "TIFF")
    assert big[:2] == b"MM"
    assert open_image(big).tobytes() == open_image(little).tobytes()


def test_16_bit_grey_of_every_value_is_rounded_to_the_nearest() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    opened = np.asarray(open_image(encode(Image.fromarray(values))))[..., 0].astype(float)
    assert np.abs(opened - values / 257).max() <= 0.5 + 1e-3


def test_32_bit_grey_beyond_16_bits_is_refused() -> None:
    data = encode(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "TIFF")
    with pytest.raises(ImageError, match=r"deep\.tif holds values from 0 to 70000; 0 to 65535 is accepted"):
        open_image(data, "deep.tif")


def test_floating_point_pixels_are_refused() -> None:
    data = encode(Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)), "TIFF")
    with pytest.raises(ImageError, match=r"hdr\.tif holds floating-point pixels .* Save it with 8 or 16 bits\."):
        open_image(data, "hdr.tif")


@pytest.mark.parametrize("mode", ["1", "L", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    opened = open_image(encode(split(WHITE, BLACK).convert(mode), "TIFF"))
    assert (opened.mode, opened.getpixel((0, 0)), opened.getpixel((7, 0))) == ("RGB", WHITE, BLACK)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_animations_use_their_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (8, 4), colour) for colour in (RED, BLUE, WHITE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert open_image(data).getpixel((3, 3)) == RED


# Refusals, each with its sentence.


@pytest.mark.parametrize(
    "size", [(50_000, 50_000), (14_000, 7_000)], ids=["beyond Pillow's limit", "where Pillow only warns"]
)
def test_decompression_bomb_is_refused_unread(size: tuple[int, int]) -> None:
    """A kilobyte that unpacks to gigabytes would take the server's memory."""
    assert size[0] * size[1] > MAX_PIXELS
    with pytest.raises(ImageError, match=r"bomb\.png .*at most 89 megapixels"):
        open_image(png_header(*size), "bomb.png")


def test_truncated_jpeg_is_refused() -> None:
    """Half an upload must not be filled with grey in silence."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, "JPEG")
    with pytest.raises(ImageError, match=r"photo\.jpg is damaged or incomplete .* Save it again as PNG or JPEG\."):
        open_image(data[: len(data) // 2], "photo.jpg")


def test_truncated_png_is_refused() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(ImageError, match=r"photo\.png is damaged or incomplete"):
        open_image(encode(noise)[:5000], "photo.png")


@pytest.mark.parametrize(
    "data", [b"", b"I am a text file.\n", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_files_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(
        ImageError, match=r"notes\.txt is not a picture this program can read \(try PNG, JPEG or WebP\)\."
    ):
        open_image(data, "notes.txt")


def test_hostile_bytes_never_raise_anything_else() -> None:
    """Pillow's decoders raise many kinds of errors; all must arrive as a refusal, none as a server error."""
    rng = random.Random(0)
    originals = [
        encode(split(RED, BLUE, size=(32, 32)), form) for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")
    ]
    for _ in range(300):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(ImageError):
            open_image(bytes(data))


# Fitting a content reference.


@pytest.mark.parametrize("name", SIZES)
def test_fitted_sizes_are_the_released_ones(name: str) -> None:
    """Rounding instead of truncating moves the reference by a token and the picture with it."""
    (width, height), long_side = map(int, name.split("@")[0].split("x")), int(name.split("@")[1])
    if (width, height) == (16, 16):  # returned as it is; only the function that has the image does that
        assert list(fit_reference(Image.new("RGB", (16, 16)), long_side).size) == SIZES[name]
        return
    _, cropped = fitted_size(width, height, long_side)
    assert list(cropped) == SIZES[name]
    if min(cropped) > 0:
        assert list(fit_reference(Image.new("RGB", (width, height)), long_side).size) == SIZES[name]


def test_fitted_pixels_are_the_released_ones() -> None:
    """Another filter, or a crop from the corner, would show here."""
    long_side = json.loads((GOLDEN / "case.json").read_text())["content_long_side"]
    fitted = fit_reference(open_image((GOLDEN / "content.png").read_bytes()), long_side)
    assert fitted.tobytes() == Image.open(GOLDEN / "content_preprocessed.png").convert("RGB").tobytes()


def test_too_thin_reference_is_refused() -> None:
    message = r"pole\.png is too long and thin: 37 x 900 becomes 10 x 256 at content reference size 256, .* 16 pixels"
    with pytest.raises(ImageError, match=message):
        check_reference(37, 900, 256, "pole.png")
    check_reference(37, 900, 512)  # 16 pixels wide: allowed


def test_16_x_16_passes_at_every_size() -> None:
    """The released code's stand-in for "no picture" is not scaled."""
    image = split(RED, BLUE, size=(16, 16))
    for long_side in (256, 512, 1024):
        check_reference(16, 16, long_side)
        assert fit_reference(image, long_side) is image


def test_door_refuses_exactly_what_fitting_would_make_empty() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        width, height, long_side = rng.randint(1, 4000), rng.randint(1, 4000), rng.randint(256, 1024)
        if (width, height) == (16, 16):
            continue
        _, fitted = fitted_size(width, height, long_side)
        if min(fitted) < 16:
            with pytest.raises(ImageError):
                check_reference(width, height, long_side)
        else:
            check_reference(width, height, long_side)
            assert long_side - 16 < max(fitted) <= long_side
