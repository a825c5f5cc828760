"""Pixels of reference images: open what people send, fit it as the released code does, keep-input-size arithmetic.

Pillow only; no tensors here, so that a request can be verified before torch is imported. Sizes in this module are
(width, height) in pixels, as Pillow has them.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import ExifTags, Image

from uso.errors import ImageError, RequestError

TOKEN_SIZE = 16
"""Pixels per side of one transformer token: 8 (autoencoder) times 2 (patch)."""

MAX_PIXELS = 89_478_485
"""Largest reference accepted; Pillow's own threshold for a decompression bomb (a 0.25 GiB RGB picture)."""

_FULL_16_BIT = 65535

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Pillow's modes that a PNG holds as they are."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What shows the pixels of a file upright, by its EXIF orientation."""

_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations by which rows are shown as columns."""

_EXIF_KEYS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Where Pillow finds an orientation: none may stay behind once the pixels are turned."""


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Decode an image file as a person would see it: upright, on white, first frame, 8-bit RGB.

    Args:
        data: the bytes of the file (any format Pillow reads).
        name: how messages call the file.

    Raises:
        ImageError: no picture, damaged, more than `MAX_PIXELS`, or a number format without a defined range.
    """
    opened = identify(data, name)
    with _damage_said(name), opened:
        opened.seek(0)
        opened.load()
        return _to_rgb(upright(opened), name)


def as_png(image: Image.Image, name: str = "image") -> bytes:
    """A Pillow image as a PNG that `open_image` shows as it would the image's own file: upright, nothing lost.

    Of a mode that PNG does not have, it is the 8-bit RGB of `open_image`.

    Raises:
        ImageError: its file is damaged, or its numbers have no defined range.
    """
    buffer = io.BytesIO()
    with _damage_said(name):
        image.load()
        turned = upright(image)
        (turned if turned.mode in _PNG_MODES else _to_rgb(turned, name)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _damage_said(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # truncated data surfaces as OSError, SyntaxError, ValueError, struct.error ...
        raise ImageError(f"{name} is damaged or incomplete ({error}). Save it again as PNG or JPEG.") from error


def identify(data: bytes, name: str = "image", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Look at an image file's head: its format and size, no pixels.

    Raises:
        ImageError: no picture, or one of more than `max_pixels`.
    """
    try:
        # Pillow only warns between one and two times its bomb threshold; the size check below covers that range.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large to open safely: at most {MAX_PIXELS // 10**6} megapixels.") from error
    except Exception as error:  # Pillow's decoders raise many kinds of errors on hostile bytes.
        raise ImageError(f"{name} is not a picture this program can read (try PNG, JPEG or WebP).") from error
    width, height = opened.size
    if width * height > max_pixels:
        most = max_pixels // 10**6 or round(max_pixels / 10**6, 2)
        raise ImageError(
            f"{name} has {width} x {height} pixels; at most {most} megapixels are accepted. Scale it down."
        )
    return opened


def upright_size(data: bytes, name: str = "image", max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) that `open_image` will give, from the head alone: no pixels are decoded.

    Raises:
        ImageError: no picture, or one of more than `max_pixels`. That a file is incomplete is not seen here.
    """
    with identify(data, name, max_pixels) as opened:
        width, height = opened.size
        turned = _orientation(opened) in _ON_ITS_SIDE and not hasattr(opened, "tag_v2")  # a TIFF says its size upright
    return (height, width) if turned else (width, height)


def upright(image: Image.Image) -> Image.Image:
    """A decoded image turned as its EXIF orientation says; the pixels of a TIFF are already, and say so no more.

    `ImageOps.exif_transpose` writes all of the EXIF anew, and fails at tags of an unusual type.
    """
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in _EXIF_KEYS:
        turned.info.pop(key, None)
    return turned


def _orientation(image: Image.Image) -> Any:
    """As EXIF counts it, 1 to 8; 1 (upright) where nothing is said or it cannot be read."""
    try:
        # The base class's own: that of PNG reads all pixels, for what may come after them.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged; Pillow's readers raise many kinds of errors on hostile bytes
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """8-bit RGB on white; 16-bit grey is scaled down, not clipped (Pillow's own conversion clips it)."""
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels without a defined white. Save it with 8 or 16 bits.")
    if image.mode.startswith("I"):
        image = image.convert("I")  # Pillow knows no extrema of I;16B, the big-endian kind
        extrema: tuple[int, int] = image.getextrema()  # type: ignore[assignment] # one band
        low, high = extrema
        if low < 0 or high > _FULL_16_BIT:
            raise ImageError(f"{name} holds values from {low} to {high}; 0 to 65535 is accepted. Save it with 16 bits.")
        eight_bit = image.convert("F").point(lambda value: value * (255 / _FULL_16_BIT) + 0.5)
        return eight_bit.convert("L").convert("RGB")
    if image.has_transparency_data:
        layered = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")  # no way leads there from La
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def fitted_size(width: int, height: int, long_side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(resized, cropped) sizes of a content reference: long side to `long_side`, then down to multiples of 16.

    The arithmetic, truncations included, is that of `preprocess_ref` in USO's released inference code. The cropped size
    may hold a zero for an extreme shape; `check_reference` refuses those.
    """
    if width >= height:
        resized = long_side, int((long_side / width) * height)
    else:
        resized = int((long_side / height) * width), long_side
    return resized, (resized[0] // TOKEN_SIZE * TOKEN_SIZE, resized[1] // TOKEN_SIZE * TOKEN_SIZE)


def fit_reference(image: Image.Image, long_side: int) -> Image.Image:
    """A content reference as the network sees it: LANCZOS to `long_side` pixels, centre crop to multiples of 16.

    A 16 x 16 image comes back as it is (the released code uses it as a stand-in for "no picture").
    """
    if image.size == (TOKEN_SIZE, TOKEN_SIZE):
        return image
    resized, (width, height) = fitted_size(*image.size, long_side)
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
    return image.resize(resized, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))


def check_reference(width: int, height: int, long_side: int, name: str = "image") -> None:
    """Refuse a content reference whose fitted short side would fall under one token (16 pixels)."""
    if (width, height) == (TOKEN_SIZE, TOKEN_SIZE):
        return
    resized, fitted = fitted_size(width, height, long_side)
    if min(fitted) < TOKEN_SIZE:
        raise ImageError(
            f"{name} is too long and thin: {width} x {height} becomes {resized[0]} x {resized[1]} at content reference "
            f"size {long_side}, and both sides need at least {TOKEN_SIZE} pixels. Crop it or raise the reference size."
        )


def keep_input_size(width: int, height: int, minimum: int, maximum: int) -> tuple[int, int]:
    """The picture size that keeps an input's aspect: its own size if supported, else scaled into the range.

    Args:
        width, height: the input, upright.
        minimum, maximum: the supported range of a side; the short side may go down to `minimum / 2` where a long
            shape could not be kept otherwise.

    Returns:
        (width, height), multiples of 16, each under one token away from the exactly scaled side.

    Raises:
        RequestError: the shape is longer than `maximum : minimum / 2`.
    """
    short, long = min(width, height), max(width, height)
    floor = minimum // 2
    if long * floor > maximum * short:
        raise RequestError(
            f"Keep input size cannot keep {width} x {height}: at most {maximum}:{floor} ({maximum / floor:.3g} to 1) "
            "is supported. Crop the content image, or choose width and height yourself."
        )
    scale = min(max(1.0, minimum / short), maximum / long)
    return _nearest_token(width * scale), _nearest_token(height * scale)


def _nearest_token(side: float) -> int:
    return int(side / TOKEN_SIZE + 0.5) * TOKEN_SIZE
