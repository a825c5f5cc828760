"""Files that appear complete or not at all: written under a hidden name, then renamed."""

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PART_SECONDS = 3600.0
"""Age in seconds from which an unfinished file counts as abandoned."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a folder, pipe, socket or device of that name is refused, and never waited for.

    Raises:
        OSError: there is no such file, it may not be read, or it is no regular file.
    """
    if stat.S_ISREG(path.stat().st_mode):  # asked first: opening a device may do something to it
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise OSError(errno.EINVAL, "No regular file", str(path))


def write_new(folder: Path, name: str, write: Callable[[BinaryIO], object]) -> Path:
    """Write a file under `name`, or, where that is taken, with the first free number: `a.png`, `a-2.png`, ..."""
    temporary = _write_part(folder, write)
    wanted = folder / name
    path, number = wanted, 1
    try:
        while True:
            try:
                _rename_new(temporary, path)
                return path
            except FileExistsError:
                number += 1
                path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    finally:
        temporary.unlink(missing_ok=True)


def _rename_new(source: Path, target: Path) -> None:
    """Rename without replacing: by a hard link, or, if the file system has none, by claiming the name first."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(source, target)
        except OSError:
            target.unlink()
            raise


def write_over(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `data` as `path`, replacing what is there."""
    temporary = _write_part(path.parent, lambda file: file.write(data), mode)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_part(folder: Path, write: Callable[[BinaryIO], object], mode: int = 0o644) -> Path:
    """Write a complete, hidden file in `folder`; removed if writing fails."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def remove_parts(folder: Path) -> None:
    """Remove unfinished files of killed processes; files that are being written now stay."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > PART_SECONDS:
                part.unlink()
