"""Batches in the order of a run: samples' cached features stacked, one batch read ahead, and the place to go on from.

Draws no noise and knows no network.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from tools.demo.shards.source import ShardFeature, ShardFeatures, ShardPicture, ShardSample
from uso.config import Strict
from uso.errors import ConfigError
from uso.pipeline.cache import TensorCache
from uso.training.config import TrainingConfig
from uso.training.data.buckets import Draw, epoch_batches
from uso.training.data.features import KEPT, Feature, FeatureCache, SampleFeatures
from uso.training.data.samples import Sample
from uso.transformer.context_embedder import STYLE_LAYERS

_CPU = torch.device("cpu")


class Position(Strict):
    """Where in the data a run is, over all processes together."""

    epoch: int = 0
    index: int = 0
    """Micro-batches of this epoch that were taken."""
    taken: int = 0
    """... of the whole run: what random draws go by."""
    samples: int = 0
    """How many there are in an epoch; 0 where nobody counted."""


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
    style_pictures: tuple[tuple[Path | ShardPicture, ...], ...]
    """Of each sample, the style pictures themselves."""
    named: tuple[torch.Tensor, torch.Tensor] | None = None
    """Where the run learns from them, prompts that name the style: as `prompt_embeds` and `pooled`."""
    silent: tuple[torch.Tensor, torch.Tensor] | None = None
    """Where the run learns guidance, the empty prompt for each sample: likewise."""

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
        """A batch of the first so many samples; all for None."""
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
            named=None if self.named is None else (self.named[0][:count], self.named[1][:count]),
            silent=None if self.silent is None else (self.silent[0][:count], self.silent[1][:count]),
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
        rank, processes: which of so many processes this is; each takes every so manieth batch.
    """

    def __init__(
        self,
        samples: Sequence[Sample | ShardSample],
        cache: FeatureCache | ShardFeatures,
        config: TrainingConfig,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.samples = samples
        self.features = [
            sample.features if isinstance(sample, ShardSample) else SampleFeatures.of(sample) for sample in samples
        ]
        self.empty_prompt = ShardFeature("prompt") if isinstance(cache, ShardFeatures) else Feature("prompt")
        self.cache = cache
        self.config = config
        self.rank, self.processes = rank, processes
        self._position = Position(samples=len(samples))
        self._remembered = TensorCache(int(config.data.memory_gib * 2**30))
        self._epoch: tuple[int, list[list[Draw]]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[Position, Future[TrainingBatch]] | None = None

    def all_features(self) -> list[Any]:
        """Everything that has to be in the cache."""
        return [self.empty_prompt, *(feature for features in self.features for feature in features.all())]

    @property
    def position(self) -> Position:
        """Of the batch that comes next; set it to go on from there, or, if too little is left, from the next epoch."""
        return self._position

    @position.setter
    def position(self, position: Position) -> None:
        self._position = self._begun(position.model_copy(update={"samples": len(self.samples)}))

    def take(self) -> TrainingBatch:
        """The next batch."""
        position = self._position
        if self._ahead is not None and self._ahead[0] == position:
            batch = self._ahead[1].result()
        else:
            batch = self._reader.submit(self._read, position).result()
        self._position = self._after(position)
        self._ahead = (self._position, self._reader.submit(self._read, self._position))
        return batch

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    def _after(self, position: Position) -> Position:
        index, taken = position.index + self.processes, position.taken + self.processes
        return self._begun(position.model_copy(update={"index": index, "taken": taken}))

    def _begun(self, position: Position) -> Position:
        """The position itself, or the next epoch's first one where too few batches are left for every process."""
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
                whole=self.config.compile,  # another size is another compilation
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
        """Stack the features of samples that are alike in number of tokens."""
        chosen = [self.features[draw.index] for draw in draws]
        prompts = self._stacked(
            [features.prompt if draw.text else self.empty_prompt for features, draw in zip(chosen, draws, strict=True)]
        )
        with_style, with_content = draws[0].style, draws[0].content
        slots = list(zip(*(features.styles for features in chosen), strict=True)) if with_style else []
        content = self._stacked([features.content for features in chosen])["latents"] if with_content else None
        return TrainingBatch(
            number=number,
            latents=self._stacked([features.target for features in chosen])["latents"],
            prompt_embeds=prompts["prompt_embeds"],
            pooled=prompts["pooled"],
            styles=tuple(
                {layer: states[str(layer)] for layer in STYLE_LAYERS.values()}
                for states in (self._stacked(slot) for slot in slots)
            ),
            content=content,
            style_pictures=tuple(self.samples[draw.index].styles if with_style else () for draw in draws),
            named=None if chosen[0].named is None else self._prompts([features.named for features in chosen]),
            silent=self._prompts([self.empty_prompt] * len(chosen)) if self.config.guided.share > 0 else None,
        )

    def _prompts(self, features: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        prompts = self._stacked(features)
        return prompts["prompt_embeds"], prompts["pooled"]

    def _stacked(self, features: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Features of one kind by name, [B, ...] each."""
        if isinstance(self.cache, ShardFeatures):
            return self.cache.stacked(features)
        loaded = [self._load(self.cache, feature) for feature in features]
        return {key: torch.stack([tensors[key] for tensors in loaded]) for key in loaded[0]}

    def _load(self, cache: FeatureCache, feature: Feature) -> dict[str, torch.Tensor]:
        """From memory, or from the cache's file."""
        keys = KEPT[feature.kind]

        def read() -> tuple[torch.Tensor, ...]:
            tensors = cache.load(feature)
            return tuple(tensors[key] for key in keys)

        return dict(zip(keys, self._remembered.get(feature, _CPU, read), strict=True))
