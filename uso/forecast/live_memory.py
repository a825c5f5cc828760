"""How many bytes of tensors are alive at once while something runs: `LiveMemory` watches every operation.

It works on real tensors and, with nothing computed and no memory used, on the meta device, where a few operations are
counted as a GPU's fused kernels do them. Weights are told apart and not counted. Scratch memory inside kernels is not
seen: what cuBLAS and cuDNN ask for beside their inputs and outputs is not in the figures.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ALLOCATION = 512
"""PyTorch's CUDA allocator hands out multiples of this many bytes."""


def fused_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """What attention leaves behind where no matrix of tokens x tokens is written: output, and a sum for each row."""
    batch, heads, tokens, _width = query.shape
    output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
    _sums = query.new_empty(batch, heads, tokens, dtype=torch.float32)
    return output


def fused_rms_norm(values: torch.Tensor, shape: list[int], *_: Any, **__: Any) -> torch.Tensor:
    """The output, and a root for each row; taken apart, it would be copies in float32."""
    output = torch.empty_like(values, memory_format=torch.contiguous_format)
    _roots = values.new_empty(values.shape[: -len(shape)], dtype=torch.float32)
    return output


Kernels = Mapping[Any, Callable[..., torch.Tensor]]

GPU_KERNELS: Kernels = {
    torch.ops.aten.scaled_dot_product_attention.default: fused_attention,
    torch.ops.aten.rms_norm.default: fused_rms_norm,
}
"""Operations that PyTorch takes apart on the meta device and a GPU does at once."""


class LiveMemory(TorchDispatchMode):
    """While inside, counts the bytes of the tensors that are alive on one device.

    Views and operations in place allocate nothing; memory counts until the last tensor that uses it is gone. Use it in
    inference mode, as the pipeline runs: nothing is kept for gradients.

    Args:
        device: whose tensors count.
        weights: tensors that do not count. Others from before are counted when they are first used.
        kernels: operations that are counted as these functions do them.
    """

    def __init__(
        self, device: torch.device | str, *, weights: Iterable[torch.Tensor] = (), kernels: Kernels | None = None
    ) -> None:
        super().__init__()
        self.device_type = torch.device(device).type
        self.kernels = kernels or {}
        self.now = 0
        """Bytes alive at this moment."""
        self.peak = 0
        """The most there were since `take_peak`."""
        self._weights = {self._key(tensor) for tensor in weights}
        self._watched: set[int] = set()

    def take_peak(self) -> int:
        """The peak since the last call; the next one starts from what is alive."""
        peak, self.peak = self.peak, self.now
        return peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode composed operations arrive whole; what they are made of is what allocates
            result = self.kernels[func](*args, **kwargs) if func in self.kernels else func.decompose(*args, **kwargs)
        if result is NotImplemented:
            result = func(*args, **kwargs)
            for value in (*args, *kwargs.values(), result):
                for leaf in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(leaf, torch.Tensor) and leaf.device.type == self.device_type:
                        self._see(leaf)
        return result

    def _key(self, tensor: torch.Tensor) -> int:
        """What tells memory apart: the storage, which a tensor's views share."""
        return int(tensor.untyped_storage()._cdata)

    def _see(self, tensor: torch.Tensor) -> None:
        key = self._key(tensor)
        if key in self._watched or key in self._weights:
            return
        storage = tensor.untyped_storage()
        size = -(-storage.nbytes() // ALLOCATION) * ALLOCATION
        self._watched.add(key)
        # Weakly, because some memory (a module's buffer) lives on after this object.
        weakref.finalize(storage, _freed, weakref.ref(self), key, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)


def _freed(watching: "weakref.ref[LiveMemory]", key: int, size: int) -> None:
    live = watching()
    if live is not None:
        live._watched.remove(key)
        live.now -= size
