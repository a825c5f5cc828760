"""What was learned, as files in the released layouts: `dit_lora.safetensors`, `projector.safetensors` and the like.

The inverse of `uso.weights.checkpoints`, which loads them back. Files appear complete or not at all.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from uso.files import where_supported
from uso.weights.formats.layouts import Part, flux_part, projector_part

FILES = {"projector": "projector.safetensors", "lora": "dit_lora.safetensors", "transformer": "flux1.safetensors"}
"""Where each learner's result goes."""

_PARTS: dict[str, Callable[[str], Part]] = {"projector": projector_part, "lora": Part, "transformer": flux_part}


def released(
    learner: str, parameters: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """A learner's parameters by the names of the released file, on the CPU.

    Args:
        learner: `projector` (names of `ContextEmbedder`), `lora` (released names) or `transformer` (diffusers' names).
    """
    return by_source(_PARTS[learner], parameters, dtype)


def by_source(
    part_of: Callable[[str], Part], parameters: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Parameters of a module as the tensors of a file: fused where it fuses, on the CPU.

    Args:
        part_of: where a parameter is in the file (`uso.weights.formats.layouts`).
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        part = part_of(name)
        if part.source in tensors:
            continue
        value = torch.cat([parameters[other].detach() for other in part.fused]) if part.fused else parameter.detach()
        if part.swap_halves:
            value = torch.cat(value.chunk(2)[::-1])
        tensors[part.source] = value.to("cpu", dtype, copy=True).contiguous()
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a file, of tensors on any device, so that it is there wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, part, metadata)
    with where_supported():
        part.chmod(0o644)  # safetensors writes files that only their owner may read
    part.replace(path)
