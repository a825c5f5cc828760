"""Pictures as one zip file, each with its record beside it.

It is made while it is sent: nothing is written to the disk, and a piece at a time is in memory.
"""

import io
import json
import re
import time
import zipfile
from collections.abc import Iterator, Sequence

from uso.files import open_regular
from uso.web.store.history import record_of
from uso.web.store.ledger import Remembered

MOST = 200
"""Pictures in one file."""

PIECE = 256 * 1024
"""Bytes."""


class _Sink(io.RawIOBase):
    """What a zip file is written to, and taken from."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self._held += data  # type: ignore[arg-type]  # anything that holds bytes
        return len(data)  # type: ignore[arg-type]

    def take(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken


def zipped(pictures: Sequence[Remembered]) -> Iterator[bytes]:
    """The pieces of a zip file. What cannot be read any more is named in its `missing.txt`."""
    sink, names, missing = _Sink(), set[str](), []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for one in pictures:
            stem = _stem(one, names)
            try:
                yield from _picture(archive, sink, one, f"{stem}.png")
            except OSError:
                missing.append(one.picture.path.name)
                continue
            if saved := record_of(one):
                text = json.dumps(saved.record | {"favourite": one.favourite}, ensure_ascii=False, indent=2)
                archive.writestr(_entry(one, f"{stem}.json"), text, zipfile.ZIP_DEFLATED)
        if missing:
            archive.writestr("missing.txt", "\n".join(["No longer on the server:", *missing, ""]))
    yield sink.take()


def _picture(archive: zipfile.ZipFile, sink: _Sink, one: Remembered, name: str) -> Iterator[bytes]:
    with open_regular(one.picture.path) as file:
        entry = _entry(one, name)
        entry.file_size = one.picture.path.stat().st_size
        with archive.open(entry, "w") as target:
            while piece := file.read(PIECE):
                target.write(piece)
                yield sink.take()


def _entry(one: Remembered, name: str) -> zipfile.ZipInfo:
    year, *rest = time.localtime(one.made)[:6]
    return zipfile.ZipInfo(name, (max(year, 1980), *rest))  # type: ignore[arg-type]


def _stem(one: Remembered, names: set[str]) -> str:
    """A name that any system takes and that no other has."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", one.picture.path.stem)[:120] or "picture"
    name, number = stem, 1
    while name.lower() in names:
        number += 1
        name = f"{stem}-{number}"
    names.add(name.lower())
    return name
