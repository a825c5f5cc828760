"""The base: FLUX's transformer and both text encoders, learned together from captioned pictures by the flow loss.

It knows no references. Captions name the style. Text is left out now and then, and any guidance scale is told that the
model allows, which means nothing yet: so that the second run can teach the transformer what the finished first run
gives at a scale, with and without words (guidance distillation, arXiv 2210.03142), as FLUX.1-dev was.

`architecture`: `transformer`, `text_encoder`, `text_encoder_2`: sizes by transformers' and diffusers' names, and
`style_tokens`, for the projector that comes later.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from uso.checkpoints import load_transformer
from uso.encoders import CLIP_LENGTH
from uso.errors import ConfigError
from uso.latents import pack
from uso.modulation import modulation_owners
from uso.pipeline import USOPipeline
from uso.speed import cache_folder, compile_blocks
from uso.terminal import say
from uso.training.arrays import Arrays
from uso.training.config import DataConfig, TrainingConfig
from uso.training.data.shards import Shards
from uso.training.demo.config import PartConfig
from uso.training.demo.loop import Loop, Losses, refuse_other_run
from uso.training.demo.model import DTYPE, write_config, write_model_yaml, write_pretrained
from uso.training.demo.pictures import pick
from uso.training.demo.words import clip_ids, load_clip_tokenizer, load_t5_tokenizer, t5_ids
from uso.training.draws import generator
from uso.training.flow import draw_levels, noised
from uso.training.load import load_for_training
from uso.training.network import flow_error, predict
from uso.training.optimizer import embeddings_of
from uso.training.release import released, write_safetensors
from uso.training.shard_source import CONTENT, TARGET, latents_of
from uso.training.speed import autocast

FILE = "flux1.safetensors"

# A new base.


def new_base(config: PartConfig) -> None:
    """Write a base that knows nothing into the model's folder, with the configs of its components."""
    sizes = config.architecture
    tokenizer, _ = load_t5_tokenizer(config.model)
    clip_size = len(load_clip_tokenizer(config.model))
    text, text_2, flux = (dict(sizes[name]) for name in ("text_encoder", "text_encoder_2", "transformer"))
    clip = CLIPTextConfig(
        vocab_size=clip_size,
        max_position_embeddings=CLIP_LENGTH,
        hidden_act="quick_gelu",
        projection_dim=text["hidden_size"],
        # As released: with 2, CLIP pools at the largest token id, which is the end mark.
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
        **text,
    )
    t5 = T5Config(
        vocab_size=-(-len(tokenizer) // 128) * 128,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
        **text_2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            joint_attention_dim=text_2["d_model"],
            pooled_projection_dim=text["hidden_size"],
            guidance_embeds=True,
            **flux,
        )
        quiet_start(transformer)
        encoders: dict[str, Any] = {"text_encoder": CLIPTextModel(clip), "text_encoder_2": T5EncoderModel(t5)}
    for name, model in encoders.items():
        write_pretrained(config.model, name, model)
    values = {key: value for key, value in transformer.config.items() if not key.startswith("_")}
    write_config(config.model, "transformer", {"_class_name": "FluxTransformer2DModel", **values})
    write_config(config.model, "projector", {"style_tokens": int(sizes["style_tokens"])})
    write_safetensors(config.model / FILE, released("transformer", dict(transformer.named_parameters()), DTYPE))


@torch.no_grad()
def quiet_start(transformer: FluxTransformer2DModel) -> None:
    """Every block begins as the identity and the output as zero (adaLN-Zero, arXiv 2212.09748)."""
    for owner in modulation_owners(transformer):
        linear: Any = owner.linear
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)


# Data.


@dataclass(frozen=True)
class Captioned:
    """Pictures with captions, out of shards of triplets or samples: where each one is, and its words as token ids."""

    places: list[tuple[int, int]]
    """(index, place in `arrays`) of each picture."""
    ids: torch.Tensor
    """CLIP's, [N, 77]."""
    ids_2: torch.Tensor
    """T5's, [N, length]."""
    arrays: Arrays
    """Latents."""


def caption_of(words: dict[str, Any], slot: int) -> str | None:
    """The words that say what a picture of a row shows; None where nobody wrote them down."""
    if slot == TARGET:
        return str(words["caption"])
    return str(words["sentence"]) if words["labels"]["layout"] == "kept" else None


def captioned(shards: Shards, arrays: Arrays, clip: Any, t5: Any, length: int) -> Captioned:
    places, texts = [], []
    for index, words in enumerate(shards.words):
        if shards.kind == "samples":
            places.append((index, 0))
            texts.append(words["caption"])
            continue
        for place, slot in enumerate((CONTENT, TARGET)):
            caption = caption_of(words, slot)
            if caption is not None:
                places.append((index, place))
                texts.append(caption)
    return Captioned(places, clip_ids(clip, texts), t5_ids(t5, texts, length), arrays)


def every_so_often(verb: str, count: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done % count < 512 or done == total:
            say(f"{verb} {done} of {total}.")

    return report


# Training.


def pipeline_of(config: PartConfig) -> USOPipeline:
    """The folder's model in float32, without LoRA and projector."""
    run = TrainingConfig(
        name=config.name,
        description="",
        model=str(write_model_yaml(config.model)),
        learns=("transformer",),
        reads=(),
        base="float32",
        data=DataConfig(resolution=128, content_size=128),
        optimizer=config.optimizer,
        steps=1,
        batch=1,
    )
    return load_for_training(run, torch.device("cpu"), offline=True)


def train_base(config: PartConfig, resume: bool = False) -> Loop:
    """A run; its result is `flux1.safetensors`, `text_encoder` and `text_encoder_2` of the model's folder."""
    shards = Shards.open(config.shards)
    refuse_other_run(config, resume)
    distil = config.options.distil
    if config.fresh or not (config.model / FILE).is_file():
        if distil:
            raise ConfigError("Guidance is learned from a base that is there. Train it first: train.demo base.")
        new_base(config)
    pipeline = pipeline_of(config)
    report = every_so_often("Encoded", 4096)
    arrays = latents_of(pipeline, shards, config.folder.parent, compile=config.compile, on_progress=report)
    length = pipeline.model_config.max_sequence_length
    data = captioned(shards, arrays, pipeline.tokenizer, pipeline.tokenizer_2, length)
    limits = pipeline.model_config.limits
    teacher = teacher_of(config, pipeline) if distil else None
    with pipeline.exchanged.stock() as transformer:
        parameters = {f"transformer/{name}": p for name, p in transformer.named_parameters()}
    encoders = {name: getattr(pipeline, name) for name in ("text_encoder", "text_encoder_2")}
    if teacher is None:
        for encoder, module in encoders.items():
            parameters |= {f"{encoder}/{name}": p for name, p in module.named_parameters()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    if config.compile:
        compile_blocks(pipeline.transformer, cache_folder())
        if teacher is not None:
            compile_blocks(teacher.transformer, cache_folder())
    empty = (clip_ids(pipeline.tokenizer, [""]), t5_ids(pipeline.tokenizer_2, [""], length))
    no_text = config.options.no_text
    side = 8 * arrays[0].shape[-1]

    def losses(step: int) -> Losses:
        numbers = pick(config.seed, "base", step, config.batch, len(data.places))
        draw = generator(config.seed, "base-flow", step)
        latents = arrays.take([data.places[number] for number in numbers])
        noise = torch.randn(latents.shape, generator=draw)
        levels = draw_levels(config.flow, config.batch, side, side, draw)
        silent = torch.rand(config.batch, generator=draw) < no_text
        ids, ids_2 = data.ids[numbers], data.ids_2[numbers]
        ids[silent], ids_2[silent] = empty
        with autocast("cpu", config.precision):
            with torch.set_grad_enabled(teacher is None):
                pooled = pipeline.text_encoder(ids).pooler_output
                prompt_embeds = pipeline.text_encoder_2(ids_2).last_hidden_state
            conditioning = pipeline.make_conditioning(
                prompt_embeds, pooled, height=side, width=side, guidance_scale=1.0
            )
            share = torch.rand(config.batch, generator=draw)
            scales = limits.min_guidance + (limits.max_guidance - limits.min_guidance) * share
            conditioning = replace(conditioning, guidance=scales)
            if teacher is None:
                return {"loss": flow_error(pipeline, conditioning, latents, noise, levels)}
            tokens = pack(noised(latents, noise, levels))
            with torch.no_grad():
                no_words = (
                    pipeline.text_encoder_2(empty[1]).last_hidden_state,
                    pipeline.text_encoder(empty[0]).pooler_output,
                )
                wanted = guided_velocity(teacher, (prompt_embeds, pooled), no_words, tokens, levels, scales, side)
            velocity = predict(pipeline, conditioning, tokens, levels)
        return {"loss": nn.functional.mse_loss(velocity, wanted)}

    def export() -> None:
        named = {name: p.detach() for name, p in parameters.items()}
        flux = {name.removeprefix("transformer/"): p for name, p in named.items() if name.startswith("transformer/")}
        write_safetensors(config.model / FILE, released("transformer", flux, DTYPE))
        if teacher is None:
            for encoder, module in encoders.items():
                write_pretrained(config.model, encoder, module)

    loop = Loop(config, parameters, losses, export, embeddings_of(*encoders.values()))
    loop.begin(resume)
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
    words: tuple[torch.Tensor, torch.Tensor],
    no_words: tuple[torch.Tensor, torch.Tensor],
    tokens: torch.Tensor,
    levels: torch.Tensor,
    scales: torch.Tensor,
    side: int,
) -> torch.Tensor:
    """What a teacher without guidance gives at each picture's guidance scale: [B, tokens, 64].

    Args:
        words, no_words: T5's features [B or 1, L, text_dim] and CLIP's vectors [B or 1, pooled_dim].
        scales: [B]; 1 is the teacher's answer to the words, 0 that without.
        side: of the pictures, in pixels.
    """
    told, untold = (
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
    return untold + scales[:, None, None] * (told - untold)
