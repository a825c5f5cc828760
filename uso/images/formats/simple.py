"""WebP, GIF and BMP: keeps the first picture, and only what is needed to show it."""

import struct

from uso.images.formats.contents import MAX_PARTS, MAX_PROFILE, ImageData, cut, damaged, orientation, too_dear
from uso.language import Text

_ALPHA, _ANIMATION = 0x10, 0x02
"""Flags of a WebP's header."""

MAX_RUN_LENGTH_PIXELS = 8_000_000
"""Largest BMP with run lengths: Pillow decodes these in Python, and a few bytes may stand for a million pixels."""

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
"""Chunks of a WebP that hold pixels."""

_EMBEDDED_PROFILE = b"DEBM"


def webp(data: bytes) -> ImageData:
    """Chunks of the first picture, and the header that it needs.

    Raises:
        Refusal: no picture in it.
    """
    first: dict[bytes, bytes] = {}
    at, short = 12, False
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            break
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        first.setdefault(kind, data[at + 8 : at + 8 + length])
        if at + 8 + length > len(data):
            short = kind in _PIXELS
            if not short:
                del first[kind]
        at += 8 + length + length % 2
    header = first.get(b"VP8X")
    animated = header is not None and b"ANMF" in first
    if animated:
        kinds: tuple[bytes, ...] = (b"VP8X", b"ANIM", b"ANMF")
        first.setdefault(b"ANIM", bytes(6))
    else:
        kinds = (b"VP8X", b"VP8L") if b"VP8L" in first else (b"VP8X", b"ALPH", b"VP8 ")
    if not {b"VP8 ", b"VP8L", b"ANMF"} & first.keys() or (header is not None and len(header) < 10):
        raise cut()
    if header is not None:
        first[b"VP8X"] = bytes((header[0] & _ALPHA | (_ANIMATION if animated else 0),)) + header[1:]
    body = b"".join(_riff(kind, first[kind]) for kind in kinds if kind in first)
    return ImageData(
        "WEBP",
        b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body,
        orientation(first.get(b"EXIF", b""), first.get(b"XMP ", b"")),
        first[b"ICCP"] if len(first.get(b"ICCP", bytes(MAX_PROFILE + 1))) <= MAX_PROFILE else None,
        short=short,
    )


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def gif(data: bytes) -> ImageData:
    """Header and palette, then the first picture alone.

    Raises:
        Refusal: no picture in it, or too many blocks.
    """
    if len(data) < 13:
        raise cut()
    at = 13 + _palette(data[10])
    kept, control, blocks = [data[:at]], b"", 0
    while at < len(data):
        start, label = at, data[at]
        if label == 0x21:  # an extension
            at, blocks = _past_blocks(data, at + 2, blocks)
            if data[start + 1 : start + 2] == b"\xf9":  # says which colour is transparent
                control = data[start:at]
        elif label == 0x2C and at + 10 < len(data):  # a picture
            at, blocks = _past_blocks(data, at + 10 + _palette(data[at + 9]) + 1, blocks)
            return ImageData("GIF", b"".join([*kept, control, data[start:at], b";"]))
        else:
            break
    raise cut()


def _palette(flags: int) -> int:
    """Bytes of the palette that follows."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _past_blocks(data: bytes, at: int, blocks: int) -> tuple[int, int]:
    """(where the blocks that begin at `at` end, how many have been seen in all)."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
        blocks += 1
        if blocks > 16 * MAX_PARTS:  # a block has at most 255 bytes
            raise too_dear(Text("it is a GIF of more than a million blocks"))
    return min(at + 1, len(data)), blocks


def bmp(data: bytes) -> ImageData:
    """The file as it is; its profile, if it holds one.

    Raises:
        Refusal: its run lengths would take too long.
    """
    (size,) = struct.unpack_from("<I", data, 14)
    profile = None
    if size >= 40 and len(data) >= 14 + size:
        width, height, _, _, packing = struct.unpack_from("<iiHHI", data, 18)
        if packing in (1, 2) and abs(width * height) > MAX_RUN_LENGTH_PIXELS:
            raise too_dear(
                Text("it is a BMP with run lengths of more than {} megapixels", MAX_RUN_LENGTH_PIXELS // 10**6)
            )
        if size >= 124 and data[70:74] == _EMBEDDED_PROFILE:
            start, length = struct.unpack_from("<II", data, 126)
            profile = data[14 + start : 14 + start + length] if length <= MAX_PROFILE else None
    elif len(data) < 14 + size:
        raise damaged(Text("its header is damaged"))
    return ImageData("BMP", data, profile=profile)
