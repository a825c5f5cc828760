"""How the processor's threads wait, and how many there are: set before torch is imported, which reads it once.

A thread of OpenMP that waits for another one spins. On a machine that others use as well, the thread it waits for may
not be running, and the spinning keeps it from running. Threads that sleep cost nothing measurable on a quiet machine.
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""What is set, unless one of `WAITING_BY_USER` is."""
WAITING_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
COUNT_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")


def share_processors() -> None:
    """Let threads sleep while they wait, and start no more than a container's processor time feeds.

    Changes the environment; what the user has set stays. Call it before torch is imported.
    """
    if not any(os.environ.get(name) for name in WAITING_BY_USER):
        os.environ.update(WAITING)
    if not any(os.environ.get(name) for name in COUNT_BY_USER) and processors() < _processors():
        os.environ["OMP_NUM_THREADS"] = _set_here[0] = str(processors())


_set_here = [""]
"""What `share_processors` has set."""


def threads_by_user() -> int | None:
    """The number of threads that the user has set."""
    count = os.environ.get("OMP_NUM_THREADS", "")
    return int(count) if count.isdecimal() and count != _set_here[0] else None


def processors() -> int:
    """How many threads this process's processor time feeds."""
    quota = processor_quota()
    return _processors() if quota is None else min(_processors(), max(1, math.ceil(quota)))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def processor_quota(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """How many processors' time Linux allows this process's control group, as `docker run --cpus` sets it.

    The least of the group's own quota and those of the groups around it; None without a quota.

    Args:
        groups: where control groups are mounted.
        own: names this process's groups.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [quota for line in lines for folder in _folders(groups, line) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def _folders(groups: Path, line: str) -> Iterator[Path]:
    """The folder of a line `number:controllers:path` and those around it. Inside a container the path may be the
    host's, which is not there; the container's own group is then the mount."""
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    mount = groups / "cpu" if controllers else groups
    inner = mount / path.strip("/")
    yield inner
    for folder in inner.parents:
        if folder == groups.parent:
            return
        yield folder


def _quota(folder: Path) -> float | None:
    """From `cpu.max` (version 2), or from `cpu.cfs_quota_us` and `cpu.cfs_period_us` (version 1)."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
            if quota != "max" and float(quota) > 0 and float(period) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):
            continue
    return None
