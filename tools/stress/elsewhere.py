"""People do not work on the server's processors: what stands for them here gives way to it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

NICE = 19
"""The lowest priority, of a process and of a group."""


def give_way() -> None:
    """This process and what it starts, from now on. Call it in a process that leads no group."""
    os.setsid()
    os.nice(NICE)
    _group_gives_way(os.getpid())


@contextmanager
def giving_way() -> Iterator[None]:
    """What is started inside and leaves the session of this process, as a Chromium does, gives way."""
    before = _children()
    yield
    for child in _children() - before:
        with suppress(ProcessLookupError):
            if os.getsid(child) != os.getsid(0):
                _group_gives_way(child)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _group_gives_way(pid: int) -> None:
    """Linux shares processors out among sessions first, where it has autogroups: there, a process's own priority counts
    only against those of its session."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))
