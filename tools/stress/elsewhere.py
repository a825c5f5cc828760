"""People do not work on the server's processors: what stands for them here gives way to it."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

NICE = 19
"""The lowest priority, of a process and of a group."""


def give_way() -> None:
    """This process and what it starts, from now on. Call it in a process that leads no group."""
    os.setsid()
    os.nice(NICE)
    _group_gives_way(os.getpid())


def children_give_way() -> None:
    """Those that have left the group of this process, as a Chromium does."""
    for child in psutil.Process().children(recursive=True):
        with suppress(ProcessLookupError):
            if os.getsid(child.pid) != os.getsid(0):
                _group_gives_way(child.pid)


def _group_gives_way(pid: int) -> None:
    """Linux shares processors out among sessions first, where it has autogroups: there, a process's own priority counts
    only against those of its session."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))
