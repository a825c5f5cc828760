"""What a run learns guidance from: which micro-batches, at which scales, and away from what.

Without it, a LoRA that has learned from a flow loss alone hardly answers a guidance scale where content is given.
"""

from dataclasses import replace

import torch

from uso.training.config import GuidedConfig
from uso.training.data.batches import TrainingBatch
from uso.training.losses.seeds import generator


def guided(batch: TrainingBatch, config: GuidedConfig, seed: int) -> tuple[torch.Tensor, TrainingBatch] | None:
    """A micro-batch's guidance scales, [B], and the same batch without what they strengthen; None where it has none.

    That is without words and content, and in some micro-batches without the style.
    """
    if batch.silent is None:
        return None
    draw = generator(seed, "guidance", batch.number)
    chosen, styleless = torch.rand(2, generator=draw).tolist()
    if chosen >= config.share:
        return None
    scales = 1 + (config.most - 1) * torch.rand(batch.size, generator=draw)
    embeds, pooled = batch.silent
    styles = () if styleless < config.without_style else batch.styles
    return scales, replace(batch, prompt_embeds=embeds, pooled=pooled, content=None, styles=styles)
