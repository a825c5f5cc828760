"""What every picture records of the model that made it, as JSON values. Nothing is loaded here."""

import platform
from collections.abc import Mapping
from typing import Any

import accelerate
import diffusers
import torch
import transformers

from uso import __version__, hub
from uso.config import ComponentName, MemoryPlan, ModelConfig


def provenance(
    config: ModelConfig,
    located: Mapping[ComponentName, hub.Located],
    lora_scale: float,
    dtype: torch.dtype,
    vae_dtype: torch.dtype,
    device: torch.device,
    plan: MemoryPlan,
) -> dict[str, Any]:
    """What every picture records of the model that made it."""
    return {
        "name": config.name,
        "title": config.title,
        "lora_scale": lora_scale,
        **placement(dtype, vae_dtype, device, plan),
        "components": {name: component.origin for name, component in located.items()},
        "versions": {
            "uso": __version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "accelerate": accelerate.__version__,
            "python": platform.python_version(),
        },
    }


def placement(dtype: torch.dtype, vae_dtype: torch.dtype, device: torch.device, plan: MemoryPlan) -> dict[str, Any]:
    """Where it computes, and in which numbers."""
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
