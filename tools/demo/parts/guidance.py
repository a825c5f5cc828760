"""Guidance: the base, given a scale, learns to answer as two of its answers together would.

It is its own teacher: the answer to the prompt is pushed away from the answer to none, by the scale (guidance
distillation, arXiv 2210.03142), as in FLUX.1-dev.
"""

import copy
from dataclasses import replace

import torch
from torch import nn

from tools.demo.parts.base import FILE, pipeline_of, refuse_other_base, transformer_parameters, write_transformer
from tools.demo.parts.captions import Captions, Words, encode_words
from tools.demo.shards.shards import Shards
from tools.demo.training.config import PartConfig
from tools.demo.training.loop import Loop, Losses, refuse_other_run
from tools.demo.training.prefetch import Prefetcher
from uso.errors import ConfigError
from uso.pipeline.latents import pack
from uso.pipeline.pipeline import USOPipeline
from uso.training.loop.precision import autocast
from uso.training.losses.flow import noised, predict
from uso.training.model.export import released, write_safetensors
from uso.transformer.compile import cache_folder, compile_blocks
from uso.weights.checkpoints import load_transformer


def train_guidance(config: PartConfig, device: torch.device, resume: bool = False) -> Loop:
    """A run; its result is `flux1.safetensors` of the model's folder.

    Raises:
        ConfigError: there is no base yet.
    """
    shards = Shards.open(config.shards)
    refuse_other_run(config, resume)
    if config.fresh or not (config.model / FILE).is_file():
        raise ConfigError(
            "Guidance is learned from a base that is there. Train it first: python -m tools.demo part base."
        )
    refuse_other_base(config)
    pipeline = pipeline_of(config, device)
    captions = Captions(config, shards, pipeline)
    teacher = teacher_of(config, pipeline)
    parameters = transformer_parameters(pipeline)
    if config.compile:
        for each in (pipeline, teacher):
            compile_blocks(each.transformer, cache_folder())
    with torch.no_grad(), autocast(device.type, config.precision):
        no_words = encode_words(pipeline, captions.no_ids, captions.no_ids_2)
    side = captions.side
    batches = Prefetcher(captions.batch, device)

    def losses(step: int) -> Losses:
        batch = batches.take(step)
        tokens = pack(noised(batch.latents, batch.noise, batch.levels))
        with autocast(device.type, config.precision):
            with torch.no_grad():
                words = encode_words(pipeline, batch.ids, batch.ids_2)
                wanted = guided_velocity(teacher, words, no_words, tokens, batch.levels, batch.scales, side)
            conditioning = pipeline.make_conditioning(*words, height=side, width=side, guidance_scale=1.0)
            velocity = predict(pipeline, replace(conditioning, guidance=batch.scales), tokens, batch.levels)
        return {"loss": nn.functional.mse_loss(velocity, wanted)}

    loop = Loop(config, parameters, losses, lambda: write_transformer(config, parameters))
    loop.begin(resume)
    with batches:
        loop.run()
    return loop


def teacher_of(config: PartConfig, pipeline: USOPipeline) -> USOPipeline:
    """A copy of the base as the run found it, kept in the run's folder: the run itself replaces the model's file."""
    kept = config.folder / f"teacher-{FILE}"
    teacher = copy.deepcopy(pipeline)
    with teacher.exchanged.stock() as transformer:
        named = dict(transformer.named_parameters())
        if kept.is_file():
            fresh = load_transformer(transformer.config, [kept], dtype=torch.float32)
            transformer.load_state_dict(fresh.state_dict())
        else:
            write_safetensors(kept, released("transformer", named))
    return teacher


def guided_velocity(
    teacher: USOPipeline,
    words: Words,
    no_words: Words,
    tokens: torch.Tensor,
    levels: torch.Tensor,
    scales: torch.Tensor,
    side: int,
) -> torch.Tensor:
    """What a teacher without guidance gives at each picture's guidance scale: [B, tokens, 64].

    Args:
        scales: [B]; 1 is the teacher's answer to the words, 0 that without.
        side: of the pictures, in pixels.
    """
    with_words, without = (
        predict(
            teacher,
            teacher.make_conditioning(
                embeds.expand(len(scales), -1, -1),
                pooled.expand(len(scales), -1),
                height=side,
                width=side,
                guidance_scale=1.0,
            ),
            tokens,
            levels,
        )
        for embeds, pooled in (words, no_words)
    )
    return without + scales[:, None, None] * (with_words - without)
