"""Targets that a run takes from the network's own answers, instead of the data alone.

A config names a teacher by `module:function` (`TrainingConfig.teacher`). The program ships none; the demo model's are
in `tools/demo/training/`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from uso.training.config import TrainingConfig
from uso.training.plugins import find

if TYPE_CHECKING:
    from uso.training.data.batches import TrainingBatch


@dataclass(frozen=True)
class Targets:
    """What the velocity of a micro-batch should be."""

    velocity: torch.Tensor
    """[B, tokens, 64]."""
    guidance: torch.Tensor | None = None
    """Guidance scales that the network is given, [B]; None for the run's."""
    second: torch.Tensor | None = None
    """Another velocity that it should be near to, [B, tokens, 64]."""
    weight: float = 0.0
    """Of the second's mean squared error; that of the first has weight 1."""


class Teacher(Protocol):
    """Made once per run, by a function that is given the `TrainingConfig`; it raises a ConfigError for options that do
    not fit the run."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Prompts that it reads beside a sample's own: names in `SampleFeatures.prompts`, or `EMPTY`."""

    def targets(
        self,
        batch: "TrainingBatch",
        velocity: torch.Tensor,
        predict: "Callable[[TrainingBatch], torch.Tensor]",
    ) -> Targets:
        """The targets of a micro-batch; called without gradient, before the network's own pass.

        Args:
            velocity: the data's, [B, tokens, 64].
            predict: the network's answer under the conditions of a batch, at the same noise and levels.
        """

    def flops(self, batch: "TrainingBatch", forward: "Callable[[TrainingBatch], int]") -> int:
        """Operations that `targets` costs for one sample of a batch, on average.

        Args:
            forward: operations of one pass under the conditions of a batch.
        """


def make_teacher(config: TrainingConfig) -> Teacher | None:
    """The teacher that a config names.

    Raises:
        ConfigError: there is none of that name, or its options do not fit the run.
    """
    if config.teacher is None:
        return None
    teacher: Teacher = find("teacher", config.teacher)(config)
    return teacher


def extra_prompts(config: TrainingConfig) -> tuple[str, ...]:
    """Names of the prompts that a run reads beside a sample's own."""
    teacher = make_teacher(config)
    return () if teacher is None else teacher.prompts
