"""The frozen blocks shared out among processes, by PyTorch's FSDP2: each holds its part, and fetches a block's weights
for the moment in which the block works.

What learns is held whole by every process, so gradients, checkpoints and results are as without. All processes must run
the same blocks in the same order, which is why a run with a reward or a teacher is refused (`TrainingConfig`).
"""

import warnings
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def shard_blocks(transformer: Any, device: torch.device, processes: int) -> None:
    """Share out a transformer's blocks in place, one after another, before a LoRA is put in."""
    # Blocks return views; nothing here changes one in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(device.type, (processes,))
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.requires_grad_(False)
        fully_shard(block.to(device), mesh=mesh)


def block_parameters(transformer: Any) -> int:
    """How many numbers are shared out."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    return sum(parameter.numel() for block in blocks for parameter in block.parameters())
