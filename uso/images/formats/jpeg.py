"""JPEG: keeps the segments that make up the picture, and counts the scans before any is decoded."""

import re
import struct
from dataclasses import dataclass, field

from uso.images.formats.contents import MAX_PARTS, MAX_PROFILE, ImageData, Refusal, cut, damaged, orientation, too_dear
from uso.language import Text

MAX_SCANS = 32
"""Most scans of one picture. Encoders write 1 to 16; each is a pass over all pixels, 1.2 ms per megapixel even where it
holds nothing, so that the dearest file takes three times as long as an ordinary one."""

END = b"\xff\xd9"

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""The marker that ends a scan: neither a stuffed 255 nor a restart."""

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers that no length follows."""

_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD}
_APP0, _APP1, _APP2, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE


@dataclass
class _Seen:
    """What the segments of a file say."""

    kept: list[bytes] = field(default_factory=lambda: [b"\xff\xd8"])
    exif: bytes = b""
    xmp: bytes = b""
    profile: dict[int, bytes] = field(default_factory=dict)
    parts: int = 0
    frame: int = 0
    components: tuple[int, ...] = ()
    fineness: dict[int, list[int]] = field(default_factory=dict)
    """By component: for each of the 64 coefficients, the lowest bit that a scan has brought; 99 for none."""


def prepare(data: bytes) -> ImageData:
    """The first picture of a file, without what is not needed to show it.

    Raises:
        Refusal: no pixels, a kind of JPEG that is not read, or too many scans.
    """
    seen = _Seen()
    at = start = _header(data, seen)
    scans, ended = 0, False
    while True:
        scans += 1
        if scans > MAX_SCANS:
            raise too_dear(Text("it is a JPEG of more than {} scans", MAX_SCANS))
        at, marker = _scan(data, at, seen)
        if marker != _START_OF_SCAN:
            ended = marker == _END_OF_IMAGE
            break
    picture = data[start - 2 : at] if ended else data[start - 2 :].rstrip(b"\xff") + END
    if not ended and not _is_complete(seen):
        raise cut()
    return ImageData(
        "JPEG",
        b"".join(seen.kept) + picture,
        orientation(seen.exif, seen.xmp),
        _profile(seen),
        unended=not ended,
    )


def padded(data: bytes) -> bytes:
    """What `prepare` made, with bytes before its end that only a decoder reads that lacks some."""
    last = max(data.rfind(bytes((0xFF, marker)), data.rindex(b"\xff\xda")) for marker in range(0xD0, 0xD8))
    following = data[last + 1] + 1 if last > 0 else 0xD0
    filling = bytes(range(1, 255)) * 8
    restarts = b"".join(bytes((0xFF, 0xD0 | marker & 7)) + filling for marker in range(following, following + 2))
    return data.removesuffix(END) + filling + restarts + END


def scans_in(data: bytes) -> int:
    """How many scans a stream holds, such as a strip of a TIFF; counts to one more than is accepted."""
    at, count = 0, 0
    while count <= MAX_SCANS and (at := data.find(b"\xff\xda", at) + 1):
        count += 1
    return count


def _header(data: bytes, seen: _Seen) -> int:
    """Read segments up to the first scan; returns where that follows its marker."""
    at = 2
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker == _START_OF_SCAN:
            if not seen.frame:
                raise damaged(Text("its header is damaged"))
            return at
        if marker == _END_OF_IMAGE:
            break
        if marker not in _BARE:
            at = _segment(data, at, marker, seen)
    raise cut()


def _segment(data: bytes, at: int, marker: int, seen: _Seen) -> int:
    """Read one segment, `at` its length; returns where it ends."""
    seen.parts += 1
    if seen.parts > MAX_PARTS:
        raise too_dear(Text("it is made of more than {} parts", MAX_PARTS))
    if at + 2 > len(data):
        raise cut()
    end = at + max(2, struct.unpack_from(">H", data, at)[0])
    body = data[at + 2 : end]
    if marker == _APP1 and body.startswith(b"Exif\0\0"):
        seen.exif = seen.exif or body
    elif marker == _APP1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        seen.xmp = body
    elif marker == _APP2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
        seen.profile[body[12]] = body[13:]
    elif marker in _FRAMES:
        _frame(body, marker, seen)
    if marker in _FRAMES | _TABLES or (marker == _APP0 and _is_jfif(body)) or (marker == _ADOBE and _is_adobe(body)):
        seen.kept.append(bytes((0xFF, marker)) + data[at:end])
    return end


def _is_jfif(body: bytes) -> bool:
    return body[:5] == b"JFIF\0" and len(body) >= 14


def _is_adobe(body: bytes) -> bool:
    return body[:5] == b"Adobe" and len(body) >= 12


def _frame(body: bytes, marker: int, seen: _Seen) -> None:
    if seen.frame:
        raise damaged(Text("it has two headers"))
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise damaged(Text("its header is damaged"))
    if body[0] != 8:
        raise Refusal(Text("is a JPEG of {} bits per colour; 8 are read. Save it again as PNG or JPEG.", body[0]))
    seen.frame = marker
    seen.components = tuple(body[6 + 3 * number] for number in range(body[5]))


def _scan(data: bytes, at: int, seen: _Seen) -> tuple[int, int]:
    """Pass over a scan, `at` its length; returns (where the marker after it ends, that marker, 0 where none is)."""
    if at + 3 > len(data):
        raise cut()
    end = at + max(2, struct.unpack_from(">H", data, at)[0])
    _note_fineness(data[at + 2 : end], seen)
    at = end
    while match := _AFTER_SCAN.search(data, at):
        marker, at = match[1][0], match.end()
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return at, marker
        if marker not in _BARE:
            seen.parts += 1
            if seen.parts > MAX_PARTS:
                raise too_dear(Text("it is made of more than {} parts", MAX_PARTS))
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return len(data), 0


def _note_fineness(header: bytes, seen: _Seen) -> None:
    number = header[0] if header else 0
    if len(header) < 4 + 2 * number:
        return
    first, last, bit = header[1 + 2 * number], header[2 + 2 * number], header[3 + 2 * number] & 15
    if seen.frame not in _PROGRESSIVE:
        first, last, bit = 0, 63, 0
    for component in header[1 : 1 + 2 * number : 2]:
        bits = seen.fineness.setdefault(component, [99] * 64)
        bits[first : min(last, 63) + 1] = [bit] * (min(last, 63) + 1 - first)


def _is_complete(seen: _Seen) -> bool:
    """Whether there is a scan for every number of every component (the last one may still be cut)."""
    return all(not any(seen.fineness.get(component, [99])) for component in seen.components)


def _profile(seen: _Seen) -> bytes | None:
    """A profile is cut into numbered segments that say how many they are."""
    parts = [seen.profile[number] for number in sorted(seen.profile)]
    if not parts or len(parts) != parts[0][0]:
        return None
    profile = b"".join(part[1:] for part in parts)
    return profile if len(profile) <= MAX_PROFILE else None
