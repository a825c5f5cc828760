"""The base: FLUX's transformer and both text encoders, learned together from captioned pictures by the flow loss.

It reads no references. Captions name the style. Text is dropped now and then, and the base is given any guidance scale
that the model allows; the scale has no meaning until `guidance`.

`architecture`: `transformer`, `text_encoder`, `text_encoder_2`: sizes by transformers' and diffusers' names, and
`style_tokens`, for the projector that comes later.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from tools.demo.parts.alignment import Alignment, patches_of
from tools.demo.parts.captions import CaptionedBatch, Captions, encode_words, report_encoded
from tools.demo.parts.model import (
    DTYPE,
    read_config,
    refuse_other_sizes,
    write_config,
    write_model_yaml,
    write_pretrained,
)
from tools.demo.parts.words import load_clip_tokenizer, load_t5_tokenizer
from tools.demo.shards.shards import Shards
from tools.demo.training.config import AlignmentConfig, PartConfig
from tools.demo.training.loop import Loop, Losses, refuse_other_run
from tools.demo.training.muon import embeddings_of
from tools.demo.training.prefetch import Prefetcher
from uso.errors import ConfigError
from uso.evaluation.metrics.csd import load_csd
from uso.pipeline.encoders import CLIP_LENGTH
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import DataConfig, TrainingConfig
from uso.training.loop.precision import autocast
from uso.training.losses.flow import flow_error
from uso.training.model.export import released, write_safetensors
from uso.training.model.load import bring_to_device, load_for_training
from uso.transformer.compile import cache_folder, compile_blocks
from uso.transformer.modulation import modulation_owners

FILE = "flux1.safetensors"


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


def refuse_other_base(config: PartConfig) -> None:
    """Refuse other sizes than those of the base that is there.

    Raises:
        ConfigError: which differs.
    """
    for name in ("transformer", "text_encoder", "text_encoder_2"):
        refuse_other_sizes(name, config.architecture[name], read_config(config.model, name))
    tokens = {"style_tokens": config.architecture["style_tokens"]}
    refuse_other_sizes("projector", tokens, read_config(config.model, "projector"))


def pipeline_of(config: PartConfig, device: torch.device) -> USOPipeline:
    """The folder's model in float32 on a device, without LoRA and projector."""
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
    pipeline = load_for_training(run, device, offline=True)
    bring_to_device(pipeline, run)
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        encoder.to(device)
    return pipeline


def alignment_of(config: AlignmentConfig, folder: Path, pipeline: USOPipeline, captions: Captions) -> Alignment:
    """What lets the base predict the features of the run's pictures.

    Args:
        folder: where features are kept.

    Raises:
        ConfigError: there is no descriptor yet, or it does not fit the base.
    """
    if not config.path.is_file():
        raise ConfigError(
            f"The base is aligned with a descriptor, and there is none at {config.path}. Train it first "
            "(python -m tools.demo part reward-descriptor), name another (alignment.descriptor=FILE), or go without "
            "(alignment=null)."
        )
    descriptor = load_csd(config.path).to(pipeline.work_device)
    patches = patches_of(descriptor, captions.shards, folder, report_encoded)
    features = patches.near(pipeline.work_device, len(captions.shards))
    return Alignment(pipeline, features, captions.places, captions.tokens, captions.config.seed, config.weight)


def transformer_parameters(pipeline: USOPipeline) -> dict[str, nn.Parameter]:
    """The transformer's, by its own names, ready to learn."""
    with pipeline.exchanged.stock() as transformer:
        return {name: parameter.requires_grad_(True) for name, parameter in transformer.named_parameters()}


def write_transformer(config: PartConfig, parameters: Mapping[str, nn.Parameter]) -> None:
    """The transformer's file, of what `transformer_parameters` gave."""
    named = {name: parameter.detach() for name, parameter in parameters.items()}
    write_safetensors(config.model / FILE, released("transformer", named, DTYPE))


def train_base(config: PartConfig, device: torch.device, resume: bool = False) -> Loop:
    """A run; its result is `flux1.safetensors`, `text_encoder` and `text_encoder_2` of the model's folder."""
    shards = Shards.open(config.shards)
    refuse_other_run(config, resume)
    if config.fresh or not (config.model / FILE).is_file():
        new_base(config)
    else:
        refuse_other_base(config)
    pipeline = pipeline_of(config, device)
    captions = Captions(config, shards, pipeline)
    flux = transformer_parameters(pipeline)
    encoders = {name: getattr(pipeline, name) for name in ("text_encoder", "text_encoder_2")}
    parameters = {f"transformer/{name}": parameter for name, parameter in flux.items()}
    for encoder, module in encoders.items():
        parameters |= {f"{encoder}/{name}": p.requires_grad_(True) for name, p in module.named_parameters()}
    if config.compile:
        compile_blocks(pipeline.transformer, cache_folder())
    alignment = None
    if config.alignment is not None:
        alignment = alignment_of(config.alignment, config.folder.parent, pipeline, captions)
        parameters |= {f"alignment/{name}": parameter for name, parameter in alignment.named_parameters()}
    side = captions.side

    def read(step: int) -> tuple[CaptionedBatch, torch.Tensor | None]:
        batch = captions.batch(step)
        return batch, None if alignment is None else alignment.wanted(batch.places)

    batches = Prefetcher(read, device)

    def losses(step: int) -> Losses:
        batch, wanted = batches.take(step)
        with autocast(device.type, config.precision):
            words = encode_words(pipeline, batch.ids, batch.ids_2)
            conditioning = pipeline.make_conditioning(*words, height=side, width=side, guidance_scale=1.0)
            conditioning = replace(conditioning, guidance=batch.scales)
            flow = flow_error(pipeline, conditioning, batch.latents, batch.noise, batch.levels)
            if alignment is None:
                return {"loss": flow}
            aligned = alignment(wanted)
        return {"loss": flow + alignment.weight * aligned, "flow": flow, "alignment": aligned}

    def export() -> None:
        write_transformer(config, flux)
        for encoder, module in encoders.items():
            write_pretrained(config.model, encoder, module)

    loop = Loop(config, parameters, losses, export, embeddings_of(*encoders.values()))
    loop.begin(resume)
    with batches:
        loop.run()
    return loop
