"""How much may be uploaded: by one person in ten minutes, and by all before disk or folder are full.

Admits or refuses an upload before its first byte is read, and counts it. The size of one request is limited in
`bodies.py`; old files are removed by `store/uploads.py`.
"""

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradio.utils import get_upload_folder

from uso.language import Text
from uso.web.access.identity import Asker
from uso.web.access.limits import Window, duration

MOST_FILES = 60
MOST_BYTES = 10**9
WINDOW_SECONDS, STEP_SECONDS = 600.0, 60.0
"""Of one person in ten minutes, counted by the minute."""

MEASURED_SECONDS = 60.0
"""How long the folder's measured size is relied on, with what was uploaded since."""
TIDIED_SECONDS = 10.0
"""How often a folder that seems full is tidied up and measured again."""

NO_ROOM = Text("The server has no room for uploads now. Try again in a while, or tell the one who runs it.")


@dataclass(frozen=True)
class FolderLimit:
    """How large the folder of uploads may be."""

    most: int
    """Bytes of all uploads together."""
    tidied_size: Callable[[Path, int], int | None]
    """Given the folder and how many bytes it may have: its size, tidied up first if it is more. None for a folder that
    somebody else looks after; it has no limit."""


@dataclass(frozen=True)
class Refused:
    """Why an upload is refused."""

    status: int
    sentence: str
    seconds: float | None = None
    """Until it may be tried again, where that is known."""


@dataclass(frozen=True)
class Admitted:
    """An upload on its way, counted as one file and as the size that it may have."""

    size: int
    person: str | None = None
    """None: no person's limit counts it."""
    until: tuple[float, float] = (0.0, 0.0)
    """When its file and its bytes stop counting."""


class Quota:
    """What each person uploaded lately, in files and bytes."""

    def __init__(self, most_files: int, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.files = Window(most_files, WINDOW_SECONDS, step=STEP_SECONDS, clock=clock)
        self.bytes = Window(most_bytes, WINDOW_SECONDS, step=STEP_SECONDS, clock=clock)

    def wait(self, person: str, size: int) -> float:
        """Seconds until a person may upload a file of `size` bytes more; 0 if now."""
        return max(self.files.wait(person), self.bytes.wait(person, size))

    def count(self, person: str, size: int) -> Admitted:
        """Count one file of `size` bytes."""
        return Admitted(size, person, (self.files.count(person), self.bytes.count(person, size)))

    def correct(self, upload: Admitted, files: int, size: int) -> None:
        """Count what an upload really had instead."""
        if upload.person is not None:
            self.files.correct(upload.person, upload.until[0], files - 1)
            self.bytes.correct(upload.person, upload.until[1], size - upload.size)


class Uploads:
    """Admits uploads, and counts what each had when it ends. For one event loop.

    Args:
        limit: bytes that one request may have.
        min_free: bytes of the disk that stay free.
        folder: the limit of the folder of uploads; None: it has none.
    """

    def __init__(self, limit: int, min_free: float, folder: FolderLimit | None = None) -> None:
        self._limit, self._min_free, self._folder = limit, min_free, folder
        self._quota = Quota(MOST_FILES, max(MOST_BYTES, 2 * limit))
        self._coming = 0
        """Bytes that uploads on their way may still have."""
        self._held: float = 0
        self._measured = float("-inf")
        self._measuring = asyncio.Lock()

    async def begin(self, asker: Asker | None, size: int | None) -> Admitted | Refused:
        """Admit or refuse an upload of `size` bytes (None: unknown). A person at this machine has no quota."""
        size = self._limit if size is None else size
        person = None if asker is None or asker.local else asker.person
        if person is not None and (wait := self._quota.wait(person, size)):
            most = f"{MOST_FILES} files and {self._quota.bytes.most / 1e9:g} GB"
            span = duration(WINDOW_SECONDS)
            sentence = Text("At most {} in {} are taken from one person. Try again in {}.", most, span, duration(wait))
            return Refused(429, sentence, wait)
        upload = Admitted(size) if person is None else self._quota.count(person, size)
        self._coming += size  # before the folder is measured: others may come meanwhile
        if not await self._has_room():
            self.end(upload, files=0, size=0)
            return Refused(507, NO_ROOM)
        return upload

    def end(self, upload: Admitted, files: int, size: int) -> None:
        """An upload is over, and really had so many files and bytes."""
        self._coming -= upload.size
        self._held += size
        self._quota.correct(upload, files, size)

    async def _has_room(self) -> bool:
        folder = Path(get_upload_folder())
        try:
            if _free(folder) - self._coming < self._min_free:
                return False
        except OSError:
            return True  # writing the file will report what is wrong
        return self._folder is None or await self._fits(self._folder, folder)

    async def _fits(self, limit: FolderLimit, folder: Path) -> bool:
        async with self._measuring:
            full = self._held + self._coming > limit.most
            if time.monotonic() - self._measured > (TIDIED_SECONDS if full else MEASURED_SECONDS):
                size = await asyncio.to_thread(limit.tidied_size, folder, max(limit.most - self._coming, 0))
                self._held = float("-inf") if size is None else size  # never full
                self._measured = time.monotonic()
            return self._held + self._coming <= limit.most


def _free(folder: Path) -> int:
    """Bytes that are free where the folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
