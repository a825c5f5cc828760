"""A second target for a projector that learns alone: the base's own answer to words that name the style.

The base knows its styles by name, so its answer has none of the noise of a data target. Configs name it
`tools.demo.training.words:Words`; it needs shards of drawn triplets, which have such words.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from pydantic import Field

from tools.demo.training.config import checked_options
from uso.config import Strict
from uso.errors import ConfigError
from uso.training.config import TrainingConfig
from uso.training.data.batches import TrainingBatch
from uso.training.losses.teacher import Targets

NAMED = "named"
"""The prompt that describes the target and names its style."""


class WordsOptions(Strict):
    weight: float = Field(default=1.0, gt=0)
    """Of the error against the answer to words; that against the data has weight 1."""


class Words:
    """The teacher of stage 1.

    Raises:
        ConfigError: more than the projector learns, content is read, or an option is refused.
    """

    prompts = (NAMED,)

    def __init__(self, config: TrainingConfig) -> None:
        self.weight = checked_options(WordsOptions, config).weight
        if config.learns != ("projector",) or config.reads != ("style",):
            raise ConfigError(
                f"teacher must not be {config.teacher} where more than the projector learns, or content is read."
            )

    def targets(
        self, batch: TrainingBatch, velocity: torch.Tensor, predict: Callable[[TrainingBatch], torch.Tensor]
    ) -> Targets:
        if NAMED not in batch.prompts:  # targets in two styles
            return Targets(velocity)
        return Targets(velocity, second=predict(_by_words(batch)), weight=self.weight)

    def flops(self, batch: TrainingBatch, forward: Callable[[TrainingBatch], int]) -> int:
        return forward(replace(batch, styles=()))


def _by_words(batch: TrainingBatch) -> TrainingBatch:
    """The batch with words that name the style in place of the style pictures."""
    embeds, pooled = batch.prompts[NAMED]
    return replace(batch, prompt_embeds=embeds, pooled=pooled, styles=(), content=None)
