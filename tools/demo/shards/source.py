"""Shards of drawn triplets as a run's data; configs name it `tools.demo.shards.source:open_samples`.

Features are arrays on disk, encoded in batches.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tools.demo.shards.arrays import Arrays, can_hold, encoded, name_of, to_bytes
from tools.demo.shards.samples import (
    CONTENT,
    PHRASES,
    STYLE,
    STYLE_2,
    TARGET,
    ShardFeature,
    Text,
    shard_samples,
    text_of,
    unread_styles,
)
from tools.demo.shards.shards import Shards
from tools.demo.training.words import NAMED
from tools.demo.world.scenes import instruction
from uso.errors import ConfigError
from uso.pipeline.encoders import image_features
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.data.features import FeatureCache
from uso.training.data.samples import rows_path
from uso.training.data.source import Notify, OnProgress, RowSource, SampleSource, TrainingSample
from uso.training.loop.precision import autocast, compile_residuals
from uso.training.losses.teacher import extra_prompts
from uso.training.model.load import visiting
from uso.transformer.context_embedder import STYLE_LAYERS


class ShardSource:
    """Shards of drawn triplets as the samples of a run.

    Raises:
        ConfigError: there are no shards that the run can use, or its validation has no file of rows.
    """

    def __init__(self, config: TrainingConfig, notify: Notify) -> None:
        self.config = config
        self.shards = Shards.open(rows_path(config.data.rows))
        self.samples: Sequence[TrainingSample] = shard_samples(self.shards, config)
        if unread := unread_styles(self.shards, config):
            notify(
                f"{len(unread)} of {len(self.shards)} triplets have two styles and are left out. Read: "
                "data.max_styles=2."
            )
        if config.validation.every is not None and config.validation.rows is None:
            raise ConfigError("validation.rows must name a file of rows where data.rows is a folder of shards.")

    def cached(self) -> list[Any]:
        """Nothing: shards have arrays of their own."""
        return []

    def features(self, pipeline: USOPipeline, cache: FeatureCache, on_progress: OnProgress) -> "ShardFeatures":
        return ShardFeatures(
            pipeline,
            self.shards,
            cache.folder,
            self.config.reads,
            named=NAMED in extra_prompts(self.config),
            compile=self.config.compile,
            on_progress=on_progress,
        )


def open_samples(config: TrainingConfig, notify: Notify) -> SampleSource:
    """Shards where `data.rows` is a folder, else rows."""
    is_folder = rows_path(config.data.rows).is_dir()
    return ShardSource(config, notify) if is_folder else RowSource(config, notify)


class ShardFeatures:
    """Features of one folder of shards by one pipeline's encoders; encodes what is missing.

    Args:
        folder: where arrays are kept.
        reads: conditions whose features are needed; prompts and targets always are.
        named: prompts that name the style are needed too.
        texts: more prompts that are needed.
    """

    empty_prompt = ShardFeature("prompt")

    def __init__(
        self,
        pipeline: USOPipeline,
        shards: Shards,
        folder: Path,
        reads: tuple[str, ...],
        *,
        named: bool = False,
        texts: Sequence[str] = (),
        compile: bool = False,
        on_progress: OnProgress | None = None,
    ) -> None:
        device, count = pipeline.work_device, len(shards)
        latents = latents_of(pipeline, shards, folder, compile=compile, on_progress=on_progress)
        self.latents = latents.near(device, count)
        self.styles, self.style_slots = None, style_slots(shards)
        if "style" in reads:
            self.styles = style_features_of(pipeline, shards, folder, on_progress=on_progress).near(device, count)
        kinds: tuple[Text, ...] = ("sentence", "caption") if named else ("sentence",)
        if "content" in reads:
            kinds = ("prompt", "unnamed", "sentence", "caption")
        needed = ["", *texts, *(text_of(words, kind) for words in shards.words for kind in kinds)]
        if "content" in reads:
            needed += [instruction(phrase) for phrase in PHRASES.values()]
        self._rows = {text: row for row, text in enumerate(dict.fromkeys(needed))}
        self.prompts = _encoded_prompts(pipeline, list(self._rows))

    def stacked(self, features: Sequence[ShardFeature]) -> dict[str, torch.Tensor]:
        """Features of one kind by name, [B, ...] each, float32: on a GPU that holds them, else on the CPU."""
        kind = features[0].kind
        if kind == "prompt":
            rows = torch.tensor([self._rows[feature.prompt] for feature in features]).to(self.prompts[0].device)
            embeds, pooled = self.prompts
            return {"prompt_embeds": embeds[rows], "pooled": pooled[rows]}
        if kind == "latents":
            slots = (CONTENT, TARGET)
            return {"latents": self.latents.take([(feature.index, slots.index(feature.slot)) for feature in features])}
        assert self.styles is not None
        layers = self.styles.take([(feature.index, self.style_slots.index(feature.slot)) for feature in features])
        return {str(layer): layers[:, place].contiguous() for place, layer in enumerate(STYLE_LAYERS.values())}


def _encoded_prompts(pipeline: USOPipeline, texts: list[str], batch: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """T5 features [texts, L, text_dim] and CLIP's vectors [texts, pooled_dim]."""
    embeds: list[torch.Tensor] = []
    pooled: list[torch.Tensor] = []
    with visiting(pipeline, "text_encoder", "text_encoder_2"):
        for start in range(0, len(texts), batch):
            found = pipeline.encode_prompts(texts[start : start + batch])
            for kept, tensor in zip((embeds, pooled), found, strict=True):
                kept.append(tensor.to("cpu", copy=True))
    tables = torch.cat(embeds), torch.cat(pooled)
    if can_hold(pipeline.work_device, sum(table.nbytes for table in tables)):
        return tables[0].to(pipeline.work_device), tables[1].to(pipeline.work_device)
    return tables


def single_slots(shards: Shards) -> tuple[int, ...]:
    """Places of the pictures that have latents."""
    return (0,) if shards.kind == "samples" else (CONTENT, TARGET)


def style_slots(shards: Shards) -> tuple[int, ...]:
    """Places of a triplet's style pictures."""
    return (STYLE, STYLE_2) if len(shards.pixels(0)) > STYLE_2 else (STYLE,)


def latents_of(
    pipeline: USOPipeline,
    shards: Shards,
    folder: Path,
    *,
    compile: bool = False,
    on_progress: OnProgress | None = None,
) -> Arrays:
    """Scaled posterior means of pictures, content and target of triplets: [slots, 16, H/8, W/8] each.

    Args:
        compile: on a CPU; a GPU is done before a compiler is.
    """
    device = pipeline.work_device
    vae = copy.deepcopy(pipeline.vae).to(device).to(memory_format=torch.channels_last)
    scale, shift = vae.config["scaling_factor"], vae.config["shift_factor"]
    slots = single_slots(shards)
    name = name_of("latents", shards, slots, vae.encoder, scale, shift)
    if compile and device.type == "cpu":
        compile_residuals(vae)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        with autocast(device.type, "auto"):
            mean = vae.encode(pixels.to(vae.dtype)).latent_dist.mean
        return scale * (mean.float() - shift)

    return encoded(shards, slots, folder / name, encode, device=device, on_progress=on_progress)


def style_states(encoder: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
    """What the projector reads of pictures [B, 3, side, side], by the order of `STYLE_LAYERS`."""
    states: Any = image_features(encoder, pixels, STYLE_LAYERS.values())
    return [states[layer] for layer in STYLE_LAYERS.values()]


def style_features_of(
    pipeline: USOPipeline, shards: Shards, folder: Path, *, on_progress: OnProgress | None = None
) -> Arrays:
    """What the projector reads of triplets' style pictures: [1 or 2, layers, tokens, width] each."""
    encoder: Any = pipeline.image_encoder
    size = encoder.config.image_size
    device = pipeline.work_device

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape[-1] != size:
            pixels = torch.cat([pipeline.preprocess_style(Image.fromarray(picture)) for picture in to_bytes(pixels)])
        return torch.stack(style_states(encoder, pixels.to(device, encoder.dtype)), dim=1).float()

    slots = style_slots(shards)
    name = name_of("styles", shards, slots, encoder, size)
    with visiting(pipeline, "image_encoder"):
        return encoded(shards, slots, folder / name, encode, device=device, on_progress=on_progress)
