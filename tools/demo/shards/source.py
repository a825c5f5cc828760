"""Training samples from shards of drawn triplets, as `uso.training.data.samples` makes them from files.

Configs name it `tools.demo.shards.source:open_samples`. Features are arrays on disk, encoded in batches. Pictures are
square and of one size, and are not cropped.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from tools.demo.shards.arrays import Arrays, can_hold, encoded, name_of, to_bytes
from tools.demo.shards.shards import Shards
from tools.demo.training.words import NAMED
from tools.demo.world.scenes import instruction
from tools.demo.world.styles import STYLES
from uso.errors import ConfigError
from uso.pipeline.encoders import image_features
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.data.buckets import Shape
from uso.training.data.features import FeatureCache
from uso.training.data.samples import SampleFeatures
from uso.training.data.source import Notify, OnProgress, RowSource, SampleSource, TrainingSample, rows_path
from uso.training.loop.precision import autocast, compile_residuals
from uso.training.losses.teacher import extra_prompts
from uso.training.model.load import visiting
from uso.transformer.context_embedder import STYLE_LAYERS

CONTENT, STYLE, TARGET, STYLE_2 = 0, 1, 2, 3
"""Places of a triplet's pictures; the last one only where some triplets have two styles."""

STYLE_ONLY, TEXT_ONLY = 4, 8
"""Where content is read, one triplet in so many is also trained without it."""

INSTRUCTED = 2
"""Where content is read, one triplet in so many that keep their layout is also trained with an instruction."""

UNNAMED = 2
"""Where content is read, one pair of triplets in so many with a moved layout has a prompt without the subject's name.
The network must then look at the content picture, as it must for subjects whose names no model has learned."""

NAMELESS = ("subject", "thing", "figure", "object")
"""Words that replace the name."""

Text = Literal["prompt", "unnamed", "sentence", "caption", "instruction"]
"""Texts of a triplet: its prompt; the prompt without the subject's name; what the target shows; that, with its styles;
an instruction that names the style alone."""


@dataclass(frozen=True)
class ShardPicture:
    """One picture of a folder of shards."""

    shards: Shards
    index: int
    slot: int

    def __hash__(self) -> int:
        return hash((self.shards.folder, self.index, self.slot))

    def open(self) -> Image.Image:
        return Image.fromarray(np.asarray(self.shards.pixels(self.index)[self.slot]))


@dataclass(frozen=True)
class ShardFeature:
    """A feature of a triplet: of a picture by its number, of a prompt by its text."""

    kind: Literal["prompt", "latents", "style"]
    index: int = 0
    slot: int = 0
    prompt: str = ""


@dataclass(frozen=True)
class ShardSample:
    """One triplet, with what the run reads of it."""

    shards: Shards
    features: SampleFeatures
    shape: Shape
    styles: tuple[ShardPicture, ...]


def shard_samples(shards: Shards, config: TrainingConfig) -> list[ShardSample]:
    """Triplets of a folder, in the ways of use that the run reads; those of strangers only with their content.

    Where content is read: subject and style, layout kept without words or moved by them, with the subject's name or
    without; plain triplets without a style picture every other time (the subject alone); and, beside those, some
    triplets by style and words, some by words that name the style, and some by their content and an instruction that
    does. Where content is not read, words always say what the target shows, and no words can say it of a stranger.

    Triplets with two styles are read with both, or, where `data.max_styles` is 1, not at all. They have no instruction
    and no prompt for the teacher `Words`: a base is taught no such words.

    Raises:
        ConfigError: the shards hold no triplets, none that the run can use, or pictures of another size than its own.
    """
    if shards.kind != "triplets":
        raise ConfigError(f"{shards.folder} holds {shards.kind}, and a run needs triplets. Make them: --form triplets.")
    side = shards.pixels(0).shape[1]
    for key, size in (("resolution", config.data.resolution), ("content_size", config.data.content_size)):
        if size != side:
            raise ConfigError(f"{shards.folder} holds pictures of {side} pixels. Set data.{key}={side}, not {size}.")

    def sample(index: int, text: Text, content: bool, style: bool) -> ShardSample:
        two = has_two_styles(shards.words[index])
        slots = ((STYLE, STYLE_2) if two else (STYLE,)) if style else ()
        named = reads_named and not two
        features = SampleFeatures(
            prompt=ShardFeature("prompt", prompt=text_of(shards.words[index], text)),
            target=ShardFeature("latents", index, TARGET),
            content=ShardFeature("latents", index, CONTENT) if content else None,
            styles=tuple(ShardFeature("style", index, slot) for slot in slots),
            prompts={NAMED: ShardFeature("prompt", prompt=text_of(shards.words[index], "caption"))} if named else {},
        )
        shape = Shape((side, side), (side, side) if content else None, len(slots))
        return ShardSample(shards, features, shape, tuple(ShardPicture(shards, index, slot) for slot in slots))

    reads_style, reads_named = "style" in config.reads, NAMED in extra_prompts(config)
    unread = set(unread_styles(shards, config))
    usable = range(len(shards)) if "content" in config.reads else nameable(shards)
    read = [index for index in usable if index not in unread]
    if not read:
        raise ConfigError(f"{shards.folder} shows two styles throughout, and the run reads one. Set data.max_styles=2.")
    if "content" not in config.reads:
        return [sample(index, "sentence", False, reads_style) for index in read]
    samples = []
    for index in read:
        words = shards.words[index]
        plain, two = "style" not in words["labels"], has_two_styles(words)
        alone = plain and index % 2 == 0
        moved, known = words["labels"]["layout"] == "moved", not _strange(words)
        text: Text = "unnamed" if moved and index // 2 % UNNAMED == 0 else "prompt"
        samples.append(sample(index, text, True, reads_style and not alone))
        if index % STYLE_ONLY == 0 and reads_style and known:
            samples.append(sample(index, "sentence", False, True))
        if index % TEXT_ONLY == 1 and known:
            samples.append(sample(index, "caption", False, False))
        if index % INSTRUCTED == 0 and not plain and not two and not moved:
            samples.append(sample(index, "instruction", True, False))
    return samples


def unread_styles(shards: Shards, config: TrainingConfig) -> list[int]:
    """Which triplets a run leaves out because they have more styles than it reads."""
    if config.data.max_styles > 1:
        return []
    return [index for index, words in enumerate(shards.words) if has_two_styles(words)]


def has_two_styles(words: dict[str, Any]) -> bool:
    return "style_2" in words["labels"]


def nameable(shards: Shards) -> list[int]:
    """Which samples show a subject that words can name: for whatever learns without content images.

    Raises:
        ConfigError: there are none.
    """
    known = [index for index, words in enumerate(shards.words) if not _strange(words)]
    if not known:
        raise ConfigError(
            f"{shards.folder} shows strangers alone, and a run without content images needs subjects that words can "
            "name. Make others: --strangers 0.5 or less."
        )
    return known


def _strange(words: dict[str, Any]) -> bool:
    return bool(words["labels"].get("stranger"))


_PHRASES = {style.name: style.phrase for style in STYLES}


def text_of(words: dict[str, Any], text: Text) -> str:
    """A text of a triplet; plain ones and those in two styles have no instruction."""
    labels = words["labels"]
    if text == "instruction":
        return instruction(_PHRASES[labels["style"]])
    if text == "unnamed":
        word = NAMELESS[labels["index"] // (2 * UNNAMED) % len(NAMELESS)]
        return str(words["prompt"]).replace(f"The {labels['subject']} ", f"The {word} ", 1)
    return str(words[text])


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
        texts = ["", *(text_of(words, kind) for words in shards.words for kind in kinds)]
        if "content" in reads:
            texts += [instruction(phrase) for phrase in _PHRASES.values()]
        self._rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
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
        states: Any = image_features(encoder, pixels.to(device, encoder.dtype), STYLE_LAYERS.values())
        return torch.stack([states[layer] for layer in STYLE_LAYERS.values()], dim=1).float()

    slots = style_slots(shards)
    name = name_of("styles", shards, slots, encoder, size)
    with visiting(pipeline, "image_encoder"):
        return encoded(shards, slots, folder / name, encode, device=device, on_progress=on_progress)
