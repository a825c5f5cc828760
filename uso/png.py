"""A text of a PNG file, read without its pixels: chunk by chunk, skipping what is not asked for.

No decoder and no Pillow: a damaged or hostile picture costs nothing here. The format is that of
https://www.w3.org/TR/png-3/.
"""

import struct
import zlib
from typing import BinaryIO

from uso.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = (b"iTXt", b"tEXt", b"zTXt")

MAX_CHUNKS = 100_000
"""A PNG of 100 megapixels has 40,000 at libpng's 8 KB each."""

MAX_TEXT = 2**20
"""Bytes of one text, unpacked; a request takes some thousand."""


class DamagedTextError(ImageError):
    """The text is there, but too long, packed wrongly, or not as its checksum says."""


def read_text(file: BinaryIO, keyword: str) -> str | None:
    """The first text under a keyword, of whichever of the three kinds; None if there is none.

    Args:
        file: at its beginning, with `seek`.

    Raises:
        DamagedTextError: it is there and cannot be read.
        ImageError: the file is no PNG, or ends too early.
    """
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ImageError("This is no PNG file.")
    start = keyword.encode("latin-1") + b"\0"
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return None
        if kind in KINDS and length >= len(start):
            found = file.read(len(start))
            if found == start:
                return _text(file, kind, found, length)
            length -= len(start)
        file.seek(length + 4, 1)  # the rest of the chunk, and its checksum
    raise ImageError("This PNG file is damaged or incomplete.")


def _text(file: BinaryIO, kind: bytes, start: bytes, length: int) -> str:
    """The text of a chunk whose keyword has been read."""
    if length > len(start) + MAX_TEXT:
        raise DamagedTextError("The text is too long.")
    data = file.read(length - len(start))
    if file.read(4) != struct.pack(">I", zlib.crc32(kind + start + data)):
        raise DamagedTextError("The text is damaged.")
    packed = kind == b"zTXt"
    if kind == b"iTXt":  # packed or not, method, language, translated keyword, text
        packed, data = data[:1] == b"\1", data[2:].split(b"\0", 2)[-1]
    elif packed:
        data = data[1:]
    try:
        return (_unpacked(data) if packed else data).decode("utf-8" if kind == b"iTXt" else "latin-1")
    except (zlib.error, UnicodeDecodeError) as error:
        raise DamagedTextError("The text is damaged.") from error


def _unpacked(data: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(data, MAX_TEXT)
    if not unpacking.eof:
        raise DamagedTextError("The text is too long, or cut off.")
    return text
