"""What a model does already, kept while it learns more: its own answers are the targets ("Learning without Forgetting",
arXiv 1606.09282). They have none of the data's noise, so few steps hold what many steps on the data would shift."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from tools.demo.shards.source import style_states
from uso.config import Strict, load_model_config
from uso.training.data.batches import TrainingBatch
from uso.training.losses.flow import conditioning_of, predict
from uso.training.losses.seeds import generator
from uso.training.losses.teacher import Targets
from uso.transformer.context_embedder import STYLE_LAYERS
from uso.weights.loading import load_pipeline


class KeepConfig(Strict):
    model: str
    """What `--model` takes."""
    weight: float = Field(default=5.0, gt=0)
    """Of the error against its answers, which is small; that against the data has weight 1."""
    most: float = Field(default=4.0, ge=1)
    """Guidance scales are drawn between 1 and this, for each sample."""


class Kept:
    """The model as it was."""

    def __init__(self, config: KeepConfig, seed: int, device: torch.device) -> None:
        self.pipeline = load_pipeline(load_model_config(config.model), device=str(device))
        self.config, self.seed = config, seed
        parts: list[Any] = [self.pipeline.transformer, self.pipeline.context_embedder, self.pipeline.image_encoder]
        for part in parts:
            part.requires_grad_(False)

    def targets(
        self, batch: TrainingBatch, pixels: Sequence[torch.Tensor], tokens: torch.Tensor, levels: torch.Tensor
    ) -> Targets:
        """What this model answers; called without gradient.

        Args:
            pixels: of each style picture of a sample, [B, 3, side, side].
            tokens, levels: what the network is given, [B, tokens, 64] and [B].
        """
        encoder: Any = self.pipeline.image_encoder
        layers = STYLE_LAYERS.values()
        styles = tuple(
            dict(zip(layers, style_states(encoder, images.to(encoder.dtype)), strict=True)) for images in pixels
        )
        draw = generator(self.seed, "kept", batch.number)
        scales = 1 + (self.config.most - 1) * torch.rand(batch.size, generator=draw)
        conditioning = conditioning_of(self.pipeline, replace(batch, styles=styles), 1.0)
        conditioning = replace(conditioning, guidance=scales.to(self.pipeline.work_device))
        return Targets(predict(self.pipeline, conditioning, tokens, levels), guidance=scales)
