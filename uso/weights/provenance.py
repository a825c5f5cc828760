"""What every picture records of the model that made it, as JSON values."""

import platform
from collections.abc import Mapping
from typing import Any

import accelerate
import diffusers
import torch
import transformers

from uso.config import ComponentName, LoraFile, MemoryPlan, ModelConfig
from uso.memory.device import placement_record
from uso.version import __version__
from uso.weights.few_steps import few_steps
from uso.weights.hub.cache import fingerprint
from uso.weights.hub.files import Located


def lora_record(lora: LoraFile) -> dict[str, Any]:
    """An added LoRA as pictures record it; never where it was."""
    path = lora.local_path
    known = few_steps(path)
    return {
        "file": path.name,
        "fingerprint": fingerprint([path]),
        "strength": lora.strength,
        **({"few_steps": known.record} if known else {}),
    }


def provenance(
    config: ModelConfig,
    located: Mapping[ComponentName, Located],
    lora_scale: float,
    dtype: torch.dtype,
    vae_dtype: torch.dtype,
    device: torch.device,
    plan: MemoryPlan,
) -> dict[str, Any]:
    """Model, files and revisions, LoRA scale, dtypes, device, plan and program versions."""
    return {
        "name": config.name,
        "title": config.title,
        "lora_scale": lora_scale,
        **({"added_loras": [lora_record(each) for each in config.added_loras]} if config.added_loras else {}),
        **placement_record(dtype, vae_dtype, device, plan),
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
