"""Batches in the order of a run: samples' features stacked, the next batch prefetched, and the position to resume from.

Draws no noise and knows no network.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

import torch

from uso.config import Strict
from uso.errors import ConfigError
from uso.training.config import FeatureKind, TrainingConfig
from uso.training.data.buckets import Draw, epoch_batches
from uso.training.data.source import EMPTY, FeatureStore, StylePicture, TrainingSample
from uso.training.losses.teacher import extra_prompts
from uso.transformer.context_embedder import STYLE_LAYERS

Prompts = tuple[torch.Tensor, torch.Tensor]
"""Of a batch: T5 features [B, L, text_dim] and CLIP vectors [B, pooled_dim]."""


class Position(Strict):
    """Where in the data a run is, over all processes together."""

    epoch: int = 0
    index: int = 0
    """Micro-batches of this epoch that were taken."""
    taken: int = 0
    """... of the whole run: what random draws go by."""
    samples: int = 0
    """How many there are in an epoch; 0 if unknown."""


@dataclass(frozen=True)
class TrainingBatch:
    """Samples with as many tokens each; tensors on the CPU, or on the GPU that holds a run's features."""

    number: int
    """Of the micro-batch in the whole run."""
    latents: torch.Tensor
    """Clean targets, [B, 16, H/8, W/8], float32."""
    prompt_embeds: torch.Tensor
    """[B, L, text_dim]."""
    pooled: torch.Tensor
    """[B, pooled_dim]."""
    styles: tuple[dict[int, torch.Tensor], ...]
    """For each style picture of a sample, what the projector reads: [B, image_tokens, image_dim] by layer."""
    content: torch.Tensor | None
    """Content references, [B, 16, h, w], float32."""
    style_pictures: tuple[tuple[StylePicture, ...], ...]
    """Of each sample, the style pictures themselves."""
    prompts: dict[str, Prompts] = field(default_factory=dict)
    """More prompts of each sample by name, for the run's teacher."""

    @property
    def size(self) -> int:
        return self.latents.shape[0]

    @property
    def height(self) -> int:
        """In pixels."""
        return 8 * self.latents.shape[-2]

    @property
    def width(self) -> int:
        return 8 * self.latents.shape[-1]

    def first(self, count: int | None) -> "TrainingBatch":
        """A batch of the first `count` samples; all for None."""
        if count is None or count >= self.size:
            return self
        return replace(
            self,
            latents=self.latents[:count],
            prompt_embeds=self.prompt_embeds[:count],
            pooled=self.pooled[:count],
            styles=tuple({layer: tensor[:count] for layer, tensor in style.items()} for style in self.styles),
            content=None if self.content is None else self.content[:count],
            style_pictures=self.style_pictures[:count],
            prompts={name: (embeds[:count], pooled[:count]) for name, (embeds, pooled) in self.prompts.items()},
        )


class BatchSource(Protocol):
    """What a run takes its micro-batches from."""

    position: Position
    """Of the batch that comes next."""

    def take(self) -> TrainingBatch:
        """The next batch."""

    def close(self) -> None:
        """No more will be taken."""


class Batches:
    """The micro-batches of one process, without end.

    Args:
        rank, processes: the number of this process and how many there are; the batches are dealt out in turn.
    """

    def __init__(
        self,
        samples: Sequence[TrainingSample],
        features: FeatureStore,
        config: TrainingConfig,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.samples = samples
        self.features = features
        self.extra_prompts = extra_prompts(config)
        self.config = config
        self.rank, self.processes = rank, processes
        self._position = Position(samples=len(samples))
        self._epoch: tuple[int, list[list[Draw]]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead = set(config.data.cached) == set(get_args(FeatureKind))  # encoders share the device with the step
        self._next: tuple[Position, Future[TrainingBatch]] | None = None

    @property
    def position(self) -> Position:
        """Of the batch that comes next. Setting it resumes there, or in the next epoch if too few batches are left."""
        return self._position

    @position.setter
    def position(self, position: Position) -> None:
        self._position = self._begun(position.model_copy(update={"samples": len(self.samples)}))

    def take(self) -> TrainingBatch:
        """The next batch."""
        position = self._position
        if not self._ahead:
            batch = self._read(position)
            self._position = self._after(position)
            return batch
        if self._next is not None and self._next[0] == position:
            batch = self._next[1].result()
        else:
            batch = self._reader.submit(self._read, position).result()
        self._position = self._after(position)
        self._next = (self._position, self._reader.submit(self._read, self._position))
        return batch

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    def _after(self, position: Position) -> Position:
        index, taken = position.index + self.processes, position.taken + self.processes
        return self._begun(position.model_copy(update={"index": index, "taken": taken}))

    def _begun(self, position: Position) -> Position:
        """The position itself, or the next epoch's first one if too few batches are left for every process."""
        if position.index + self.processes > len(self._batches(position.epoch)):
            return position.model_copy(update={"epoch": position.epoch + 1, "index": 0})
        return position

    def _batches(self, epoch: int) -> list[list[Draw]]:
        held = self._epoch
        if held is None or held[0] != epoch:
            batches = epoch_batches(
                [sample.shape for sample in self.samples],
                self.config.dropout,
                micro_batch=self.config.micro_batch,
                seed=self.config.seed,
                epoch=epoch,
            )
            if len(batches) < self.processes:
                raise ConfigError(
                    f"The data make {len(batches)} micro-batches, too few for {self.processes} processes. Use fewer "
                    "processes, a smaller micro_batch, or more rows."
                )
            held = self._epoch = (epoch, batches)
        return held[1]

    def _read(self, position: Position) -> TrainingBatch:
        draws = self._batches(position.epoch)[position.index + self.rank]
        return self.collate(draws, position.taken + self.rank)

    def collate(self, draws: list[Draw], number: int) -> TrainingBatch:
        """Stack the features of samples that have equally many tokens."""
        chosen = [self.samples[draw.index].features for draw in draws]
        empty, stacked = self.features.empty_prompt, self.features.stacked
        embeds, pooled = self._prompts(
            [features.prompt if self._reads_text(draw) else empty for features, draw in zip(chosen, draws, strict=True)]
        )
        with_style, with_content = draws[0].style, draws[0].content
        slots = list(zip(*(features.styles for features in chosen), strict=True)) if with_style else []
        content = stacked([features.content for features in chosen])["latents"] if with_content else None
        prompts = {
            name: self._prompts([empty if name == EMPTY else features.prompts[name] for features in chosen])
            for name in self.extra_prompts
            if name == EMPTY or name in chosen[0].prompts
        }
        return TrainingBatch(
            number=number,
            latents=stacked([features.target for features in chosen])["latents"],
            prompt_embeds=embeds,
            pooled=pooled,
            styles=tuple(
                {layer: states[str(layer)] for layer in STYLE_LAYERS.values()}
                for states in (stacked(slot) for slot in slots)
            ),
            content=content,
            style_pictures=tuple(tuple(self.samples[draw.index].styles) if with_style else () for draw in draws),
            prompts=prompts,
        )

    def _reads_text(self, draw: Draw) -> bool:
        return draw.text or (draw.content and self.samples[draw.index].moved)

    def _prompts(self, features: Sequence[Any]) -> Prompts:
        found = self.features.stacked(features)
        return found["prompt_embeds"], found["pooled"]
