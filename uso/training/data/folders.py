"""Folders of pictures: which files are pictures, and the text file beside each that is its caption. Needs no torch."""

import codecs
import os
from pathlib import Path

from uso.errors import RequestError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

FOREIGN = {"@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "lost+found"}
"""Folders of file servers and operating systems, beside those whose name begins with a point."""


def pictures_in(folder: Path) -> list[Path]:
    """Pictures at any depth, in linked folders too; those with a caption first, and then PNGs: of equals they stay.

    Copies that notebooks, file servers and operating systems keep are left out.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not _is_foreign(name)]
        if real not in seen:
            found += [Path(place, name) for name in names if not name.startswith(".")]
        seen.add(real)
    pictures = [path for path in found if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(pictures, key=lambda path: (caption_file(path) is None, path.suffix.lower() != ".png", path))


def _is_foreign(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in FOREIGN


def caption_file(path: Path) -> Path | None:
    """`a.txt` or `a.png.txt` beside `a.png`."""
    beside = (path.with_suffix(".txt"), path.with_name(f"{path.name}.txt"))
    return next((file for file in beside if file.is_file()), None)


def caption_of(path: Path) -> str:
    """A picture's caption on one line; empty without.

    Raises:
        RequestError: it cannot be read, or is no UTF-8 (nor UTF-16 with its mark).
    """
    file = caption_file(path)
    if file is None:
        return ""
    try:
        data = file.read_bytes()
        text = data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except OSError as error:
        raise RequestError(f"its caption {file.name} could not be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"its caption {file.name} is not UTF-8 text; save it as UTF-8") from error
    if "\0" in text:
        raise RequestError(f"its caption {file.name} is not UTF-8 text; save it as UTF-8")
    return " ".join(text.split())
