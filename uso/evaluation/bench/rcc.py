"""Qt's resource files (`.rcc`, written by `rcc --binary`): one file out of the tree that they hold.

Format versions 1 to 3, uncompressed or zlib; big-endian throughout, as in Qt's qresource.cpp.
"""

import struct
import zlib

from uso.errors import ImageError

_COMPRESSED, _DIRECTORY = 1, 2
_KNOWN = _COMPRESSED | _DIRECTORY


def resource(data: bytes, path: str, name: str = "the resource file") -> bytes:
    """The file `path` (`/folder/file.webp`) of a resource file's bytes.

    Raises:
        ImageError: it is no resource file, is damaged, or holds no such file.
    """
    try:
        return _found(data, path.strip("/").split("/"), name)
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise ImageError(f"{name} is damaged ({error}). Fetch its package again.") from error


def _found(data: bytes, parts: list[str], name: str) -> bytes:
    if data[:4] != b"qres":
        raise ImageError(f"{name} is no Qt resource file. Fetch its package again.")
    version, tree, payloads, names = struct.unpack_from(">4I", data, 4)
    size = 22 if version >= 2 else 14  # from version 2 on, a node ends in its time
    count, first = _node(data, tree)[2:]
    for depth, part in enumerate(parts):
        for number in range(first, first + count):
            offset, flags, below, start = _node(data, tree + number * size)
            if _name(data, names + offset) == part:
                break
        else:
            raise ImageError(f"{name} holds no {'/'.join(parts)}. It is of another version of its package.")
        if bool(flags & _DIRECTORY) == (depth == len(parts) - 1) or flags & ~_KNOWN:
            raise ImageError(f"{name} holds {part} in a form that is not read here.")
        count, first = below, start
    start = payloads + struct.unpack_from(">I", data, tree + number * size + 10)[0]
    length = struct.unpack_from(">I", data, start)[0]
    content = data[start + 4 : start + 4 + length]
    return zlib.decompress(content[4:]) if flags & _COMPRESSED else content


def _node(data: bytes, place: int) -> tuple[int, ...]:
    """(offset of the name, flags, count of children, number of the first); the last two only of a folder."""
    return struct.unpack_from(">IHII", data, place)


def _name(data: bytes, place: int) -> str:
    length = struct.unpack_from(">H", data, place)[0]
    return data[place + 6 : place + 6 + 2 * length].decode("utf-16-be")
