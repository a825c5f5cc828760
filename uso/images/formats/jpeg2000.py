"""JPEG 2000: checks tiles, code blocks and precincts, which can make decoding slower than the pixels alone would."""

import itertools
import struct
from collections.abc import Iterator

from uso.images.formats.contents import MAX_PARTS, MAX_PROFILE, ImageData, Refusal, cut, damaged, too_dear
from uso.language import Text

MAX_PIXELS = 24_000_000
"""Largest picture; OpenJPEG takes 75 to 125 ms per megapixel even where nothing is in it."""

MAX_BYTES = 12 * 1024 * 1024
"""Largest code stream; a megabyte takes 0.75 s."""

MIN_TILE, MANY_TILES = 64 * 64, 64
"""Tiles have at least so many pixels, where there are more than so many of them; of 16 x 16 they take seven times as
long."""

MIN_BLOCK = 8
"""Least sum of a code block's exponents: 256 pixels. Of 4 x 4 they take three times as long; encoders write 64 x 64."""

MAX_PRECINCTS = 262_144
"""Most precincts of all resolutions and components; 64 x 64 pixels each at 24 megapixels are 105,000."""

MAX_LAYERS = 256
MAX_COMPONENTS = 4

_CODING, _COMPONENT, _TILE, _DATA, _END = 0x52, 0x53, 0x90, 0x93, 0xD9
_LAST = bytes((0xFF, _END))


def prepare(data: bytes) -> ImageData:
    """The file as it is, and its profile.

    Raises:
        Refusal: too large, or made so that decoding would take too long.
    """
    stream, profile, told = data, None, None
    if not data.startswith(b"\xff\x4f"):
        stream, profile, told = _jp2(data)
    size = _check(stream)
    if told is not None and told != size:
        raise damaged(Text("it names two sizes"))
    return ImageData("JPEG2000", data, profile=profile, short=not stream.endswith(_LAST))


def _jp2(data: bytes) -> tuple[bytes, bytes | None, tuple[int, int] | None]:
    """(code stream, profile, the size (width, height) that the header names) of a JP2."""
    profile = told = None
    for kind, at, end in boxes(data, 0, len(data)):
        if kind == b"jp2c":
            return data[at:end], profile, told
        for inner, start, stop in boxes(data, at, end) if kind == b"jp2h" else ():
            if inner == b"ihdr" and stop - start >= 8:
                height, width = struct.unpack_from(">II", data, start)
                told = told or (width, height)
            elif inner == b"colr" and data[start : start + 1] in (b"\2", b"\3") and stop - start <= MAX_PROFILE:
                profile = profile or data[start + 3 : stop]
    raise cut()


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of every box between two places; an AVIF is made of the same boxes."""
    for _ in range(MAX_PARTS):
        if at + 8 > min(end, len(data)):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1 and at + 16 <= end:
            length, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = end if length == 0 else min(end, at + length)
        if stop < start:
            return
        yield kind, start, stop
        at = stop


def _check(stream: bytes) -> tuple[int, int]:
    """Look at every header of a code stream; returns the picture's size."""
    if len(stream) > MAX_BYTES:
        raise too_dear(Text("a JPEG 2000 of at most {} MiB is read", MAX_BYTES // 1024**2))
    if stream[:4] != b"\xff\x4f\xff\x51":
        raise damaged(Text("its header is damaged"))
    right, lower, left, upper, across, down, first_x, first_y, components = struct.unpack_from(">8IH", stream, 8)
    width, height = right - left, lower - upper
    if width * height > MAX_PIXELS:
        raise Refusal(
            Text(
                "has {} x {} pixels; of a JPEG 2000 at most {} megapixels are accepted. "
                "Scale it down, or save it as PNG or JPEG.",
                width,
                height,
                MAX_PIXELS // 10**6,
            )
        )
    if min(width, height, across, down) <= 0 or first_x > left or first_y > upper:
        raise damaged(Text("its header is damaged"))
    if not 1 <= components <= MAX_COMPONENTS:
        raise Refusal(
            Text("is a JPEG 2000 of {} components; 1 to {} are read. Save it as PNG.", components, MAX_COMPONENTS)
        )
    tiles = -(-(right - first_x) // across) * -(-(lower - first_y) // down)
    if tiles > MANY_TILES and across * down < MIN_TILE:
        raise too_dear(Text("it is a JPEG 2000 of {} tiles", tiles))
    at, next_tile = 2, 0
    for number in itertools.count():
        if number == MAX_PARTS:
            raise too_dear(Text("it is made of more than {} parts", MAX_PARTS))
        if at + 4 > len(stream):
            break
        marker, length = struct.unpack_from(">xBH", stream, at)
        if stream[at] != 0xFF or marker == _END:
            break
        if marker == _TILE:
            (part,) = struct.unpack_from(">I", stream, at + 6)
            tile, at = at, at + 2 + length
            next_tile = tile + part if part else len(stream)
            continue
        if marker == _DATA:
            at = max(next_tile, at + 2)
            continue
        if marker in (_CODING, _COMPONENT):
            _check_coding(stream[at + 4 : at + 2 + length], marker, width * height * components)
        at += 2 + length
    return width, height


def _check_coding(body: bytes, marker: int, samples: int) -> None:
    """Refuse code blocks, precincts and layers that only cost time.

    Args:
        samples: pixels times components.
    """
    if marker == _CODING:
        own, (layers,), rest = body[0], struct.unpack_from(">H", body, 2), body[5:]
        if layers > MAX_LAYERS:
            raise too_dear(Text("it is a JPEG 2000 of {} layers", layers))
    else:
        own, rest = body[1], body[2:]
    if len(rest) < 5:
        raise cut()
    levels, wide, high = rest[0], (rest[1] & 15) + 2, (rest[2] & 15) + 2
    if wide + high < MIN_BLOCK:
        raise too_dear(Text("it is a JPEG 2000 with code blocks of {} x {} pixels", 1 << wide, 1 << high))
    precincts = 0.0
    for level, pair in enumerate(rest[5 : 6 + levels] if own & 1 else b""):
        precincts += samples / (4 ** (levels - level) * (1 << (pair & 15) + (pair >> 4)))
    if precincts > MAX_PRECINCTS:
        raise too_dear(Text("it is a JPEG 2000 of more than {} precincts", MAX_PRECINCTS))
