"""A `Pacer` keeps the host at most one step ahead of the device.

A GPU queues work, so a host that never waits would report steps long before they are computed: progress, step times and
the effect of a stop would all be wrong. One step ahead is enough to keep the queue from running empty.
"""

from collections.abc import Callable

import torch

Wait = Callable[[], None]
"""Blocks until the device has done the marked work."""

Mark = Callable[[], Wait]
"""Marks the end of all work queued so far."""


class Pacer:
    """Waits for each step when the one after it is queued.

    Args:
        mark: marks the end of the queued work; `marks_of` returns a device's. None where work is done when the call
            returns, so nothing waits.
    """

    def __init__(self, mark: Mark | None) -> None:
        self.ahead = mark is not None
        """Whether the newest step is still running when `step` returns."""
        self._mark = mark or (lambda: _nothing)
        self._running: Wait | None = None

    def step(self) -> None:
        """Call it after queueing a step; returns when the step before it is done."""
        before, self._running = self._running, self._mark()
        if before is not None:
            before()

    def finish(self) -> None:
        """Wait for the last step."""
        if self._running is not None:
            self._running()
            self._running = None


def marks_of(device: torch.device) -> Mark | None:
    """How work on a device is marked; None on a CPU."""
    if device.type == "cuda":
        return lambda: _recorded(device)
    if device.type == "mps":
        return lambda: torch.mps.synchronize
    return None


def _recorded(device: torch.device) -> Wait:
    event = torch.cuda.Event(blocking=True)  # the waiting thread sleeps instead of spinning
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def _nothing() -> None:
    pass
