"""Prefetching for runs whose batches go by the number of a step, and sending tensors to a device."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

import torch

Batch = TypeVar("Batch")


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; does not wait for the copy to a CUDA device."""
    return tensor.to(device, non_blocking=device.type == "cuda")


class Prefetcher(Generic[Batch]):
    """Batches by the number of a step; a context manager that ends the reading.

    With a CUDA device a thread reads the next batch during a step. Elsewhere a batch is read when it is taken: a step
    keeps the cores of a CPU busy, and MPS wants one thread.

    Args:
        read: gives a step's batch, on the device; the same for the same step, in any thread.
    """

    def __init__(self, read: Callable[[int], Batch], device: torch.device) -> None:
        self._read = read
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="prefetch") if device.type == "cuda" else None
        self._next: tuple[int, Future[Batch]] | None = None

    def take(self, step: int) -> Batch:
        """The batch of a step, and the reading of the one after begins."""
        if self._reader is None:
            return self._read(step)
        if self._next is not None and self._next[0] == step:
            present = self._next[1]
        else:
            present = self._reader.submit(self._read, step)
        self._next = (step + 1, self._reader.submit(self._read, step + 1))
        return present.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
