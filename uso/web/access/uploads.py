"""How much may be uploaded: by one person in ten minutes, and by all before disk or folder are full.

Says yes or no before the first byte is taken, and keeps count. What one request may hold is said in `bodies.py`; what
is cleared away again, in `scratch.py`.
"""

import asyncio
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradio.utils import get_upload_folder

from uso.web.access.identity import Asker
from uso.web.store import uploads

MOST_FILES = 60
MOST_BYTES = 10**9
SLOTS, SLOT_SECONDS = 10, 60
"""Of one person, in as many slots of a clock as long as this: ten minutes."""

REMEMBERED_PEOPLE = 10_000
"""The one who uploaded nothing for longest is forgotten first."""

MEASURED_SECONDS = 60.0
"""How long the folder's measured size is relied on, with what was uploaded since."""
TIDIED_SECONDS = 10.0
"""How often a folder that seems full is tidied up and measured again."""

NO_ROOM = "The server has no room for uploads now. Try again in a while, or tell the one who runs it."


@dataclass(frozen=True)
class Refused:
    """Why an upload is not taken."""

    status: int
    sentence: str
    seconds: float | None = None
    """Until it may be tried again, where that is known."""


@dataclass(frozen=True)
class Taken:
    """An upload on its way, counted as one file and as the size that it may have."""

    person: str | None
    """None: not counted for anybody."""
    slot: int
    size: int


class Ration:
    """What each person uploaded lately, one pair of numbers for each minute: small, whatever is sent."""

    def __init__(self, most_files: int, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_files, self.most_bytes, self._clock = most_files, most_bytes, clock
        self._people: OrderedDict[str, dict[int, tuple[int, int]]] = OrderedDict()

    def now(self) -> int:
        """The slot of this moment."""
        return int(self._clock() // SLOT_SECONDS)

    def wait(self, person: str, size: int) -> float:
        """Seconds until a person may upload a file of `size` bytes more; 0 if now."""
        slots = self._recent(person)
        files, bytes_ = (sum(pair[kind] for pair in slots.values()) for kind in (0, 1))
        if not slots or (files < self.most_files and bytes_ + size <= self.most_bytes):
            return 0.0
        return max((min(slots) + SLOTS) * SLOT_SECONDS - self._clock(), 1.0)

    def count(self, person: str, slot: int, files: int, size: int) -> None:
        """Add, or take away again what was not sent after all."""
        slots = self._recent(person)
        if slot > self.now() - SLOTS:
            had = slots.get(slot, (0, 0))
            slots[slot] = (had[0] + files, had[1] + size)
            self._people[person] = slots
            self._people.move_to_end(person)
        while len(self._people) > REMEMBERED_PEOPLE:
            self._people.popitem(last=False)

    def _recent(self, person: str) -> dict[int, tuple[int, int]]:
        oldest = self.now() - SLOTS
        return {slot: pair for slot, pair in self._people.get(person, {}).items() if slot > oldest}


class Uploads:
    """Asked before an upload is taken in, and told when it has ended. For one event loop.

    Args:
        limit: bytes that one request may have.
        min_free: bytes of the disk that stay free.
    """

    def __init__(self, limit: int, min_free: float, *, most_held: int = uploads.MAX_BYTES) -> None:
        self._limit, self._min_free, self._most_held = limit, min_free, most_held
        self._ration = Ration(MOST_FILES, max(MOST_BYTES, 2 * limit))
        self._coming = 0
        """Bytes that uploads on their way may still have."""
        self._held, self._measured = 0, float("-inf")
        self._measuring = asyncio.Lock()

    async def begin(self, asker: Asker | None, size: int | None) -> Taken | Refused:
        """Take an upload of `size` bytes (None: it does not say). A person at this very machine is not rationed."""
        size = self._limit if size is None else size
        person = None if asker is None or asker.local else asker.person
        wait = 0.0 if person is None else self._ration.wait(person, size)
        if wait:
            most = f"{self._ration.most_files} files and {self._ration.most_bytes / 1e9:g} GB"
            from uso.web.access.limits import duration

            span = duration(SLOTS * SLOT_SECONDS)
            sentence = f"At most {most} in {span} are taken from one person. Try again in {duration(wait)}."
            return Refused(429, sentence, wait)
        taken = Taken(person, self._ration.now(), size)
        self._coming += size  # before the measuring, during which others may ask
        if person is not None:
            self._ration.count(person, taken.slot, 1, size)
        if not await self._has_room():
            self.end(taken, files=0, size=0)
            return Refused(507, NO_ROOM)
        return taken

    def end(self, taken: Taken, files: int, size: int) -> None:
        """What it was in the end, in files and bytes."""
        self._coming -= taken.size
        self._held += size
        if taken.person is not None:
            self._ration.count(taken.person, taken.slot, files - 1, size - taken.size)

    async def _has_room(self) -> bool:
        folder = Path(get_upload_folder())
        try:
            if _free(folder) - self._coming < self._min_free:
                return False
        except OSError:
            return True  # taking it in says what is wrong
        if not uploads.is_private(folder):  # somebody else's, who looks after it
            return True
        async with self._measuring:
            age = time.monotonic() - self._measured
            if age > (TIDIED_SECONDS if self._is_full() else MEASURED_SECONDS):
                self._held = await asyncio.to_thread(_measured, folder, self._most_held - self._coming)
                self._measured = time.monotonic()
            return not self._is_full()

    def _is_full(self) -> bool:
        return self._held + self._coming > self._most_held


def _free(folder: Path) -> int:
    """Bytes that are free where the folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _measured(folder: Path, most: int) -> int:
    """The folder's size in bytes; if that is more than `most`, after tidying it up."""
    size = uploads.size_of(folder)
    if size > most and os.access(folder, os.W_OK):
        uploads.sweep(folder, most=max(most, 0))
        size = uploads.size_of(folder)
    return size
