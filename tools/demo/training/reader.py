"""The image encoder and the projector together: learning to read a style's parameters from a picture.

The released model's SigLIP has seen the world before USO's projector reads it. The miniature's has not: its features
tell named styles apart, and hardly more. So it learns here too, by the error of the picture that the transformer makes
of its tokens, and from pairs: pictures with one style's parameters are to be nearer to each other than to others.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from tools.demo.parts.image_encoder import FOLDER
from tools.demo.parts.model import write_pretrained
from tools.demo.shards.arrays import to_pixels
from tools.demo.shards.samples import TARGET, ShardFeature, ShardPicture
from tools.demo.shards.sizes import SizedSample, SizesConfig, sized_samples
from tools.demo.shards.source import ShardFeatures, ShardSource, style_states
from tools.demo.training.config import STAGES_FOLDER
from tools.demo.training.kept import KeepConfig, Kept
from uso.errors import ConfigError
from uso.images.pixels import open_image
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.config_files import load_config
from uso.training.data.batches import Batches, TrainingBatch
from uso.training.data.features import FeatureCache
from uso.training.data.samples import Feature
from uso.training.data.source import OnProgress, StylePicture
from uso.training.loop.trainer import Trainer
from uso.training.losses.teacher import Targets
from uso.training.model.load import encode_features
from uso.transformer.context_embedder import STYLE_LAYERS

_VECTOR = 64
_SHARPNESS = 10.0
"""Cosines of pairs are multiplied by this before the softmax."""


class ReaderConfig(TrainingConfig):
    """A stage in which the image encoder learns too."""

    pairs: float = Field(default=0.0, ge=0)
    """Weight of the pairs' loss; the flow's has weight 1."""
    sizes: SizesConfig | None = None
    """Triplets of other sizes, read beside the shards; null: none."""
    keep: KeepConfig | None = None
    """On shards the run learns what a model answers, instead of the data, and nothing of pairs; null: the data."""


def load_reader_config(name: str, overrides: Sequence[str] = ()) -> ReaderConfig:
    """The stage of `configs/stages/NAME.yaml`, or of a YAML file, with `key=value` overrides.

    Raises:
        ConfigError: no such stage, an unknown key, a value that is refused, or a projector that does not learn.
    """
    config = load_config(ReaderConfig, STAGES_FOLDER, name, overrides)
    if "projector" not in config.learns:
        raise ConfigError(f"learns must name projector where the image encoder learns, not {', '.join(config.learns)}.")
    return config


class PixelFeatures(ShardFeatures):
    """Features of shards, and of rows of other sizes, but for those of style pictures, which are encoded at every step.

    Args:
        cache: of the rows' features.
    """

    def __init__(self, *args: Any, cache: FeatureCache, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cache = cache

    def stacked(self, features: Sequence[ShardFeature | Feature]) -> dict[str, torch.Tensor]:
        if features[0].kind == "style":
            return {str(layer): torch.empty(len(features), 0) for layer in STYLE_LAYERS.values()}
        if isinstance(features[0], Feature):
            return self.cache.stacked(features)  # type: ignore[arg-type]
        return super().stacked(features)  # type: ignore[arg-type]


class ReaderSource(ShardSource):
    """Triplets, and those of other sizes beside them; for the projector alone, those that have a style picture."""

    def __init__(self, config: ReaderConfig, notify: Any) -> None:
        super().__init__(config, notify)
        self.sized: list[SizedSample] = []
        if config.sizes is not None:
            self.sized = sized_samples(config, config.sizes, notify)
        if config.learns == ("projector",):
            self.samples = [sample for sample in self.samples if sample.styles]
            self.sized = [sample for sample in self.sized if sample.styles]
        if config.sizes is not None and self.sized:
            often = config.sizes.share / (1 - config.sizes.share) * len(self.samples) / len(self.sized)
            self.samples = [*self.samples, *self.sized * max(1, round(often))]

    def features(self, pipeline: USOPipeline, cache: FeatureCache, on_progress: OnProgress) -> PixelFeatures:
        pictures = [picture for sample in self.sized for picture in sample.pictures]
        encode_features(pipeline, cache, cache.missing(pictures), on_progress)
        return PixelFeatures(
            pipeline,
            self.shards,
            cache.folder,
            tuple(each for each in self.config.reads if each != "style"),
            texts=[sample.row.prompt for sample in self.sized],
            compile=self.config.compile,
            on_progress=on_progress,
            cache=cache,
        )


class ReaderTrainer(Trainer):
    """A `Trainer` whose image encoder learns."""

    config: ReaderConfig

    def __init__(self, pipeline: USOPipeline, config: ReaderConfig, batches: Batches) -> None:
        super().__init__(pipeline, config, batches)
        encoder: Any = pipeline.image_encoder
        self.encoder = encoder.float()
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.head = nn.Linear(encoder.config.hidden_size, _VECTOR).to(pipeline.work_device)
        last = len(encoder.encoder.layers) + 1 + max(STYLE_LAYERS.values())  # what is read; later layers learn nothing
        read = {id(p) for part in (encoder.embeddings, *encoder.encoder.layers[:last]) for p in part.parameters()}
        own = {f"image_encoder/{name}": p for name, p in encoder.named_parameters() if id(p) in read}
        self.learns_too = {**own, **{f"head/{name}": p for name, p in self.head.named_parameters()}}
        for parameter in own.values():
            parameter.requires_grad_(True)
        super(Trainer, self).__init__(config, self.learners.parameters | self.learns_too)
        self._kept = None if config.keep is None else Kept(config.keep, config.seed, pipeline.work_device)
        self._read: Any = self._states
        if config.compile:
            self._read = torch.compile(self._states, dynamic=False)

    def _states(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return style_states(self.encoder, pixels)

    def _file(self, path: Path) -> torch.Tensor:
        return self.pipeline.preprocess_style(open_image(path.read_bytes(), path.name)).float()

    def _pixels(self, pictures: Sequence[StylePicture]) -> torch.Tensor:
        """What the image encoder reads, [B, 3, side, side]."""
        files = [self._file(each) for each in pictures if isinstance(each, Path)]
        if files:
            return torch.cat(files).to(self.pipeline.work_device)
        found = np.stack(
            [np.asarray(each.shards.pixels(each.index)[each.slot]) for each in map(_shard_picture, pictures)]
        )
        return to_pixels(found, self.pipeline.work_device).contiguous()

    def targets(
        self, batch: TrainingBatch, velocity: torch.Tensor, tokens: torch.Tensor, levels: torch.Tensor
    ) -> Targets:
        """As `Trainer`; on shards what the model answers that is to be kept, if there is one."""
        kept = self._kept if self._is_of_shards(batch) else None
        if kept is None:
            return super().targets(batch, velocity, tokens, levels)
        pixels = [self._pixels(pictures) for pictures in zip(*batch.style_pictures, strict=True)]
        return kept.targets(batch, pixels, tokens, levels)

    def _is_of_shards(self, batch: TrainingBatch) -> bool:
        return batch.height == batch.width == self.config.data.resolution  # which no row of other sizes has

    def flow_loss(self, batch: TrainingBatch) -> torch.Tensor:
        """The flow's loss with style pictures that are encoded now, and, for shards, that of pairs."""
        shards = self._is_of_shards(batch)
        weight = self._kept.config.weight if self._kept is not None and shards else 1.0
        if not batch.styles:
            return weight * super().flow_loss(batch)
        own = list(zip(*batch.style_pictures, strict=True))
        pictures = [picture for some in own for picture in some]
        pair = self.config.pairs > 0 and len(own) == 1 and shards and self._kept is None
        if pair:
            pictures += [replace(_shard_picture(picture), slot=TARGET) for picture in own[0]]
        with self.autocast():
            states = self._read(self._pixels(pictures))
        parts = [state.float().split(batch.size) for state in states]
        layers = tuple(STYLE_LAYERS.values())
        styles = tuple(
            {layer: part[place] for layer, part in zip(layers, parts, strict=True)} for place in range(len(own))
        )
        loss = weight * super().flow_loss(replace(batch, styles=styles))
        if pair:
            loss = loss + self.config.pairs * self._pairs(parts[0][0], parts[0][1], list(map(_shard_picture, own[0])))
        return loss

    def _pairs(self, style: torch.Tensor, target: torch.Tensor, pictures: list[ShardPicture]) -> torch.Tensor:
        """Which of a batch's targets has a style picture's parameters: cross-entropy of cosines.

        Plain pictures, which are all alike, are left out.
        """
        styled = [n for n, each in enumerate(pictures) if "style" in each.shards.words[each.index]["labels"]]
        if len(styled) < 2:
            return style.new_zeros(())
        one, other = (functional.normalize(self.head(part[styled].mean(dim=1)), dim=1) for part in (style, target))
        own = torch.arange(len(styled), device=one.device)
        return functional.cross_entropy(_SHARPNESS * one @ other.T, own)

    def export(self) -> None:
        """As `Trainer`, and the image encoder's folder `siglip` beside."""
        super().export()
        values = self.mean_values or self.parameters
        kept = {name: parameter.detach().clone() for name, parameter in self.learns_too.items()}
        with torch.no_grad():
            for name, parameter in self.learns_too.items():
                parameter.copy_(values[name])
            write_pretrained(self.config.folder, FOLDER, self.encoder)
            for name, parameter in self.learns_too.items():
                parameter.copy_(kept[name])


def _shard_picture(picture: StylePicture) -> ShardPicture:
    assert isinstance(picture, ShardPicture)
    return picture


def train_reader(config: ReaderConfig, resume: bool = False) -> Path:
    """Run a stage to its end; returns its folder.

    Raises:
        USOError: with the remedy.
    """
    from uso.terminal import say
    from uso.training import prepare
    from uso.training.loop.run import stopped_by_signals
    from uso.training.model.load import bring_to_device, load_for_training
    from uso.transformer.compile import cache_folder, compile_blocks

    device, checkpoint = prepare.check(config, resume)
    device, process = prepare.processes_on(device)
    config = ReaderConfig.model_validate(prepare.agreed(config, device, process, checkpoint).model_dump())
    source = ReaderSource(config, say)
    pipeline = load_for_training(config, device)
    cache = FeatureCache(config.data.cache, pipeline, config.data.memory_gib, config.data.cached)
    features = source.features(pipeline, cache, lambda done, total: None)
    batches = Batches(source.samples, features, config)
    bring_to_device(pipeline, config)
    pipeline.image_encoder.to(device)
    pipeline.register_modules(text_encoder=None, text_encoder_2=None)
    trainer = ReaderTrainer(pipeline, config, batches)
    if config.compile:
        compile_blocks(pipeline.transformer, cache_folder())
    if checkpoint is not None:
        trainer.resume(checkpoint)
    with stopped_by_signals(trainer):
        trainer.run()
    return config.folder
