"""What a run asks of picture files: sizes from their heads, and hashes, each taken once per cache."""

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from uso.errors import ImageError
from uso.images.formats.png import SIGNATURE
from uso.images.pixels import upright_size

_HEAD = 2**16
"""Bytes that nearly always hold a JPEG's size and orientation."""

_CHUNK = 12
"""Bytes of a PNG's chunk beside its contents: length, name, checksum."""

_READ_BYTES = 2**22

_INDEX = "hashes.jsonl"


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) as a person would see it, of a JPEG's or PNG's head; of other files all bytes are read.

    Raises:
        ImageError: no picture.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = os.fstat(file.fileno()).st_size
        if head.startswith(b"\xff\xd8"):
            part = head
        elif head.startswith(SIGNATURE):
            part = _png_without_pixels(file, size)
        else:
            part = b""
    if part and len(part) < size:
        try:
            return upright_size(part, path.name)
        except ImageError:
            pass  # what counts comes later in the file
    return upright_size(path.read_bytes(), path.name)


def _png_without_pixels(file: BinaryIO, size: int) -> bytes:
    """A PNG's chunks but for those of its pixels, which are skipped; orientations may come after them."""
    kept, skipped, at = [SIGNATURE], False, len(SIGNATURE)
    while at + _CHUNK <= size:
        file.seek(at)
        head = file.read(8)
        length, kind = struct.unpack(">I4s", head)
        if kind != b"IDAT":
            kept.append(head + file.read(length + 4))
        elif not skipped:
            kept.append(struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT")))
            skipped = True
        at += _CHUNK + length
    return b"".join(kept)


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


class Hashes:
    """SHA-256 of files, kept in a folder: a file is read again only when its size or time of change is another.

    Several processes and runs may share the folder; each appends what it finds.
    """

    def __init__(self, folder: Path) -> None:
        self.index = folder / _INDEX
        self._seen: dict[Path, str] = {}
        self._known: dict[str, tuple[int, int, str]] = {}
        self.read()

    def read(self) -> None:
        """Take in what other processes have written since."""
        try:
            lines = self.index.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                path, size, changed, digest = json.loads(line)
            except ValueError:  # cut off by a full disk or a kill
                continue
            self._known[path] = (size, changed, digest)

    def of(self, path: Path) -> str:
        """A file's hash; within one process always that of the first time."""
        if path not in self._seen:
            name, stat = os.path.abspath(path), path.stat()
            found = self._known.get(name)
            if found is None or found[:2] != (stat.st_size, stat.st_mtime_ns):
                found = (stat.st_size, stat.st_mtime_ns, file_sha256(path))
                self.index.parent.mkdir(parents=True, exist_ok=True)
                with self.index.open("a", encoding="utf-8") as index:
                    index.write(json.dumps([name, *found]) + "\n")
                self._known[name] = found
            self._seen[path] = found[2]
        return self._seen[path]
