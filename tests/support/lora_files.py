"""LoRA files of other programs, in every format that is read, for the tiny FLUX of `tests/golden.py`."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from uso.weights.formats.loras import AddedLora, Targets, added_lora
from uso.weights.formats.tensor_files import TensorFiles

Tensors = dict[str, torch.Tensor]

RANK, ALPHA = 4, 2.0
OUT = "transformer_blocks.0.attn.to_out.0"


def pair(shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(down, up) for a matrix."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(RANK, shape[1], generator=draw), torch.randn(shape[0], RANK, generator=draw)


SOURCES = (
    "double_blocks.0.img_attn.qkv",
    "double_blocks.1.txt_mlp.0",
    "double_blocks.0.img_mod.lin",
    "single_blocks.0.linear1",
    "single_blocks.1.linear2",
    "final_layer.adaLN_modulation.1",
)


def pairs(targets: Targets) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: pair(targets.sources[f"{name}.weight"], number) for number, name in enumerate(SOURCES)}


def opened(
    tensors: Tensors, path: Path, targets: Targets, strength: float = 1.0, metadata: dict[str, str] | None = None
) -> AddedLora:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata)
    files = TensorFiles([path]).__enter__()
    return added_lora(files, targets, strength)


def kohya(targets: Targets) -> Tensors:
    found: Tensors = {}
    for name, (down, up) in pairs(targets).items():
        base = f"lora_unet_{name.replace('.', '_')}"
        found |= {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up, f"{base}.alpha": torch.tensor(ALPHA)}
    return found


def dotted(prefix: str, leaves: tuple[str, str]) -> Callable[[Targets], Tensors]:
    def make(targets: Targets) -> Tensors:
        found: Tensors = {}
        for name, (down, up) in pairs(targets).items():
            found |= {f"{prefix}{name}.{leaves[0]}.weight": down, f"{prefix}{name}.{leaves[1]}.weight": up}
            found[f"{prefix}{name}.alpha"] = torch.tensor(ALPHA)
        return found

    return make


FORMATS: dict[str, Callable[[Targets], Tensors]] = {
    "kohya": kohya,
    "ai-toolkit": dotted("diffusion_model.", ("lora_A", "lora_B")),
    "peft": dotted("base_model.model.", ("lora_A", "lora_B")),
    "peft, with its adapter's name": dotted("transformer.", ("lora_A.default", "lora_B.default")),
    "bare": dotted("", ("lora_down", "lora_up")),
}
