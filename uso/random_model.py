"""Full-size (or smaller) models with random weights: for benchmarks where no released weights are at hand.

Same classes, same shapes, same dtypes as a loaded model; pictures mean nothing. Never used to make pictures for people.
"""

from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from uso.architectures import architecture_file, read_component_config
from uso.config import ModelConfig
from uso.context import ContextEmbedder
from uso.pipeline import USOPipeline


def random_pipeline(
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    fill_device: torch.device | str | None = None,
    changes: dict[str, dict[str, Any]] | None = None,
    seed: int = 0,
) -> USOPipeline:
    """A pipeline of a model's architecture with random weights and no tokenizers (prompts are given as embeddings).

    Args:
        device: where the weights end up.
        fill_device: where the numbers are drawn (a GPU draws twelve billion of them in seconds, a CPU in minutes).
        changes: by component, values laid over its architecture (fewer layers, smaller widths).
    """
    changes = changes or {}

    def architecture(name: str) -> dict[str, Any]:
        return read_component_config(architecture_file(config, name)) | changes.get(name, {})

    vision = SiglipVisionConfig(**architecture("image_encoder"))
    flux = architecture("transformer")
    with init_empty_weights():
        modules: dict[str, nn.Module] = {
            "transformer": FluxTransformer2DModel.from_config(flux),
            "vae": AutoencoderKL.from_config(architecture("vae")),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**architecture("text_encoder"))),
            "text_encoder_2": T5EncoderModel(T5Config(**architecture("text_encoder_2"))),
            "image_encoder": SiglipVisionModel(vision),
            "context_embedder": ContextEmbedder(
                image_tokens=(vision.image_size // vision.patch_size) ** 2,
                image_dim=vision.hidden_size,
                hidden_size=flux["num_attention_heads"] * flux["attention_head_dim"],
                **changes.get("projector", {}),
            ),
        }
    t5: Any = modules["text_encoder_2"]
    t5.encoder.embed_tokens.weight = t5.shared.weight
    draw = torch.Generator(fill_device or device).manual_seed(seed)
    for name, module in modules.items():
        _fill(module.eval(), torch.float32 if name == "vae" else dtype, torch.device(device), draw)
    size = {"height": vision.image_size, "width": vision.image_size}
    return USOPipeline(
        **modules,
        tokenizer=None,
        tokenizer_2=None,
        image_processor=SiglipImageProcessorPil(size=size),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        model=config.model_dump(mode="json", exclude={"components"}),
    )


def _fill(module: nn.Module, dtype: torch.dtype, device: torch.device, draw: torch.Generator) -> None:
    """Draw every parameter: matrices with the spread that keeps signals the same size, norms 1, biases 0."""
    drawn: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for leaf, parameter in part._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in drawn:
                value = _draw(parameter, leaf, dtype, draw).to(device)
                drawn[id(parameter)] = nn.Parameter(value, requires_grad=False)
            part._parameters[leaf] = drawn[id(parameter)]


def _draw(parameter: torch.Tensor, leaf: str, dtype: torch.dtype, draw: torch.Generator) -> torch.Tensor:
    shape, where = parameter.shape, draw.device
    if parameter.dim() < 2:
        return (torch.ones if leaf == "weight" else torch.zeros)(shape, dtype=dtype, device=where)
    fan_in = parameter[0].numel()
    return torch.randn(shape, dtype=dtype, device=where, generator=draw).mul_(fan_in**-0.5)
