"""`prepare`: the parts of a file that go to the decoder, for every format."""

import struct
import sys
from collections.abc import Callable

from uso.errors import ImageError
from uso.images.formats import jpeg, jpeg2000, kinds, png, simple, tiff
from uso.images.formats.contents import ImageData, Refusal, cut
from uso.language import Text, joined, text_of


def prepare(data: bytes, name: str) -> ImageData:
    """What decodes a file's first picture; no pixels are decoded.

    Args:
        name: what messages call the file.

    Raises:
        ImageError: it is no picture, one of a format that is not read, damaged, or takes too long to decode.
    """
    kind = kinds.kind_of(data)
    if not kind:
        what = kinds.other(data)
        develop = Text("Develop it, and save it as PNG, JPEG or TIFF.") if "camera raw" in what else ""
        refused = Text("{} is not a picture this program can read (try PNG, JPEG or WebP).", name)
        raise ImageError(joined(refused, Text("It is {}.", what) if what else "", develop))
    try:
        return _PREPARE[kind](data)
    except Refusal as error:
        raise ImageError(Text("{} {}", name, text_of(error))) from error
    except (IndexError, struct.error) as error:  # of what a header promises, something is not there
        raise ImageError(Text("{} {}", name, text_of(cut()))) from error


def _as_it_is(data: bytes) -> ImageData:
    """An AVIF, whose parts only its decoder knows."""
    ends = [end for _, _, end in jpeg2000.boxes(data, 0, sys.maxsize)]
    return ImageData("AVIF", data, short=max(ends) > len(data))


_PREPARE: dict[str, Callable[[bytes], ImageData]] = {
    "PNG": png.prepare,
    "JPEG": jpeg.prepare,
    "WEBP": simple.webp,
    "GIF": simple.gif,
    "BMP": simple.bmp,
    "TIFF": tiff.prepare,
    "AVIF": _as_it_is,
    "JPEG2000": jpeg2000.prepare,
}
