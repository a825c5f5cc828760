"""Alignment: the base's inner tokens learn to predict what a descriptor sees of the clean picture at their place.

Small bases learn subjects from the flow loss late: most of it is texture. The descriptor knows them from labels, at
every noise level (representation alignment, arXiv 2410.06940). The reading head is thrown away.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tools.demo.shards.arrays import Arrays, Held, Places, encoded, name_of
from tools.demo.shards.shards import Shards
from tools.demo.shards.source import OnProgress, single_slots
from tools.demo.training.prefetch import sent
from uso.errors import ConfigError
from uso.evaluation.metrics.csd import CSD
from uso.pipeline.pipeline import USOPipeline
from uso.training.loop.precision import autocast

READ_AT = 0.5
"""Share of the blocks after which tokens are read: the later ones are for detail."""

_LAYER = -2
"""The descriptor's hidden state that is predicted: what its last layer, which only sums up, reads."""

_MEASURED = 512
"""Pictures from which mean and deviation of features are taken."""


def patches_of(descriptor: CSD, shards: Shards, folder: Path, on_progress: OnProgress | None = None) -> Arrays:
    """What a descriptor sees of pictures, patch by patch: [slots, patches, width] each, slots as those of latents."""
    slots = single_slots(shards)
    device = descriptor.last_layer_style.device

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        with autocast(device.type, "auto"):
            seen: Any = descriptor.backbone(descriptor.prepare(pixels), output_hidden_states=True)
        return seen.hidden_states[_LAYER][:, 1:].float()  # without the class token

    name = name_of("patches", shards, slots, descriptor.backbone, _LAYER)
    return encoded(shards, slots, folder / name, encode, device=device, on_progress=on_progress)


class Alignment(nn.Module):
    """The head, and the loss of what it reads, on the pipeline's device.

    Args:
        pipeline: whose transformer is read, at its next run.
        features: of pictures, as `patches_of` gives them.
        places: (index, slot) of the pictures of the run.
        tokens: of a picture, in the transformer.
        seed: of the head's first weights.
        weight: of this loss beside the flow's, for whoever adds them.

    Raises:
        ConfigError: there is not one feature for each token of a picture.
    """

    def __init__(
        self,
        pipeline: USOPipeline,
        features: Arrays | Held,
        places: Places,
        tokens: int,
        seed: int,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = weight
        some = features.take(places[:_MEASURED])
        _, patches, width = some.shape
        if patches != tokens:
            raise ConfigError(
                f"A picture has {tokens} tokens and the descriptor sees {patches} patches: alignment needs as many. "
                "Train a descriptor with another architecture.patch_size, or go without: alignment=null."
            )
        self.features = features
        self.device = pipeline.work_device
        self.deviation, self.mean = (each.to(self.device) for each in torch.std_mean(some, dim=(0, 1)))
        transformer = pipeline.transformer
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        hidden = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, width))
        self.head.to(self.device)
        self._read: torch.Tensor | None = None
        blocks[round(READ_AT * len(blocks)) - 1].register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._read = output[1]

    def read(self) -> torch.Tensor:
        """The tokens of the last run, [B, tokens, hidden].

        Raises:
            RuntimeError: there was none.
        """
        if self._read is None:
            raise RuntimeError("The transformer did not run yet.")
        return self._read

    def wanted(self, places: Places) -> torch.Tensor:
        """The features of pictures, with mean 0 and deviation 1: [B, tokens, width]."""
        return (sent(self.features.take(places), self.device) - self.mean) / self.deviation

    def forward(self, wanted: torch.Tensor) -> torch.Tensor:
        """One less the mean cosine of what is read of the last run and what is wanted of its pictures: a scalar."""
        return 1 - functional.cosine_similarity(self.head(self.read()).float(), wanted, dim=-1).mean()
