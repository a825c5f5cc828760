"""This machine's clock, rates and name, for timing runs and for comparing their figures."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from uso.memory.plan import GIB
from uso.memory.streaming import host_buffer

_RATE_SIDE = {"cuda": 8192, "cpu": 1024, "mps": 4096}
"""Side of the square matrix product that measures the device's rate."""

_PRODUCTS = 10
"""Products between two readings of the clock."""

_LASTING = 0.5
"""Seconds that a sustained measurement lasts."""

_LINK_BYTES = 2**28
"""Bytes per copy when measuring the link from page-locked host memory."""


class Clock:
    """Seconds by stage, synchronised with the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - began


@dataclass(frozen=True)
class MatmulRate:
    """A device's rate on one large matrix product of random numbers, in TFLOP/s."""

    best: float
    """The best of five products on an idle device: what its clocks reach briefly."""
    sustained: float
    """Over half a second, after another half to warm up: what power and cooling sustain, as in denoising."""

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> "MatmulRate":
        side = _RATE_SIDE.get(device.type, 1024)
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        def some() -> None:
            for _ in range(_PRODUCTS):
                left @ right

        tflop = 2 * side**3 / 1e12
        best = tflop / _best(device, lambda: left @ right)
        _lasting(device, some)
        return cls(best=best, sustained=_PRODUCTS * tflop / _lasting(device, some))


def link_rate(device: torch.device) -> float:
    """Copy rate from page-locked host memory to a CUDA device, in 10^9 bytes per second: the best of five."""
    source = host_buffer(_LINK_BYTES, device)
    target = torch.empty_like(source, device=device)
    return _LINK_BYTES / _best(device, lambda: target.copy_(source, non_blocking=True)) / 1e9


def _best(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that work takes: the best of five runs, after one to warm up."""
    clock, seconds = Clock(device), []
    for _ in range(6):
        began = clock.now()
        work()
        seconds.append(clock.now() - began)
    return min(seconds)


def _lasting(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that work takes: the mean while repeating it for half a second."""
    clock, times = Clock(device), 0
    began = now = clock.now()
    while now - began < _LASTING:
        work()
        times, now = times + 1, clock.now()
    return (now - began) / times


def device_name(device: torch.device) -> str:
    """A device's name in a line of figures."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or device.type


def host_peak_gib() -> float:
    """Peak memory of this process in GiB; current memory if the system records no peak."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / GIB
    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", memory.rss)) / GIB
