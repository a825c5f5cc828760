"""Folders of saved styles: list, find, add, rename, delete. Plain data without torch; the files are `SavedStyle`'s.

A style is found by its name, in upper or lower case, or by the stem of its file. Names from outside are compared with
what is in the folder and never become paths.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uso import files
from uso.errors import ConfigError, ImageError, RequestError
from uso.language import Text
from uso.request.references import (
    MAX_STYLE_BYTES,
    STYLE_SUFFIX,
    SavedStyle,
    StyleHead,
    begins_like_a_style,
    check_style_name,
    read_head,
)

MAX_STYLES = 200
"""In one folder."""


@dataclass(frozen=True)
class StyleEntry:
    """A style in a folder, as lists show it."""

    id: str
    """The stem of its file."""
    path: Path
    head: StyleHead
    thumbnail: bytes


def default_folder() -> Path:
    """Where the command line keeps styles: among the user's own data.

    Raises:
        ConfigError: the user has no home.
    """
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:
            base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise ConfigError("There is no home folder to keep styles in. Name a folder: --styles FOLDER.") from error
    return Path(base) / "uso" / "styles"


class StyleFolder:
    """A folder of saved styles. Other files in it are left alone; so are styles that cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[StyleEntry]:
        """All styles by name. Of each file only the beginning is read."""
        return sorted(self._read(), key=lambda entry: (entry.head.title.casefold(), entry.id))

    def _read(self) -> Iterator[StyleEntry]:
        for path in sorted(self.path.glob(f"*{STYLE_SUFFIX}"))[:MAX_STYLES]:
            try:
                with files.open_regular(path) as file:
                    first = file.read(9)
                    if begins_like_a_style(first):
                        first += file.read(int.from_bytes(first[:8], "little") - 1)
                        head = read_head(first, os.fstat(file.fileno()).st_size, path.name)
                        yield StyleEntry(path.stem, path, head, file.read(head.thumbnail_bytes))
            except (OSError, ImageError):
                continue

    def entry(self, name: str) -> StyleEntry | None:
        """The style of that name or id."""
        entries = self.entries()
        wanted = name.strip().casefold()
        by_id = (entry for entry in entries if entry.id == name)
        return next(by_id, None) or next((entry for entry in entries if entry.head.title.casefold() == wanted), None)

    def get(self, name: str) -> SavedStyle:
        """The style of that name or id, with its whole file.

        Raises:
            RequestError: there is none, or it cannot be read.
        """
        return self._style(self._found(name))

    def add(self, style: SavedStyle) -> StyleEntry:
        """Keep a style.

        Raises:
            RequestError: the name is taken, the folder is full, or it cannot be written to.
            ImageError: its file cannot be used.
        """
        _ = style.image  # checks all of it
        self.check_new(style.head.title)
        try:
            files.private_folder(self.path)
            path = files.write_new(
                self.path, f"{files.slug(style.head.title)}{STYLE_SUFFIX}", lambda file: file.write(style.data)
            )
        except OSError as error:
            raise RequestError(Text("The style could not be saved ({}).", error.strerror or error)) from error
        return StyleEntry(path.stem, path, style.head, style.thumbnail)

    def check_new(self, title: str) -> None:
        """
        Raises:
            RequestError: the name cannot be used or is taken, or the folder is full.
        """
        self._check_free(check_style_name(title))
        if len(self.entries()) >= MAX_STYLES:
            raise RequestError(Text("There are {} styles already. Delete some first.", MAX_STYLES))

    def rename(self, name: str, new: str) -> None:
        """
        Raises:
            RequestError: there is none of that name, or the new one is taken or cannot be used.
        """
        entry = self._found(name)
        new = check_style_name(new)
        if new.casefold() != entry.head.title.casefold():
            self._check_free(new)
        try:
            files.write_over(entry.path, self._style(entry).renamed(new).data)
        except OSError as error:
            raise RequestError(Text("The style could not be saved ({}).", error.strerror or error)) from error

    def delete(self, name: str) -> None:
        """
        Raises:
            RequestError: there is none of that name, or it cannot be removed.
        """
        entry = self._found(name)
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise RequestError(Text("The style could not be removed ({}).", error.strerror or error)) from error

    def _found(self, name: str) -> StyleEntry:
        entry = self.entry(name)
        if entry is None:
            raise RequestError(Text("There is no saved style “{}”.", name[:80]))
        return entry

    def _check_free(self, title: str) -> None:
        if any(entry.head.title.casefold() == title.casefold() for entry in self.entries()):
            raise RequestError(Text("There is a style “{}” already. Choose another name.", title), "style_name")

    def _style(self, entry: StyleEntry) -> SavedStyle:
        try:
            with files.open_regular(entry.path) as file:
                return SavedStyle(file.read(MAX_STYLE_BYTES + 1), f"{entry.head.title}{STYLE_SUFFIX}")
        except OSError as error:
            raise RequestError(Text("There is no saved style “{}”.", entry.head.title)) from error
