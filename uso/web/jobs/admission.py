"""Whether a request may join the queue: limits per person, limits in total, and free disk space.

Counts and clocks only. The values of a request are checked by `GenerationRequest.create`.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uso.errors import USOError
from uso.language import Text, joined
from uso.web.access.identity import Asker
from uso.web.access.limits import Window, duration
from uso.web.settings import ServerSettings

MINUTE = 60.0
MAX_WAITING_BYTES = 2 * 10**9
"""Limit on the images of all queued requests together."""


class LimitError(USOError):
    """A request was refused for now: too many, too fast, or no room. `kind` is for the metrics."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(eq=False, frozen=True)
class Place:
    """A place in the queue, held for an admitted request while its images are read and it is submitted."""

    asker: Asker
    image_bytes: int = 0
    """Size of its images."""
    num_images: int = 1
    """How many pictures it asks for."""

    @property
    def person(self) -> str:
        return self.asker.person


class Admission:
    """Not thread-safe, except `check_disk`: the queue calls the rest under its own lock."""

    def __init__(
        self,
        settings: ServerSettings,
        clock: Callable[[], float] = time.monotonic,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._settings = settings
        self._free_bytes = free_bytes
        self._window = Window(settings.rate, MINUTE, clock=clock)

    def check_queue(self, *, waiting: int, waiting_of_person: int, waiting_bytes: int, seconds: float | None) -> None:
        """Check that one more request may wait.

        Args:
            waiting: requests that wait already.
            waiting_of_person: of these, how many are this person's.
            waiting_bytes: size of the images of all waiting requests and of this one.
            seconds: until there is room again, if known.

        Raises:
            LimitError: what is too much, and what to do.
        """
        settings = self._settings
        when = Text("in a moment") if seconds is None else Text("in about {}", duration(seconds))
        if waiting >= settings.max_waiting:
            raise LimitError(
                "line", Text("{} requests are waiting, and no more can wait here. Try again {}.", waiting, when)
            )
        if waiting_bytes > MAX_WAITING_BYTES:
            raise LimitError(
                "line", Text("Too many large images are waiting. Use smaller ones, or try again {}.", when)
            )
        if waiting_of_person >= settings.max_waiting_per_person:
            raise LimitError(
                "person",
                Text(
                    "{} requests of yours are waiting, and no more can wait for one person. "
                    "Send this one when a picture is finished, or stop one.",
                    waiting_of_person,
                ),
            )

    def check_disk(self, promised: int = 0) -> None:
        """Check that there is room for pictures.

        Args:
            promised: bytes that the pictures of all admitted requests may still take.

        Raises:
            LimitError: there is not.
        """
        try:
            free = self._free_bytes(self._settings.output)
        except OSError:
            return  # saving reports what is wrong with the folder, and keeps the picture elsewhere
        if free - promised < self._settings.min_free_gb * 10**9:
            raise LimitError(
                "disk", Text("The server's disk is full, and no more pictures can be kept. Tell the one who runs it.")
            )

    def check_rate(self, person: str, num_images: int = 1) -> None:
        """Check that somebody may request so many pictures now, and count them.

        Raises:
            LimitError: they have requested too many in the last minute.
        """
        rate = self._settings.rate
        if rate and (wait := self._window.take(person, num_images)):
            most = Text("One person may request at most {} pictures a minute.", rate)
            later = Text("Try again in {}.", duration(wait))
            if num_images > 1:
                later = Text("Try again in {} or request fewer at once.", duration(wait))
            raise LimitError("rate", joined(most, later))
