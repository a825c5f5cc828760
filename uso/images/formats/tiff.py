"""TIFF: keeps the first picture, with a new directory that has only the entries needed for decoding.

Camera raws are TIFFs whose first picture is a preview. They are refused, as is any other file whose first picture is
reduced.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from uso.images.formats import jpeg
from uso.images.formats.contents import MAX_PARTS, MAX_PROFILE, ImageData, Refusal, cut, damaged, too_dear
from uso.language import Text

MAX_ENTRIES = 4096
"""Most entries of a directory that are looked at."""

MAX_DIRECTORIES = 32
"""Most directories in which a camera's raw data are looked for."""

PADDING = 4
"""Tiles may cover this many times the picture's area; at the edges they hang over."""

_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
"""Bytes of a value, by its type."""

_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types that are whole numbers, as `struct` has them."""

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _DIRECTORIES = 322, 323, 324, 325, 330
_XMP, _PROFILE, _DNG = 700, 34675, 50706

_SUBFILES = {_SUBFILE, _OLD_SUBFILE}
_KEPT = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
_KEPT |= {332, 338, 339, 347, 529, 530, 531, 532}
"""Entries that decoding needs; the last eight say what samples, alpha, JPEG tables and YCbCr are."""

_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000}
"""None, fax (2 to 4), LZW, JPEG, deflate (8, 32946), packed bits, LZMA, Zstandard."""

_RAW_PHOTOMETRIC = {32803, 34892}
"""Colour filter array, and linear raw."""

_RAW_COMPRESSION = {32767, 34713, 65535}
"""Sony's, Nikon's and Pentax's."""


class _Entry(NamedTuple):
    kind: int
    number: int
    at: int
    """Where the values are."""
    raw: bytes
    """The entry as it stands."""


@dataclass(frozen=True)
class _File:
    """How a file writes numbers."""

    data: bytes
    order: str
    big: bool

    def numbers(self, kind: str, at: int, count: int = 1) -> tuple[int, ...]:
        return struct.unpack_from(f"{self.order}{count}{kind}", self.data, at)

    def directory(self, at: int) -> tuple[dict[int, _Entry], int]:
        """(entries by tag, where the next directory is)."""
        (count,) = self.numbers("Q" if self.big else "H", at)
        at, size = at + (8 if self.big else 2), 20 if self.big else 12
        entries: dict[int, _Entry] = {}
        for number in range(min(count, MAX_ENTRIES)):
            place = at + number * size
            tag, kind = self.numbers("H", place, 2)
            (values,) = self.numbers("Q" if self.big else "I", place + 4)
            inline = place + (12 if self.big else 8)
            length = values * (_SIZES[kind] if kind < len(_SIZES) else 0)
            where = inline if length <= (8 if self.big else 4) else self.numbers("Q" if self.big else "I", inline)[0]
            entries.setdefault(tag, _Entry(kind, values, where, self.data[place : place + size]))
        following = at + count * size
        try:
            return entries, self.numbers("Q" if self.big else "I", following)[0]
        except struct.error:
            return entries, 0

    def values(self, entry: _Entry | None, default: Sequence[int] = ()) -> tuple[int, ...]:
        if entry is None or entry.kind not in _WHOLE or not entry.number:
            return tuple(default)
        if entry.number > MAX_PARTS:
            raise too_dear(Text("it is a TIFF of more than {} strips or tiles", MAX_PARTS))
        return self.numbers(_WHOLE[entry.kind], entry.at, entry.number)


def prepare(data: bytes) -> ImageData:
    """The file with a directory of only what decodes its first picture.

    Raises:
        Refusal: a camera raw, a reduced preview, an unusual compression, or what would take too long.
    """
    order = "<" if data[:2] == b"II" else ">"
    file = _File(data, order, 43 in data[2:4])
    try:
        (start,) = file.numbers("Q", 8) if file.big else file.numbers("I", 4)
        entries, following = file.directory(start)
        first = {tag: file.values(entry, (0,)) for tag, entry in entries.items() if tag in _KEPT | _SUBFILES}
        _refuse_raw(file, entries, following)
        if first.get(_SUBFILE, (0,))[0] & 1 or first.get(_OLD_SUBFILE, (0,))[0] == 2:
            raise Refusal(
                Text(
                    "is a TIFF whose first picture is a reduced preview. Save the picture itself as PNG or JPEG, or as "
                    "a TIFF that begins with it."
                )
            )
        _check_work(file, first)
        turned = file.values(entries.get(_ORIENTATION), (1,))[0]
        profile = entries.get(_PROFILE)
    except struct.error as error:
        raise cut() from error
    bits = first.get(_BITS) or (1,)
    inverted = set(bits) == {16} and first.get(_PHOTOMETRIC, (1,))[0] == 0
    return ImageData(
        "TIFF",
        _rewritten(file, entries, inverted),
        turned if 1 <= turned <= 8 else 1,
        data[profile.at : profile.at + profile.number] if profile and profile.number <= MAX_PROFILE else None,
        white=4095 if bits == (12,) else 65535,
        inverted=inverted,
    )


def _refuse_raw(file: _File, first: dict[int, _Entry], following: int) -> None:
    if _DNG in first:
        raise Refusal(_raw(Text("a camera raw (DNG)")))
    for entries in _directories(file, first, following):
        if (
            _DNG in entries
            or file.values(entries.get(_PHOTOMETRIC), (0,))[0] in _RAW_PHOTOMETRIC
            or file.values(entries.get(_COMPRESSION), (0,))[0] in _RAW_COMPRESSION
        ):
            raise Refusal(_raw(Text("a camera raw")))


def _raw(what: str) -> str:
    return Text(
        "is {}, of which only a small preview could be read. Develop it, and save it as PNG, JPEG or TIFF.", what
    )


def _directories(file: _File, first: dict[int, _Entry], following: int) -> Iterator[dict[int, _Entry]]:
    """The first directory, those below it, and those after it, as far as they can be read."""
    waiting, seen = [following], {0}
    entries = first
    while True:
        yield entries
        below = entries.get(_DIRECTORIES)
        if below is not None and below.number <= MAX_DIRECTORIES:
            waiting += file.values(below)
        while waiting and waiting[0] in seen:
            waiting.pop(0)
        if not waiting or len(seen) > MAX_DIRECTORIES:
            return
        seen.add(waiting[0])
        try:
            entries, following = file.directory(waiting.pop(0))
        except struct.error:
            return
        waiting.append(following)


def _check_work(file: _File, first: dict[int, tuple[int, ...]]) -> None:
    """Refuse what is no picture, and what would be decoded more than once."""
    if not all(first.get(tag, (0,))[0] for tag in (_WIDTH, _HEIGHT)):
        raise damaged(Text("its directory says no size"))
    compression = first.get(_COMPRESSION, (1,))[0]
    if compression not in _COMPRESSIONS:
        raise Refusal(
            Text("is a TIFF of a compression that is not read (number {}). Save it as PNG or JPEG.", compression)
        )
    width, height = first[_WIDTH][0], first[_HEIGHT][0]
    planes = first.get(_SAMPLES, (1,))[0] if first.get(_PLANAR, (1,))[0] == 2 else 1
    if _TILES in first:
        across, down = first.get(_TILE_WIDTH, (0,))[0], first.get(_TILE_HEIGHT, (0,))[0]
        if not across or not down:
            raise damaged(Text("its directory says no size of tiles"))
        columns, rows = -(-width // across), -(-height // down)
        if columns * across * rows * down > PADDING * max(width * height, 1024 * 1024):
            raise too_dear(Text("its tiles are far larger than the picture"))
        parts = columns * rows * planes
        places, lengths = first[_TILES], first.get(_TILE_BYTES, ())
    else:
        parts = -(-height // (first.get(_STRIP_ROWS, (height,))[0] or height)) * planes
        places, lengths = first.get(_STRIPS, ()), first.get(_STRIP_BYTES, ())
    if not places:
        raise cut()
    if max(parts, len(places), len(lengths)) > MAX_PARTS:
        raise too_dear(Text("it is a TIFF of more than {} strips or tiles", MAX_PARTS))
    if len(places) > parts:
        raise damaged(Text("it has more strips or tiles than its size allows"))
    spans = [(at, min(length, max(len(file.data) - at, 0))) for at, length in zip(places, lengths, strict=False)]
    if sum(length for _, length in spans) > PADDING * len(file.data):
        raise too_dear(Text("its strips or tiles lie one upon the other"))
    if compression == 7 and any(jpeg.scans_in(file.data[at : at + size]) > jpeg.MAX_SCANS for at, size in spans):
        raise too_dear(Text("it holds a JPEG of more than {} scans", jpeg.MAX_SCANS))


def _rewritten(file: _File, entries: dict[int, _Entry], inverted: bool) -> bytes:
    """The file with a last directory that its header names; where 16-bit 0 is white, Pillow is not told."""
    kept = dict(sorted((tag, entry.raw) for tag, entry in entries.items() if tag in _KEPT))
    if sum(_SIZES[entries[tag].kind] * entries[tag].number for tag in kept if entries[tag].kind < 19) > len(file.data):
        raise damaged(Text("its directory is damaged"))
    if inverted:
        (black_is_zero,) = (struct.pack(f"{file.order}H", 1),)
        place = 12 if file.big else 8
        raw = kept[_PHOTOMETRIC]
        kept[_PHOTOMETRIC] = raw[:place] + black_is_zero + raw[place + 2 :]
    word = "Q" if file.big else "I"
    at = len(file.data) + len(file.data) % 2
    header = file.data[:8] if file.big else file.data[:4]
    start = header + struct.pack(f"{file.order}{word}", at)
    count = struct.pack(f"{file.order}{'Q' if file.big else 'H'}", len(kept))
    directory = count + b"".join(kept.values()) + struct.pack(f"{file.order}{word}", 0)
    return b"".join([start, file.data[len(start) :], bytes(len(file.data) % 2), directory])
