"""Learning what a guidance scale does to a picture's conditions, from the network itself (arXiv 2502.12154).

A LoRA that has learned from a flow loss alone hardly responds to the guidance scale where content is given. So some
micro-batches are given a scale g, and their target is moved by g - 1 times what prompt and content change in the
network's own answer. Content must be dropped at times (`dropout`), or the answer without it is no good. Configs name
it `tools.demo.training.guided:Guided`.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from pydantic import Field

from tools.demo.training.config import checked_options
from uso.config import Strict, load_model_config
from uso.errors import ConfigError
from uso.training.config import TrainingConfig
from uso.training.data.batches import TrainingBatch
from uso.training.data.source import EMPTY
from uso.training.losses.seeds import generator
from uso.training.losses.teacher import Targets


class GuidedOptions(Strict):
    share: float = Field(default=0.0, ge=0, le=1)
    """Of micro-batches that are given a scale; the others are given `guidance`, which must be 1."""
    most: float = Field(default=5.0, gt=1)
    """Scales are drawn between 1 and this, for each sample."""
    without_style: float = Field(default=0.5, ge=0, le=1)
    """How often the answer to move away from lacks the style picture too."""


class Guided:
    """The teacher of the joint and reward stages.

    Raises:
        ConfigError: the run's own scale is not 1, the model allows no such scales, or an option is refused.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.options = options = checked_options(GuidedOptions, config)
        self.seed = config.seed
        self.prompts: tuple[str, ...] = (EMPTY,) if options.share > 0 else ()
        if options.share == 0:
            return
        if config.guidance != 1:
            raise ConfigError(f"guidance must be 1 where teacher_options.share is not 0 (it is {config.guidance}).")
        model = load_model_config(config.model)
        if options.most > model.limits.max_guidance:
            raise ConfigError(
                f"{model.name} allows guidance scales up to {model.limits.max_guidance:g}, and teacher_options.most is "
                f"{options.most:g}. Set teacher_options.most={model.limits.max_guidance:g} or less."
            )

    def targets(
        self, batch: TrainingBatch, velocity: torch.Tensor, predict: Callable[[TrainingBatch], torch.Tensor]
    ) -> Targets:
        drawn = guided(batch, self.options, self.seed)
        if drawn is None:
            return Targets(velocity)
        scales, weaker = drawn
        change = predict(batch) - predict(weaker)
        return Targets(velocity.to(change) + (scales.to(change) - 1)[:, None, None] * change, guidance=scales)

    def flops(self, batch: TrainingBatch, forward: Callable[[TrainingBatch], int]) -> int:
        options, alone = self.options, replace(batch, content=None)
        nothing = options.without_style * forward(replace(alone, styles=()))
        weaker = nothing + (1 - options.without_style) * forward(alone)
        return round(options.share * (forward(batch) + weaker))


def guided(batch: TrainingBatch, options: GuidedOptions, seed: int) -> tuple[torch.Tensor, TrainingBatch] | None:
    """A micro-batch's guidance scales, [B], and the same batch without what they strengthen; None if it has none.

    Prompt and content are removed, in some micro-batches the style too.
    """
    if EMPTY not in batch.prompts:
        return None
    draw = generator(seed, "guidance", batch.number)
    chosen, styleless = torch.rand(2, generator=draw).tolist()
    if chosen >= options.share:
        return None
    scales = 1 + (options.most - 1) * torch.rand(batch.size, generator=draw)
    embeds, pooled = batch.prompts[EMPTY]
    styles = () if styleless < options.without_style else batch.styles
    return scales, replace(batch, prompt_embeds=embeds, pooled=pooled, content=None, styles=styles)
