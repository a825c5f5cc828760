"""Whether a request may join the line: limits per person, in all, and of the disk, each refused in a sentence.

Counts and clocks only; the words of a request itself are verified by `GenerationRequest.create`.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from uso.errors import USOError
from uso.web.access.limits import Window, duration
from uso.web.settings import ServerSettings

MINUTE = 60.0
MAX_WAITING_BYTES = 2 * 10**9
"""Of all images that wait in the line."""


class LimitError(USOError):
    """A request was refused for now: too many, too fast, or no room. The kind is for statistics."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class Admission:
    """Not thread-safe but for `check_disk`: the engine asks under its own lock."""

    def __init__(
        self,
        settings: ServerSettings,
        clock: Callable[[], float] = time.monotonic,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._settings = settings
        self._free_bytes = free_bytes
        self._window = Window(settings.rate, MINUTE, clock=clock)

    def check_line(self, *, waiting: int, waiting_of_person: int, waiting_bytes: int, seconds: float | None) -> None:
        """Whether one more request may wait.

        Args:
            waiting: requests in line.
            waiting_of_person: of these, how many are this person's.
            waiting_bytes: of the images of all requests in line, with this one's.
            seconds: until there is room again, if that is known.

        Raises:
            LimitError: what is too much, and what to do.
        """
        settings = self._settings
        when = "in a moment" if seconds is None else f"in about {duration(seconds)}"
        if waiting >= settings.max_waiting:
            raise LimitError("line", f"{waiting} requests are waiting, and no more can wait here. Try again {when}.")
        if waiting_bytes > MAX_WAITING_BYTES:
            raise LimitError("line", f"Too many large images are waiting. Use smaller ones, or try again {when}.")
        if waiting_of_person >= settings.max_waiting_per_person:
            raise LimitError(
                "person",
                f"{waiting_of_person} requests of yours are waiting, and no more can wait for one person. "
                "Send this one when a picture is finished, or stop one.",
            )

    def check_disk(self) -> None:
        """Whether there is room for pictures.

        Raises:
            LimitError: there is not.
        """
        try:
            free = self._free_bytes(self._settings.output)
        except OSError:
            return  # saving says what is wrong with the folder, and keeps the picture elsewhere
        if free < self._settings.min_free_gb * 10**9:
            raise LimitError(
                "disk", "The server's disk is full, and no more pictures can be kept. Tell the one who runs it."
            )

    def check_rate(self, person: str) -> None:
        """Whether somebody may make a request now, which is counted.

        Raises:
            LimitError: they have made too many in the last minute.
        """
        rate = self._settings.rate
        if rate and (wait := self._window.take(person)):
            raise LimitError(
                "rate", f"At most {rate} requests a minute are taken from one person. Try again in {duration(wait)}."
            )
