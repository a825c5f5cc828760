"""The host, kept close to the device: a `Pacer` lets it be one step ahead, and no more.

A GPU takes work into a queue, so a program that does not wait is told of steps long before they are computed: progress,
the pace of steps and the effect of a stop would all be wrong. One step ahead is enough for the queue never to be empty.
Measures nothing, and computes nothing.
"""

from collections.abc import Callable

import torch

Wait = Callable[[], None]
"""Returns when the device has done what it marks."""

Mark = Callable[[], Wait]
"""Marks the end of all work that is queued at this moment."""


class Pacer:
    """Waits for each step when the one after it is queued.

    Args:
        mark: marks the end of what is queued; `marks_of` has the one of a device.
    """

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._running: Wait | None = None

    def step(self) -> None:
        """To be called when a step has been queued; returns when the one before it is done."""
        before, self._running = self._running, self._mark()
        if before is not None:
            before()

    def finish(self) -> None:
        """Returns when the last step is done."""
        if self._running is not None:
            self._running()
            self._running = None


def marks_of(device: torch.device) -> Mark:
    """How work on a device is marked; on a CPU it is done when it is called, and nothing waits."""
    if device.type == "cuda":
        return lambda: _recorded(device)
    if device.type == "mps":
        return lambda: torch.mps.synchronize
    return lambda: _nothing


def _recorded(device: torch.device) -> Wait:
    event = torch.cuda.Event(blocking=True)  # the thread sleeps, and leaves the processor to others
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def _nothing() -> None:
    pass
