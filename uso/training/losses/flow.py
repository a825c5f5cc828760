"""Rectified flow: noise levels, the network's input and target, and the pipeline's stages on training batches.

`x_t = (1 - t) x0 + t eps`, and the velocity should be `eps - x0` (arXiv 2508.18966; black-forest-labs/flux has the same
line from picture to noise). The network's arithmetic is the pipeline's own.
"""

import torch

from uso.pipeline.latents import pack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.schedule import schedule_mu, shifted
from uso.pipeline.stages import Conditioning
from uso.training.config import FlowConfig
from uso.training.data.batches import TrainingBatch

_LEAST = 1e-5
"""Least distance of levels from 0 and 1, where the shift is undefined."""


def draw_levels(config: FlowConfig, count: int, height: int, width: int, draw: torch.Generator) -> torch.Tensor:
    """Noise levels in (0, 1): [count], float32 on the CPU.

    Args:
        height, width: the pictures', in pixels; FLUX's shift depends on their number of tokens.
    """
    if config.sampling == "logit_normal":
        levels = torch.sigmoid(config.mean + config.deviation * torch.randn(count, generator=draw))
    else:
        levels = torch.rand(count, generator=draw)
    levels = levels.clamp(_LEAST, 1 - _LEAST)
    return levels if config.shift is None else shifted(levels, schedule_mu(config.shift, height, width))


def noised(clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The network's input: [B, ...]; levels [B]."""
    share = levels.to(clean).view(-1, *[1] * (clean.dim() - 1))
    return (1 - share) * clean + share * noise


def target_velocity(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return noise - clean


def clean_estimate(noisy: torch.Tensor, velocity: torch.Tensor, level: float) -> torch.Tensor:
    """The picture that a velocity at a noise level points to: `x_t - t v`."""
    return noisy - level * velocity


def conditioning_of(pipeline: USOPipeline, batch: TrainingBatch, guidance: float | None) -> Conditioning:
    """A batch's conditions: style tokens through the projector, references through the input projection."""
    device = pipeline.work_device
    styles = [
        pipeline.context_embedder.style_tokens({layer: tensor.to(device) for layer, tensor in style.items()})
        for style in batch.styles
    ]
    return pipeline.make_conditioning(
        batch.prompt_embeds,
        batch.pooled,
        style_tokens=styles,
        reference_latents=[] if batch.content is None else [batch.content],
        height=batch.height,
        width=batch.width,
        guidance_scale=guidance,
    )


def predict(
    pipeline: USOPipeline, conditioning: Conditioning, tokens: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """The velocity of packed latents, each at its own noise level: [B, tokens, 64], float32.

    Args:
        tokens: packed, [B, tokens, 64], on any device.
        levels: [B], float32, likewise.
    """
    modulation = pipeline.exchanged.modulation
    learns = any(parameter.requires_grad for parameter in modulation.embedding.parameters())
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        (row,) = modulation.table(
            levels[None].to(pipeline.work_device), conditioning.guidance, conditioning.pooled_prompt_embeds
        )
    return pipeline.velocity(conditioning, tokens.to(pipeline.work_device), row)


def flow_error(
    pipeline: USOPipeline,
    conditioning: Conditioning,
    latents: torch.Tensor,
    noise: torch.Tensor,
    levels: torch.Tensor,
) -> torch.Tensor:
    """The velocity's mean squared error: a scalar, float32.

    Args:
        latents, noise: clean latents and what is mixed into them, [B, 16, H/8, W/8].
        levels: how much of it, [B].
    """
    velocity = predict(pipeline, conditioning, pack(noised(latents, noise, levels)), levels)
    return torch.nn.functional.mse_loss(velocity, pack(target_velocity(latents, noise)).to(velocity))
