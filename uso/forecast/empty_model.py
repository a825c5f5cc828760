"""A pipeline without weights: the modules that `load_pipeline` would load, built from the shipped configs.

Parameters are on the meta device, buffers are real. Forecasts use it for shapes, benchmarks to fill in random weights.
"""

from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)
from transformers.initialization import no_init_weights

from uso.config import ModelConfig, architecture_file, read_component_config
from uso.pipeline.pipeline import USOPipeline
from uso.transformer.context_embedder import ContextEmbedder


def empty_pipeline(
    config: ModelConfig, dtype: torch.dtype, changes: dict[str, dict[str, Any]] | None = None
) -> USOPipeline:
    """The pipeline of a model's architecture, without tokenizers (they come with the weights).

    Args:
        dtype: of the transformer and the encoders; the autoencoder is float32.
        changes: by component, values that override its architecture (fewer layers, smaller widths).

    Raises:
        ConfigError: a component's config cannot be read.
    """

    def values(name: str) -> dict[str, Any]:
        return read_component_config(architecture_file(config, name)) | (changes or {}).get(name, {})

    vision = SiglipVisionConfig(**values("image_encoder"))
    with init_empty_weights(), no_init_weights():  # else random numbers are drawn for the shapes, for seconds
        transformer = FluxTransformer2DModel.from_config(values("transformer"))
        vae = AutoencoderKL.from_config(values("vae"))
        text_encoder = CLIPTextModel(CLIPTextConfig(**values("text_encoder")))
        text_encoder_2 = T5EncoderModel(T5Config(**values("text_encoder_2")))
        image_encoder = SiglipVisionModel(vision)
        context_embedder = ContextEmbedder.for_networks(
            values("image_encoder"), values("transformer"), values("projector")["style_tokens"]
        )
    text_encoder_2.encoder.embed_tokens.weight = text_encoder_2.shared.weight
    for module in (transformer, text_encoder, text_encoder_2, image_encoder, context_embedder):
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
        module.eval().requires_grad_(False)
    size = {"height": vision.image_size, "width": vision.image_size}
    return USOPipeline(
        transformer=transformer,
        vae=vae.eval().requires_grad_(False),
        text_encoder=text_encoder,
        tokenizer=None,
        text_encoder_2=text_encoder_2,
        tokenizer_2=None,
        image_encoder=image_encoder,
        image_processor=SiglipImageProcessorPil.from_dict(values("image_processor") | {"size": size}),
        context_embedder=context_embedder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        model=config.model_dump(mode="json", exclude={"components"}),
    )
