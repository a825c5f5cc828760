"""The folder of uploads and of copies that are handed out: private to this process, kept small, gone at its end.

A process that is killed cannot remove its folder; the next one that starts does.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from uso.image_formats.kinds import HEAD, kind_of

logger = logging.getLogger(__name__)

VARIABLE = "GRADIO_TEMP_DIR"
"""Where Gradio looks for its folder."""

PREFIX = "uso-page-"

EVERY_SECONDS = 60.0
MAX_AGE = 24 * 3600.0
"""Longer than a tab is likely to stay open."""

MAX_BYTES = 5 * 10**9
MIN_AGE = 600.0
"""What is younger is in use, and stays even where the folder is too large."""

STRANGE_AGE = 600.0
"""What is older and no picture has been refused by the page long ago: nothing here needs it."""

LEFT_AGE = 60.0
"""A folder that is younger may be that of a process which is just starting."""

BROKEN_OFF_AGE = 3600.0
"""Files right in the folder are uploads in the making; those that are left are of callers who went away."""


def private_uploads() -> Path | None:
    """Let Gradio keep uploads in a folder of this process alone; None where the environment names another."""
    if os.environ.get(VARIABLE):
        return None
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Held as long as this process lives, whatever ends it: nobody closes the descriptor.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    os.environ[VARIABLE] = str(folder)
    threading.Thread(target=remove_left, name="left", daemon=True).start()  # it may be much, and the port is to open
    return folder


def remove_left(now: float | None = None) -> None:
    """Remove the folders of processes that were killed, with the pictures that people had given to them."""
    now = time.time() if now is None else now
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or one that goes in this moment
            if now - folder.lstat().st_mtime < LEFT_AGE:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(descriptor)


def is_private(folder: Path) -> bool:
    """Whether a folder is this process's own, made by `private_uploads`."""
    return folder.name.startswith(PREFIX) and os.environ.get(VARIABLE) == str(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(size for _, size, _ in _files(folder))


def sweep(folder: Path, now: float | None = None, most: int = MAX_BYTES) -> int:
    """Remove what is too old or no picture, and the oldest where it is too much; returns how many files went."""
    now = time.time() if now is None else now
    files = _files(folder)
    size, removed = sum(file[1] for file in files), 0
    for changed, bytes_, path in sorted(files):
        age = now - changed
        part = path.parent == folder
        gone = age > MAX_AGE or (part and age > BROKEN_OFF_AGE) or (size > most and age > MIN_AGE)
        if gone or (not part and age > STRANGE_AGE and not _is_picture(path)):
            with suppress(OSError):
                path.unlink()
                size, removed = size - bytes_, removed + 1
            with suppress(OSError):
                path.parent.rmdir()  # if it is empty
    return removed


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """(last change, bytes, path) of every file in a folder."""
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # it went in this moment
            about = path.lstat()
            if not path.is_dir():
                files.append((max(about.st_mtime, about.st_ctime), about.st_size, path))
    return files


def _is_picture(path: Path) -> bool:
    """Whether a file begins like a picture; also yes if it cannot be looked at."""
    try:
        with path.open("rb") as file:
            return bool(kind_of(file.read(HEAD)))
    except OSError:
        return True


def keep_sweeping(folder: Path, stop: threading.Event) -> None:
    """Sweep once a minute, in a thread of its own, until `stop`."""

    def loop() -> None:
        while not stop.wait(EVERY_SECONDS):
            try:
                sweep(folder)
            except Exception:
                logger.exception("The folder of uploads could not be tidied up.")

    threading.Thread(target=loop, name="sweep", daemon=True).start()


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
