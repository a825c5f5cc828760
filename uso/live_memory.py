"""How many bytes of tensors are alive at once while something runs: `LiveMemory` watches every operation.

It works on real tensors and, with nothing computed and no memory used, on the meta device, where a few operations are
counted as a GPU's fused kernels do them. Weights are told apart and not counted; kernels' scratch memory is not seen.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ALLOCATION = 512
"""PyTorch's CUDA allocator hands out multiples of this many bytes."""


def fused_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """What attention leaves behind where no matrix of tokens x tokens is written: output, and a sum for each row."""
    batch, heads, tokens, _width = query.shape
    output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
    _sums = query.new_empty(batch, heads, tokens, dtype=torch.float32)
    return output


def fused_rms_norm(values: torch.Tensor, shape: list[int], *_: Any, **__: Any) -> torch.Tensor:
    """The output, and a root for each row; without a fused kernel there are copies in float32."""
    output = torch.empty_like(values, memory_format=torch.contiguous_format)
    _roots = values.new_empty(values.shape[: -len(shape)], dtype=torch.float32)
    return output


aten = torch.ops.aten
Kernels = Mapping[Any, Callable[..., torch.Tensor]]
GPU_KERNELS: Kernels = {
    aten.scaled_dot_product_attention.default: fused_attention,
    aten.rms_norm.default: fused_rms_norm,
}
"""Operations that PyTorch takes apart on the meta device, and a GPU does at once."""


class LiveMemory(TorchDispatchMode):
    """While inside, counts the bytes of the tensors that are alive on one device.

    Views and operations in place allocate nothing; a tensor counts until the last view of its memory is gone. Run in
    inference mode, as the pipeline does: nothing is kept for gradients.

    Args:
        device: whose tensors count.
        weights: tensors that do not count.
        kernels: operations that are counted as these functions do them.
    """

    def __init__(
        self, device: torch.device | str, weights: Iterable[torch.Tensor] = (), kernels: Kernels | None = None
    ) -> None:
        super().__init__()
        self.device_type = torch.device(device).type
        self.kernels = kernels or {}
        self.now = 0
        """Bytes alive at this moment."""
        self.peak = 0
        """The most there were since `take_peak`."""
        self._weights = {self._memory_of(tensor)._cdata for tensor in weights}
        self._watched: dict[int, Any] = {}

    def take_peak(self) -> int:
        """The peak since the last call; the next one starts from what is alive."""
        peak, self.peak = self.peak, self.now
        return peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # what an operation is made of is seen too: in inference mode composed ones arrive whole
            result = self.kernels[func](*args, **kwargs) if func in self.kernels else func.decompose(*args, **kwargs)
        if result is NotImplemented:
            result = func(*args, **kwargs)
            for tensor in tree_leaves((args, kwargs, result)):
                if isinstance(tensor, torch.Tensor) and tensor.device.type == self.device_type:
                    self._see(tensor)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        memory = self._memory_of(tensor)
        key = memory._cdata
        if key in self._watched or key in self._weights:
            return
        size = -(-memory.nbytes() // ALLOCATION) * ALLOCATION
        self._watched[key] = weakref.finalize(memory, self._freed, key, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _memory_of(self, tensor: torch.Tensor) -> Any:
        """The storage, which views share."""
        return tensor.untyped_storage()

    def _freed(self, key: int, size: int) -> None:
        del self._watched[key]
        self.now -= size

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
