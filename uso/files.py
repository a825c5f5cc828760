"""Files that appear complete or not at all (written under a hidden name, then renamed), folders that are private from
the start, text that people wrote, and names made of it."""

import errno
import functools
import logging
import os
import re
import secrets
import stat
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from uso.errors import ConfigError, USOError

logger = logging.getLogger(__name__)

PUBLIC = 0o666
"""Mode of ordinary files; the umask decides what is left of it."""
PRIVATE = 0o600
"""Mode of files that hold secrets, or images that people sent."""

PART_SECONDS = 3600.0
"""Age in seconds from which an unfinished file counts as abandoned."""

_MAX_SLUG = 48

_UNSUPPORTED = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


def read_text(path: Path, what: str, error: type[USOError] = ConfigError) -> str:
    """The text of a file that somebody wrote: UTF-8, with or without a byte order mark.

    Args:
        what: what the file is, for the message: "accounts file".

    Raises:
        error: the file cannot be read, or holds something else, such as UTF-16.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as failed:
        raise error(f"The {what} {path} could not be read ({failed.strerror}).") from failed
    except UnicodeDecodeError as failed:
        raise error(f"The {what} {path} is not UTF-8 text. Save it as UTF-8.") from failed
    if "\0" in text:  # UTF-16 without a mark decodes as UTF-8 with a zero beside each letter
        raise error(f"The {what} {path} is not UTF-8 text. Save it as UTF-8.")
    return text


def slug(text: str) -> str:
    """The first words of `text`, safe in any file name: lower-case ASCII letters, digits and hyphens."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    return words[:_MAX_SLUG].strip("-") or "picture"


@contextmanager
def where_supported() -> Iterator[None]:
    """Ignores that a file system, such as a network share, refuses a call that is not needed: chmod, fsync."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _tell_once(error.strerror or str(error))


@functools.cache
def _tell_once(reason: str) -> None:
    logger.info("A file system here refuses modes or fsync (%s). Files are written without.", reason)


def private_folder(folder: Path) -> Path:
    """Make a folder that this user alone may enter; one that exists is closed to others where its share allows that."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        with where_supported():
            folder.chmod(0o700)
    return folder


def own_temporary_folder(name: str) -> Path:
    """A private folder called `name` beside the system's temporary files.

    Everybody can put things there first. A link, another user's folder, or one that others may write to is left alone:
    then the folder is `name-` and random letters.
    """
    parent = Path(tempfile.gettempdir())
    with suppress(FileExistsError):
        (parent / name).mkdir(mode=0o700)
    found = next(filter(_is_own, [parent / name, *sorted(parent.glob(f"{name}-*"))]), None)
    return private_folder(found) if found else Path(tempfile.mkdtemp(prefix=f"{name}-"))


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, no link, that belongs to this user and that nobody else may write to."""
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode):
        return False
    return not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)


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


def write_over(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Write `data` as `path`, replacing what is there."""
    temporary = _write_part(path.parent, lambda file: file.write(data), mode)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_part(folder: Path, write: Callable[[BinaryIO], object], mode: int = PUBLIC) -> Path:
    """Write a complete, hidden file in `folder`, with its mode from the start; removed if writing fails."""
    path = folder / f".{secrets.token_hex(8)}.part"
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            write(file)
            file.flush()
            with where_supported():
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def remove_parts(folder: Path) -> None:
    """Remove unfinished files of killed processes; files that are being written now stay."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > PART_SECONDS:
                part.unlink()
