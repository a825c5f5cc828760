"""Shared by all formats: the data for the decoder, refusals, limits, and the orientation in EXIF."""

import re
import struct
import zlib
from dataclasses import dataclass

from uso.language import Text

MAX_PARTS = 65_536
"""Most chunks, segments, blocks or strips of one file. Each costs about a microsecond of Python; a picture of 60 MB
written in pieces of a kilobyte stays below."""

MAX_PROFILE = 8 * 1024 * 1024
"""Largest colour profile read, in bytes; printers' profiles have one to three million."""

MAX_EXIF = 1024 * 1024
"""Most bytes in which an orientation is looked for; cameras write it first."""

_ORIENTATION = 0x0112
_SHORT = 3
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


class Refusal(Exception):
    """Why a file is not read: the end of a sentence that begins with the file's name."""


@dataclass(frozen=True)
class ImageData:
    """A file as the decoder gets it: pixels, and what decoding them needs."""

    format: str
    """Pillow's name of it."""
    data: bytes
    orientation: int = 1
    """As EXIF counts it, 1 (upright) to 8."""
    profile: bytes | None = None
    """An ICC profile, unverified."""
    white: int = 65535
    """The number of white in a picture of 16-bit grey."""
    inverted: bool = False
    """Whether 0 is white in a picture of 16-bit grey."""
    unended: bool = False
    """A JPEG without its end marker: whether all of its pixels are there is still to be seen."""
    short: bool = False
    """Whether the file ends earlier than it says: the reason where it cannot be decoded."""


def cut() -> Refusal:
    return Refusal(Text("is damaged or incomplete (its pixel data end too early). Save it again as PNG or JPEG."))


def damaged(what: str) -> Refusal:
    return Refusal(Text("is damaged or incomplete ({}). Save it again as PNG or JPEG.", what))


def too_dear(what: str) -> Refusal:
    """What would take far longer to decode than a picture of its size should."""
    return Refusal(Text("would take too long to open: {}. Save it again as PNG or JPEG.", what))


def orientation(exif: bytes = b"", xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, that EXIF holds, else XMP; 1 where it is missing, wrong, or cannot be read."""
    found = _exif_orientation(exif[:MAX_EXIF])
    if found is None:
        match = _XMP_ORIENTATION.search(xmp[:MAX_EXIF])
        found = int(match[1]) if match else 1
    return found if 1 <= found <= 8 else 1


def _exif_orientation(block: bytes) -> int | None:
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, at)
        for entry in range(at + 2, at + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, entry)
            if tag == _ORIENTATION:
                value: int = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", block, entry + 8)[0]
                return value
    except struct.error:
        pass
    return None


def inflated(data: bytes, most: int) -> bytes | None:
    """What zlib packed; None if it is damaged or has more than `most` bytes."""
    unpack = zlib.decompressobj()
    try:
        found = unpack.decompress(data, most)
    except zlib.error:
        return None
    return None if unpack.unconsumed_tail else found
