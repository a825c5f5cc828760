"""The pipeline's own stages on training batches: conditioning and velocity, with gradients to what learns.

Nothing of the network's arithmetic is here; this only hands over what `USOPipeline` takes.
"""

import torch

from uso.pipeline.latents import pack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.stages import Conditioning
from uso.training.data.batches import TrainingBatch
from uso.training.losses.flow import noised, target_velocity


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
