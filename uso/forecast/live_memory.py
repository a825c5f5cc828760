"""`LiveMemory`: how many bytes of tensors are alive at once while something runs.

It watches every operation, on real tensors or on the meta device, where nothing is computed or allocated and a few
operations are counted as a GPU's fused kernels do them. Weights are not counted. Neither is scratch memory inside
kernels, such as the workspaces of cuBLAS and cuDNN.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ALLOCATION = 512
"""PyTorch's CUDA allocator rounds sizes up to multiples of this many bytes."""


def fused_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Fused attention: the output and a sum per row, without a tokens x tokens matrix."""
    batch, heads, tokens, _width = query.shape
    output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
    _sums = query.new_empty(batch, heads, tokens, dtype=torch.float32)
    return output


def fused_rms_norm(values: torch.Tensor, shape: list[int], *_: Any, **__: Any) -> torch.Tensor:
    """Fused RMS norm: the output and a root per row, without copies in float32."""
    output = torch.empty_like(values, memory_format=torch.contiguous_format)
    _roots = values.new_empty(values.shape[: -len(shape)], dtype=torch.float32)
    return output


Kernels = Mapping[Any, Callable[..., torch.Tensor]]

GPU_KERNELS: Kernels = {
    torch.ops.aten.scaled_dot_product_attention.default: fused_attention,
    torch.ops.aten.rms_norm.default: fused_rms_norm,
}
"""Operations that PyTorch decomposes on the meta device and a GPU runs as one kernel."""


class LiveMemory(TorchDispatchMode):
    """While inside, counts the bytes of the tensors that are alive on one device.

    Views and in-place operations allocate nothing. Memory counts until the last tensor that uses it is gone. Use it in
    inference mode, as the pipeline does; memory kept for gradients is not modelled.

    Args:
        device: only tensors on it count.
        weights: tensors that do not count. Other existing tensors count from their first use.
        kernels: functions that replace single operations for counting.
    """

    def __init__(
        self, device: torch.device | str, *, weights: Iterable[torch.Tensor] = (), kernels: Kernels | None = None
    ) -> None:
        super().__init__()
        self.device_type = torch.device(device).type
        self.kernels = kernels or {}
        self.now = 0
        """Bytes alive now."""
        self.peak = 0
        """The most bytes alive since `take_peak`."""
        self._weights = {self._key(tensor) for tensor in weights}
        self._watched: set[int] = set()

    def take_peak(self) -> int:
        """The peak since the last call; the next one starts from what is alive."""
        peak, self.peak = self.peak, self.now
        return peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode composite operations arrive whole; their parts allocate
            result = self.kernels[func](*args, **kwargs) if func in self.kernels else func.decompose(*args, **kwargs)
        if result is NotImplemented:
            result = func(*args, **kwargs)
            for value in (*args, *kwargs.values(), result):
                for leaf in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(leaf, torch.Tensor) and leaf.device.type == self.device_type:
                        self._see(leaf)
        return result

    def _key(self, tensor: torch.Tensor) -> int:
        """Identifies memory by its storage, which a tensor's views share."""
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
