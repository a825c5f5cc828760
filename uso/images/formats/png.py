"""PNG: keeps only the chunks that make up the picture, with fresh checksums.

So damaged or huge text, profiles and other ancillary chunks do no harm. Of an animation the first picture is kept.
"""

import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from uso.images.formats.contents import (
    MAX_EXIF,
    MAX_PARTS,
    MAX_PROFILE,
    ImageData,
    cut,
    damaged,
    inflated,
    orientation,
    too_dear,
)
from uso.language import Text

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_TEXT = 16 * 1024 * 1024
"""Longest text that is read from a chunk, in bytes."""

_GREY, _RGB, _PALETTE = 0, 2, 3
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
"""By colour type."""

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""(first column, first row, step across, step down) of an interlaced picture's passes."""

_EXIF_TEXT, _XMP_TEXT = "Raw profile type exif", "XML:com.adobe.xmp"


def prepare(data: bytes) -> ImageData:
    """The picture without what is not needed to show it.

    Raises:
        Refusal: no header, no pixels, or too many chunks.
    """
    first: dict[bytes, bytes] = {}
    pixels: list[bytes] = []
    exif = xmp = b""
    for kind, body, whole in _chunks(data):
        if kind == b"IDAT":
            pixels.append(body)
        elif kind in (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf"):
            if whole() and kind not in first:
                first[kind] = body
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            if body.startswith(_EXIF_TEXT.encode()) and whole():
                exif = _hexadecimal(_text(kind, body, _EXIF_TEXT, MAX_EXIF) or "")
            elif body.startswith(_XMP_TEXT.encode()) and whole():
                xmp = (_text(kind, body, _XMP_TEXT, MAX_EXIF) or "").encode()
    header = first.get(b"IHDR", b"")
    if len(header) != 13 or header[9] not in _CHANNELS:
        raise damaged(Text("its header is damaged"))
    if not pixels:
        raise cut()
    if header[9] == _PALETTE and b"PLTE" not in first:
        raise damaged(Text("its palette is missing or damaged"))
    kept = [(b"IHDR", header)]
    if header[9] == _PALETTE:
        kept.append((b"PLTE", first[b"PLTE"]))
    if transparent := _transparent(header, first.get(b"tRNS", b"")):
        kept.append((b"tRNS", transparent))
    kept += [(b"IDAT", b"".join(pixels)), (b"IEND", b"")]
    return ImageData(
        "PNG",
        SIGNATURE + b"".join(_chunk(*chunk) for chunk in kept),
        orientation(first.get(b"eXIf") or exif, xmp),
        _profile(first.get(b"iCCP", b"")),
    )


def closed(data: bytes) -> bytes | None:
    """What `prepare` made, its compressed stream written anew; None if pixels are missing.

    For files in which every pixel is there, but not the checksum that follows them.
    """
    chunks = {kind: body for kind, body, _ in _chunks(data)}
    header = chunks[b"IHDR"]
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)  # without the checksum
    try:
        rows = unpack.decompress(chunks[b"IDAT"][2:], _row_bytes(header))
    except zlib.error:
        return None
    if len(rows) < _row_bytes(header):
        return None
    chunks[b"IDAT"] = zlib.compress(rows, 1)
    return SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks.items())


def text_of(data: bytes, keyword: str) -> str | None:
    """What a PNG says under a keyword, in any of the three kinds of text chunks; no pixels are decoded.

    Raises:
        Refusal: no PNG, or one that ends within a chunk.
    """
    if not data.startswith(SIGNATURE):
        raise damaged(Text("it is no PNG"))
    found, last = None, b""
    for last, body, whole in _chunks(data):
        if last in (b"tEXt", b"zTXt", b"iTXt") and body.startswith(keyword.encode() + b"\0") and whole():
            found = _text(last, body, keyword, MAX_TEXT)
    if last != b"IEND":
        raise cut()
    return found


def text_before_pixels(file: BinaryIO, keyword: str) -> str | None:
    """What a PNG says under a keyword before its pixels, which are not read; None if it says nothing, or is no PNG."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return None
    for _ in range(MAX_PARTS):
        head = file.read(8)
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"IEND")
        if kind in (b"IDAT", b"IEND"):
            return None
        if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= MAX_TEXT:
            body = file.read(length + 4)[:length]
            if body.startswith(keyword.encode() + b"\0"):
                return _text(kind, body, keyword, MAX_TEXT)
        else:
            file.seek(length + 4, os.SEEK_CUR)
    return None


class _Whole:
    """Whether a chunk's checksum is right, reckoned when asked."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._span = data, at, end

    def __call__(self) -> bool:
        data, at, end = self._span
        return data[end : end + 4] == struct.pack(">I", zlib.crc32(memoryview(data)[at + 4 : end]))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, _Whole]]:
    """(kind, contents, whether the checksum is right) of every chunk to the end of the picture or of the data."""
    at = len(SIGNATURE)
    for number in itertools.count():
        if at + 8 > len(data):
            return
        if number == MAX_PARTS:
            raise too_dear(Text("it is made of more than {} chunks", MAX_PARTS))
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        yield kind, data[at + 8 : end], _Whole(data, at, end)
        if kind == b"IEND":
            return
        at = end + 4


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _transparent(header: bytes, body: bytes) -> bytes:
    """What is transparent, as Pillow takes it: by 8 bits, but 16 for 16-bit grey. Empty where nothing is."""
    bits, colour = header[8], header[9]
    if colour == _PALETTE:
        return body[:256]
    if colour == _GREY and len(body) == 2:
        value = int.from_bytes(body, "big") & ((1 << bits) - 1)
        scale = {2: 85, 4: 17}.get(bits, 1)  # Pillow widens the pixels to 8 bits, and not this number
        return struct.pack(">H", value * scale)
    if colour == _RGB and len(body) == 6:
        return b"".join(b"\0" + body[at : at + 1] for at in (0, 2, 4)) if bits == 16 else body
    return b""


def _profile(body: bytes) -> bytes | None:
    name, _, packed = body.partition(b"\0")
    return inflated(packed[1:], MAX_PROFILE) if name and packed[:1] == b"\0" else None


def _text(kind: bytes, body: bytes, keyword: str, most: int) -> str | None:
    rest = body[len(keyword) + 1 :]
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # after language and translated keyword
    plain = inflated(rest, most) if packed else rest[:most]
    return None if plain is None else plain.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _hexadecimal(text: str) -> bytes:
    """EXIF as ImageMagick writes it: three lines of heading, then digits."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def _row_bytes(header: bytes) -> int:
    """Bytes that all rows have before they are packed, each with its filter's number."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    pixel = bits * _CHANNELS[colour]
    total = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)
        total += rows * (1 + -(-columns * pixel // 8)) if columns else 0
    return total
