"""Captioned pictures out of shards, as the base reads them: latents, noise, and words as token ids, by step."""

from dataclasses import dataclass
from typing import Any

import torch

from tools.demo.parts.pictures import pick
from tools.demo.parts.words import clip_ids, t5_ids
from tools.demo.shards.samples import CONTENT, TARGET, has_two_styles, is_nameless, nameable
from tools.demo.shards.shards import Shards
from tools.demo.shards.source import latents_of
from tools.demo.training.config import PartConfig
from tools.demo.training.prefetch import sent
from uso.pipeline.pipeline import USOPipeline
from uso.terminal import say
from uso.training.losses.flow import draw_levels
from uso.training.losses.seeds import generator

Words = tuple[torch.Tensor, torch.Tensor]
"""T5's features [B or 1, L, text_dim] and CLIP's vectors [B or 1, pooled_dim]."""


@dataclass(frozen=True)
class CaptionedBatch:
    """Tensors on the device of the run."""

    places: list[tuple[int, int]]
    """(index, slot) of each picture."""
    latents: torch.Tensor
    """[B, 16, H/8, W/8], float32, like the noise."""
    noise: torch.Tensor
    levels: torch.Tensor
    """How much of the noise, [B]."""
    ids: torch.Tensor
    """CLIP's, [B, 77]; those of no words where they are left out."""
    ids_2: torch.Tensor
    """T5's, [B, length]; likewise."""
    scales: torch.Tensor
    """Guidance scales that the model is given, [B], drawn evenly from those that it allows."""


class Captions:
    """The captioned pictures of a run's shards, encoded (see `captioned`).

    Raises:
        ConfigError: there are no shards, none with a caption, or one that is longer than the model reads.
    """

    def __init__(self, config: PartConfig, shards: Shards, pipeline: USOPipeline) -> None:
        self.config, self.shards = config, shards
        self.device = pipeline.work_device
        folder = config.folder.parent
        arrays = latents_of(pipeline, shards, folder, compile=config.compile, on_progress=report_encoded)
        self.latents = arrays.near(self.device, len(shards))
        self.places, texts = captioned(shards)
        side = arrays[0].shape[-1]
        self.side = 8 * side
        """Of the pictures, in pixels."""
        self.tokens = (side // 2) ** 2
        """Of a picture, packed."""
        clip, t5, length = pipeline.tokenizer, pipeline.tokenizer_2, pipeline.model_config.max_sequence_length
        self.ids, self.ids_2 = clip_ids(clip, texts), t5_ids(t5, texts, length)
        self.no_ids, self.no_ids_2 = clip_ids(clip, [""]), t5_ids(t5, [""], length)
        self.limits = pipeline.model_config.limits

    def batch(self, step: int) -> CaptionedBatch:
        """What a step, counted from 0, reads; the same for the same step."""
        config = self.config
        numbers = pick(config.seed, "base", step, config.batch, len(self.places))
        draw = generator(config.seed, "base-flow", step)
        places = [self.places[number] for number in numbers]
        latents = self.latents.take(places)
        noise = torch.randn(latents.shape, generator=draw)
        levels = draw_levels(config.flow, config.batch, self.side, self.side, draw)
        silent = torch.rand(config.batch, generator=draw) < config.options.no_text
        ids, ids_2 = self.ids[numbers], self.ids_2[numbers]
        ids[silent], ids_2[silent] = self.no_ids, self.no_ids_2
        share = torch.rand(config.batch, generator=draw)
        scales = self.limits.min_guidance + (self.limits.max_guidance - self.limits.min_guidance) * share
        drawn = (latents, noise, levels, ids, ids_2, scales)
        return CaptionedBatch(places, *(sent(tensor, self.device) for tensor in drawn))


def encode_words(pipeline: USOPipeline, ids: torch.Tensor, ids_2: torch.Tensor) -> Words:
    """Words as the transformer reads them, of ids on any device; gradients reach the encoders."""
    ids, ids_2 = (each.to(pipeline.work_device) for each in (ids, ids_2))
    return pipeline.text_encoder_2(ids_2).last_hidden_state, pipeline.text_encoder(ids).pooler_output


def captioned(shards: Shards) -> tuple[list[tuple[int, int]], list[str]]:
    """(index, place in the arrays of latents) of each picture that has words, and the words.

    Unnamed subjects (strangers) are left out: what is learned here must not know them.

    Raises:
        ConfigError: there are strangers alone.
    """
    places, texts = [], []
    for index in nameable(shards):
        words = shards.words[index]
        if shards.kind == "samples":
            places.append((index, 0))
            texts.append(words["caption"])
            continue
        for place, slot in enumerate((CONTENT, TARGET)):
            caption = caption_of(words, slot)
            if caption is not None:
                places.append((index, place))
                texts.append(caption)
    return places, texts


def caption_of(words: dict[str, Any], slot: int) -> str | None:
    """The words that describe a picture of a row; None if it has none.

    Targets in two styles, or in one of the grammar, are left out: they are for the projector and the LoRA to learn, not
    for the base.
    """
    if slot == TARGET:
        return None if has_two_styles(words) or is_nameless(words) else str(words["caption"])
    return str(words["sentence"]) if words["labels"]["layout"] == "kept" else None


def report_encoded(done: int, total: int) -> None:
    """Report now and then how many samples are encoded."""
    if done % 4096 < 512 or done == total:
        say(f"Encoded {done} of {total}.")
