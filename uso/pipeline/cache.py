"""A bounded cache of tensors in host memory: results of earlier requests, keyed by their inputs."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

Tensors = tuple[torch.Tensor, ...]


class TensorCache:
    """Tensors by key, in host memory; the least recently used go first once `limit` bytes are exceeded.

    Cached tensors are bit for bit what was computed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: OrderedDict[Hashable, Tensors] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, device: torch.device, compute: Callable[[], Tensors]) -> Tensors:
        """The result of `compute`, from the cache if `key` is in it, on `device`."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return tuple(tensor.to(device) for tensor in self._kept[key])
        tensors = compute()
        self._keep(key, tuple(tensor.to("cpu", copy=True) for tensor in tensors))
        return tensors

    def _keep(self, key: Hashable, tensors: Tensors) -> None:
        size = _bytes(tensors)
        if size > self.limit:
            return
        self._kept[key] = tensors
        self.bytes += size
        while self.bytes > self.limit:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= _bytes(dropped)

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
