"""What a device reports: free memory, whether it ran out, whether it still works, and its name in a record."""

import platform
from typing import Any

import torch

from uso.config import MemoryPlan

_SIGNS = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""In the plain RuntimeErrors of MPS, CUDA outside PyTorch's allocator, cuBLAS and cuDNN, and the CPU's allocator."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that memory ran out, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _SIGNS)


def answers(device: torch.device) -> bool:
    """Whether a device still computes. After some errors, a GPU is unusable for the rest of the process."""
    try:
        return torch.ones((), device=device).add(1).item() == 2
    except RuntimeError:
        return False


def free_device_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, in bytes; None for a CPU."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def placement_record(
    dtype: torch.dtype, vae_dtype: torch.dtype, device: torch.device, plan: MemoryPlan
) -> dict[str, Any]:
    """Where a pipeline computes, and in which dtypes, as JSON values for its provenance."""
    return {
        "dtype": dtype_name(dtype),
        "vae_dtype": dtype_name(vae_dtype),
        "device": _device_name(device),
        "plan": plan.name,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
    }


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"
