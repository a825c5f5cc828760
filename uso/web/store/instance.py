"""Which servers at an output folder still run: each holds a lock on a file of its own as long as its process lives."""

import fcntl
import os
import uuid
from contextlib import suppress
from pathlib import Path

from uso.files import open_regular

ENDING = ".alive"


class Instance:
    """This server among those at the same folder.

    Args:
        folder: where the files are; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.id = uuid.uuid4().hex
        self._descriptor: int | None = self._sign_in()

    def sign_out(self) -> None:
        """This server has ended in order; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # the folder may be gone
                self._file(self.id).unlink(missing_ok=True)
            os.close(descriptor)

    def renew(self) -> None:
        """Sign in again if the file is gone, as from a folder that was wiped."""
        if self._descriptor is None:
            return
        try:
            there = os.path.samestat(os.fstat(self._descriptor), self._file(self.id).stat())
        except FileNotFoundError:
            there = False
        if not there:
            lost, self._descriptor = self._descriptor, self._sign_in()
            os.close(lost)

    def lives(self, instance: str) -> bool:
        """Whether a server still runs. Removes the file of one that does not."""
        return instance == self.id or self._lives(instance)

    def dead(self, instances: set[str]) -> set[str]:
        """The ids of servers that have ended, among some and all that have a file here. Removes their files."""
        known = instances | {path.stem for path in self._folder.glob(f"*{ENDING}")}
        return {instance for instance in known if not self.lives(instance)}

    def _file(self, instance: str) -> Path:
        return self._folder / f"{instance}{ENDING}"

    def _sign_in(self) -> int:
        """Create and lock the file; the lock ends with the process, whatever ends it. Returns the descriptor."""
        while True:
            descriptor = os.open(self._file(self.id), os.O_CREAT | os.O_WRONLY, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self._file(self.id).exists():
                return descriptor
            os.close(descriptor)  # another server removed it as a dead one's before it was locked

    def _lives(self, instance: str) -> bool:
        try:
            with open_regular(self._file(instance)) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # none, or nothing that a server made
            return False
        self._file(instance).unlink(missing_ok=True)
        return False
