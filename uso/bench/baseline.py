"""The baseline for comparison: the same request with diffusers' stock transformer, not compiled.

The LoRA is computed beside the weights, and image encoder, projector and modulation run in every step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from uso.bench.machine import Clock
from uso.bench.request import Inputs, Request
from uso.bench.runs import Timing, run_text_encoders
from uso.pipeline.latents import draw_noise, pack, picture_ids, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.schedule import schedule_sigmas
from uso.transformer.compile import uncompiled
from uso.weights.formats.layouts import flux_part, lora_target

LORA_RANK = 128


class UnfoldedLora(nn.Module):
    """A linear layer with a LoRA beside it that is computed at run time."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(linear.weight.new_zeros(rank, linear.in_features), requires_grad=False)
        self.up = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank), requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(hidden)
        return output + nn.functional.linear(nn.functional.linear(hidden, self.down), self.up)


@contextmanager
def unfolded(transformer: Any, rank: int) -> Iterator[None]:
    """While inside, every layer that USO's LoRA changes has an all-zero LoRA beside it."""
    changed = [
        (transformer.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], module)
        for name, module in list(transformer.named_modules())
        if isinstance(module, nn.Linear) and _has_lora(f"{name}.weight")
    ]
    for owner, leaf, linear in changed:
        owner._modules[leaf] = UnfoldedLora(linear, rank)
    try:
        yield
    finally:
        for owner, leaf, linear in changed:
            owner._modules[leaf] = linear


def _has_lora(name: str) -> bool:
    if not name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
        return False
    part = flux_part(name)
    kind, index, rest = part.source.split(".", 2)
    if rest == "linear1.weight":
        return part.index < 3  # query, key, value
    modules = ("qkv_lora1", "proj_lora1", "qkv_lora2", "proj_lora2") if kind == "double_blocks" else ("proj_lora",)
    return part.source in {lora_target(f"{kind}.{index}.processor.{module}") for module in modules}


def run_baseline(pipeline: USOPipeline, request: Request, inputs: Inputs, rank: int = LORA_RANK) -> Timing:
    """Run a request the plain way, on the same weights, all of which must be on the device."""
    device, dtype = pipeline.work_device, pipeline.transformer.dtype
    clock, steps = Clock(device), []
    with clock.stage("text"):
        run_text_encoders(pipeline)
    with clock.stage("reference"):
        latents = [pipeline.encode_reference(inputs.content)] * request.contents
    references = [pack(latent).to(device, dtype) for latent in latents]
    sizes = [(8 * latent.shape[-2], 8 * latent.shape[-1]) for latent in latents]
    ids, reference_ids = picture_ids(request.height, request.width, sizes, pipeline.model_config.position_grid)
    image_ids = torch.cat([ids, *reference_ids]).to(device)
    tokens = pack(draw_noise(0, request.height, request.width)).to(device)
    sigmas = [*schedule_sigmas("uso", request.steps, request.height, request.width), 0.0]
    guidance = None if request.guidance is None else torch.tensor([request.guidance], device=device)
    embedder = pipeline.context_embedder
    with clock.stage("denoise"), torch.inference_mode(), pipeline.exchanged.stock() as transformer:
        embedder.text_projection, transformer.context_embedder = transformer.context_embedder, nn.Identity()
        with uncompiled(transformer), unfolded(transformer, rank):
            for index in range(request.steps):
                began = clock.now()
                styles = [pipeline.encode_style(style) for style in inputs.styles]
                context = embedder(inputs.prompt_embeds.to(device), styles)
                velocity = transformer(
                    hidden_states=torch.cat([tokens.to(dtype), *references], dim=1),
                    encoder_hidden_states=context,
                    pooled_projections=inputs.pooled.to(device),
                    timestep=torch.tensor([sigmas[index]], device=device),
                    guidance=guidance,
                    img_ids=image_ids,
                    txt_ids=torch.zeros(context.shape[1], 3, device=device),
                    return_dict=False,
                )[0][:, : tokens.shape[1]].float()
                tokens = tokens + (sigmas[index + 1] - sigmas[index]) * velocity
                steps.append(clock.now() - began)
    with clock.stage("decode"):
        pipeline.decode(unpack(tokens, request.height, request.width))
    return Timing(clock.seconds, steps, tokens)
