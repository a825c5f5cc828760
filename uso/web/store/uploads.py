"""The folder of uploaded files, and of copies for download: private to this process, kept small, removed at its end.

The folder of a process that was killed is removed by the next one that starts.
"""

import fcntl
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from uso.images.formats.kinds import HEAD, kind_of
from uso.web.store.upkeep import now_for_ages, repeat

VARIABLE = "GRADIO_TEMP_DIR"
"""Names Gradio's folder of uploads."""

PREFIX = "uso-page-"

EVERY_SECONDS = 60.0
MAX_AGE = 24 * 3600.0
"""Longer than a tab is likely to stay open."""

MAX_BYTES = 5 * 10**9
MIN_AGE = 600.0
"""Younger files are in use, and stay even if the folder is too large."""

NO_IMAGE_AGE = 600.0
"""An older file that is no image was refused by the page long ago."""

LEFT_AGE = 60.0
"""A younger folder may belong to a process that is just starting."""

PARTIAL_AGE = 3600.0
"""Files directly in the folder are uploads in progress; older ones were broken off."""


def private_uploads() -> Path | None:
    """Make a folder for this process alone, where Gradio keeps uploads; None if the environment names another, which is
    private too if it is new."""
    if named := os.environ.get(VARIABLE):
        with suppress(OSError):  # Gradio says what is wrong with it, once somebody uploads
            Path(named).mkdir(mode=0o700, parents=True, exist_ok=True)
        return None
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    # The lock lasts as long as this process: nobody closes the descriptor.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    os.environ[VARIABLE] = str(folder)
    threading.Thread(target=remove_left, name="left", daemon=True).start()  # not before the port opens
    return folder


def remove_left(now: float | None = None) -> None:
    """Remove the folders of processes that were killed, with people's images in them."""
    now = time.time() if now is None else now
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or just removed
            about = folder.lstat()
            if about.st_uid != os.getuid() or now - about.st_mtime < LEFT_AGE:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(descriptor)


def is_private(folder: Path) -> bool:
    """Whether a folder was made by `private_uploads` in this process."""
    return folder.name.startswith(PREFIX) and os.environ.get(VARIABLE) == str(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(size for _, size, _ in _files(folder))


def tidied_size(folder: Path, most: int) -> int | None:
    """Bytes of all files in a folder, swept first if it has more than `most`; None if it is not this process's own."""
    if not is_private(folder):
        return None
    size = size_of(folder)
    if size > most and os.access(folder, os.W_OK):
        sweep(folder, most=most)
        size = size_of(folder)
    return size


def sweep(folder: Path, now: float | None = None, most: int = MAX_BYTES) -> int:
    """Remove files that are too old or no images, and the oldest if all take over `most` bytes; returns how many."""
    now = now_for_ages() if now is None else now
    files = _files(folder)
    size, removed = sum(file[1] for file in files), 0
    for changed, bytes_, path in sorted(files):
        age = now - changed
        part = path.parent == folder
        gone = age > MAX_AGE or (part and age > PARTIAL_AGE) or (size > most and age > MIN_AGE)
        if gone or (not part and age > NO_IMAGE_AGE and not _is_image(path)):
            with suppress(OSError):
                path.unlink()
                size, removed = size - bytes_, removed + 1
            with suppress(OSError):
                path.parent.rmdir()  # if it is empty
    return removed


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """(last change, bytes, path) of every file in a folder."""
    files = []
    for parent, _, names in os.walk(folder):  # unlike a glob, it passes over folders that were just removed
        for name in names:
            with suppress(OSError):  # just removed
                about = (path := Path(parent, name)).lstat()
                files.append((max(about.st_mtime, about.st_ctime), about.st_size, path))
    return files


def _is_image(path: Path) -> bool:
    """Whether a file begins like an image, or cannot be read at all."""
    try:
        with path.open("rb") as file:
            return bool(kind_of(file.read(HEAD)))
    except OSError:
        return True


def keep_sweeping(folder: Path, stop: threading.Event) -> None:
    """Sweep regularly, in a thread, until `stop`."""
    repeat(lambda: sweep(folder), EVERY_SECONDS, stop, name="sweeping uploads")


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
