"""How many bytes a pipeline's parts take, and whether the host has room for them."""

from typing import Any

import psutil
import torch
from torch import nn

from uso.config import MemoryPlan
from uso.errors import ConfigError
from uso.memory.plan import GIB, Weights
from uso.memory.streaming import block_bytes

HOST_RESERVE = 2 * GIB
"""Host memory left for everything but weights."""


def check_host(plan: MemoryPlan, weights: Weights, permanent: int) -> None:
    """Refuse, before anything is loaded, weights that do not fit the host's free memory.

    Raises:
        ConfigError: gives both figures and a remedy.
    """
    needed = weights.total - weights.core - sum(weights.blocks[:permanent])
    free = psutil.virtual_memory().available
    if needed + HOST_RESERVE > free:
        raise ConfigError(
            f"Memory plan '{plan.name}' keeps {needed / GIB:.1f} GiB of weights in host memory, and {free / GIB:.1f} "
            "GiB are free. Close other programs, or choose a plan that keeps more on the device."
        )


def check_whole(title: str, weights: Weights, device: torch.device) -> None:
    """Refuse, before anything is loaded, a model that lives in host memory and is larger than that.

    On MPS the machine's whole memory counts, not what is free now: macOS makes room by itself.

    Raises:
        ConfigError: gives both figures and a remedy.
    """
    memory = psutil.virtual_memory()
    available, word = (memory.total, "are in this machine") if device.type == "mps" else (memory.available, "are free")
    if weights.total > available:
        raise ConfigError(
            f"{title} takes {weights.total / GIB:.1f} GiB of memory on {device.type}, and {available / GIB:.1f} GiB "
            f"{word}. Use a machine with a CUDA GPU, or choose --model demo."
        )


def weights_of(pipeline: Any) -> Weights:
    """Bytes of a pipeline's parts, in the dtypes they are loaded in."""
    transformer, modulation = pipeline.transformer, pipeline.exchanged.modulation
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    sizes = tuple(block_bytes(block) for block in blocks)
    t5 = pipeline.text_encoder_2
    t5_blocks = () if t5 is None else tuple(block_bytes(block) for block in t5.encoder.block)
    layers = (*(block_bytes(layer) for layer in modulation.layers), module_bytes(modulation.embedding))
    return Weights(
        blocks=sizes,
        core=module_bytes(transformer) + module_bytes(pipeline.context_embedder) - sum(map(module_bytes, blocks)),
        modulation=layers,
        text_encoder=module_bytes(pipeline.text_encoder),
        text_encoder_2=0 if t5 is None else module_bytes(t5) - sum(map(module_bytes, t5.encoder.block)),
        text_encoder_2_blocks=t5_blocks or (0,),
        image_encoder=module_bytes(pipeline.image_encoder),
        vae=module_bytes(pipeline.vae),
    )


def module_bytes(module: nn.Module | None) -> int:
    """Bytes of a module's parameters; shared ones count once."""
    if module is None:
        return 0
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
