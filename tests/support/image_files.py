"""Image files made by hand: chunks, directories and profiles that no encoder here would write."""

import io
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"

P3 = ((0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407))
SRGB = ((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410))
"""Red, green and blue (columns) in XYZ under D50."""


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(width: int = 160, height: int = 120) -> Image.Image:
    """Soft colours, different all over."""
    rough = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean over all pixels, in levels."""
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, contents) of a PNG's chunks."""
    at, found = 8, []
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def chunk(kind: bytes, body: bytes, wrong: bool = False) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


def with_chunk(data: bytes, kind: bytes, body: bytes, wrong: bool = False, after: bool = False) -> bytes:
    """A PNG with a chunk more, before its pixels or after them."""
    parts = [chunk(*part) for part in chunks(data)]
    parts.insert(-1 if after else 1, chunk(kind, body, wrong))
    return SIGNATURE + b"".join(parts)


def scans(data: bytes, extra: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * extra + data[-2:]


def tiff(tags: Mapping[int, Sequence[int]], data: bytes, order: str = "<") -> bytes:
    """A TIFF whose pixels begin at byte 8; values beyond 16 bits are written with 32."""
    at = 8 + len(data) + len(data) % 2
    behind = at + 2 + 12 * len(tags) + 4
    entries = values = b""
    for tag, numbers in sorted(tags.items()):
        wide = max(numbers) > 65535 or tag in (273, 279)
        packed = struct.pack(f"{order}{len(numbers)}{'I' if wide else 'H'}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 4 if wide else 3, len(numbers))
        entries += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", behind + len(values))
        values += packed if len(packed) > 4 else b""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    body = data + bytes(len(data) % 2) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values
    return start + body


def grey_tags(width: int, bits: int, length: int, photometric: int = 1, compression: int = 1) -> dict[int, list[int]]:
    """The directory of one row of grey."""
    names = (256, 257, 258, 259, 262, 273, 277, 278, 279)
    return {
        name: [value]
        for name, value in zip(names, (width, 1, bits, compression, photometric, 8, 1, 1, length), strict=True)
    }


def _profile(space: bytes, kind: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, kind, space, connection) + bytes(12)
    head += b"acsp" + bytes(28) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + table + body


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


_WHITE = _xyz((0.9642, 1.0, 0.8249))


def rgb_profile(primaries: Sequence[Sequence[float]], gamma: float) -> bytes:
    """Colours whose light is a power of their number."""
    tags = {b"wtpt": _WHITE}
    for number, name in enumerate("rgb"):
        tags[f"{name}XYZ".encode()] = _xyz([row[number] for row in primaries])
        tags[f"{name}TRC".encode()] = _gamma(gamma)
    return _profile(b"RGB ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"mntr", {b"wtpt": _WHITE, b"kTRC": _gamma(gamma)})


def cmyk_profile(full: Sequence[int] = (0, 128, 128)) -> bytes:
    """A printer whose paper is white and whose four inks, each by itself, are a colour in 8-bit L, a, b."""
    corners = b"".join(bytes((255, 128, 128)) if not corner else bytes(full) for corner in range(16))
    table = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (number % 4 == 0) for number in range(9)))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + table * 4 + corners + table * 3
    return _profile(b"CMYK", b"prtr", {b"wtpt": _WHITE, b"A2B0": lut}, b"Lab ")


def in_srgb(image: Image.Image, primaries: Sequence[Sequence[float]], gamma: float) -> Image.Image:
    """What a colour matrix and a power make of an image, reckoned without a colour library."""
    light = (np.asarray(image, np.float64) / 255) ** gamma
    linear = np.clip(light @ (np.linalg.inv(np.array(SRGB)) @ np.array(primaries)).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray(np.round(encoded * 255).astype(np.uint8))
