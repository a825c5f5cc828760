"""Pixels of reference images: open what people send, fit it as the released code does, keep-input-size arithmetic.

Pillow only; no tensors here, so that a request can be verified before torch is imported. Sizes in this module are
(width, height) in pixels, as Pillow has them.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import ExifTags, Image, ImageChops

from uso.errors import ImageError, RequestError
from uso.images.formats import jpeg, png
from uso.images.formats.colours import to_srgb
from uso.images.formats.contents import ImageData, Refusal, cut, damaged, orientation
from uso.images.formats.reader import prepare
from uso.language import Text, text_of

TOKEN_SIZE = 16
"""Pixels per side of one transformer token: 8 (autoencoder) times 2 (patch)."""

MAX_PIXELS = 89_478_485
"""Largest reference accepted; Pillow's own threshold for a decompression bomb (a 0.25 GiB RGB picture)."""

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Pillow's modes that a PNG holds as they are."""

_LOST_ROWS = 18
"""Rows that a JPEG without its end marker may lack: its last blocks, 16 pixels high, and what blends with them ..."""

_LOST_SHARE = 3
"""... but no more than one in so many rows."""

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

_NAMES = {"WEBP": "WebP", "JPEG2000": "JPEG 2000"}
"""What people call a format, where Pillow calls it otherwise."""

_EXIF_KEYS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Where Pillow finds an orientation: none may stay behind once the pixels are turned."""


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Decode an image file as a person would see it: upright, on white, first frame, 8-bit sRGB.

    Args:
        data: the bytes of the file (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or JPEG 2000, whatever it is called).
        name: how messages call the file.

    Raises:
        ImageError: no picture, damaged, more than `MAX_PIXELS`, too long to decode, or a number format without a
            defined range.
    """
    file = prepare(data, name)
    _head(file, name).close()
    with _reasons(name, file.short):
        image = _pixels(file)
        profile = file.profile or image.info.get("icc_profile")
        return to_srgb(_turned(image, _orientation_of(file, image)), profile, file.white, file.inverted)


def upright_size(data: bytes, name: str = "image", max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) that `open_image` will give; no pixels are decoded.

    Raises:
        ImageError: no picture, or one of more than `max_pixels`. That a file is incomplete may not be seen here.
    """
    file = prepare(data, name)
    with _head(file, name, max_pixels) as opened:
        width, height = opened.size
        turned = _orientation_of(file, opened) in _ON_ITS_SIDE
    return (height, width) if turned else (width, height)


def as_png(image: Image.Image, name: str = "image") -> bytes:
    """A Pillow image as a PNG that `open_image` shows as it would the image's own file: upright, nothing lost.

    Of a mode that PNG does not have, it is the 8-bit RGB of `open_image`.

    Raises:
        ImageError: its file is damaged, or its numbers have no defined range.
    """
    buffer = io.BytesIO()
    with _reasons(name):
        image.load()
        turned = upright(image)
        if turned.mode not in _PNG_MODES:
            turned = to_srgb(turned, turned.info.get("icc_profile"))
        turned.save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _reasons(name: str, short: bool = False) -> Iterator[None]:
    """Turn what decoders raise into a refusal, in our own words: theirs are not for strangers."""
    try:
        yield
    except ImageError:
        raise
    except Refusal as error:
        raise ImageError(Text("{} {}", name, text_of(error))) from error
    except MemoryError as error:
        raise ImageError(Text("{} needs more memory than there is. Scale it down.", name)) from error
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error ...
        short = short or "truncated" in str(error) or "not enough" in str(error)
        raise ImageError(
            Text("{} {}", name, text_of(cut() if short else damaged(Text("its pixels cannot be decoded"))))
        ) from error


def _head(file: ImageData, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A file whose size is known and accepted, its pixels not decoded."""
    try:
        opened = _opened(file.data, file.format)
    except Image.DecompressionBombError as error:
        raise ImageError(
            Text("{} is too large to open safely: at most {} megapixels.", name, MAX_PIXELS // 10**6)
        ) from error
    except Exception as error:  # Pillow's decoders raise many kinds of errors on hostile bytes.
        raise ImageError(
            Text(
                "{} is damaged, or of a kind of {} that is not read. Save it again as PNG or JPEG.",
                name,
                _NAMES.get(file.format, file.format),
            )
        ) from error
    width, height = opened.size
    if width * height > max_pixels:
        most = max_pixels // 10**6 or round(max_pixels / 10**6, 2)
        raise ImageError(
            Text("{} has {} x {} pixels; at most {} megapixels are accepted. Scale it down.", name, width, height, most)
        )
    return opened


def _opened(data: bytes, form: str) -> Image.Image:
    # Pillow only warns between one and two times its bomb threshold; the size check of `_head` covers that range.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data), formats=[form])


def _loaded(data: bytes, form: str) -> Image.Image:
    image = _opened(data, form)
    image.load()
    return image


def _pixels(file: ImageData) -> Image.Image:
    """Decode a file; where only its end is missing, without it."""
    if file.unended:
        return _without_end(file)
    try:
        return _loaded(file.data, file.format)
    except Exception:
        mended = png.closed(file.data) if file.format == "PNG" else None
        if mended is None:
            raise
        return _loaded(mended, file.format)


def _without_end(file: ImageData) -> Image.Image:
    """A JPEG that lacks its end marker, if hardly more than that is missing.

    A decoder fills what is missing with grey and does not tell. So it is decoded twice, the second time with other
    bytes at the end: what differs was not in the file.
    """
    image = _loaded(file.data, file.format)
    with _loaded(jpeg.padded(file.data), file.format) as other:
        differs = ImageChops.difference(image, other).getbbox()
    lost = image.height - differs[1] if differs else 0
    if lost > min(max(_LOST_ROWS, image.height // 50), image.height // _LOST_SHARE):
        raise cut()
    return image


def _orientation_of(file: ImageData, opened: Image.Image) -> int:
    if file.format != "AVIF":
        return file.orientation
    return orientation(opened.info.get("exif", b""), opened.info.get("xmp", b""))


def upright(image: Image.Image) -> Image.Image:
    """A decoded image turned as its EXIF orientation says; the pixels of a TIFF are already, and say so no more.

    `ImageOps.exif_transpose` writes all of the EXIF anew, and fails at tags of an unusual type.
    """
    try:
        # The base class's own: that of PNG reads all pixels, for what may come after them.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged; Pillow's readers raise many kinds of errors on hostile bytes
        return image
    return _turned(image, found)


def _turned(image: Image.Image, found: Any) -> Image.Image:
    turn = _TURNS.get(found)
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in _EXIF_KEYS:
        turned.info.pop(key, None)
    return turned


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
            Text(
                "{} is too long and thin: {} x {} becomes {} x {} at content reference "
                "size {}, and both sides need at least {} pixels. Crop it or raise the reference size.",
                name,
                width,
                height,
                resized[0],
                resized[1],
                long_side,
                TOKEN_SIZE,
            )
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
            Text(
                "Keep input size cannot keep {} x {}: at most {}:{} ({:.3g} to 1) "
                "is supported. Crop the content image, or choose width and height yourself.",
                width,
                height,
                maximum,
                floor,
                maximum / floor,
            )
        )
    scale = min(max(1.0, minimum / short), maximum / long)
    return _nearest_token(width * scale), _nearest_token(height * scale)


def _nearest_token(side: float) -> int:
    return int(side / TOKEN_SIZE + 0.5) * TOKEN_SIZE
