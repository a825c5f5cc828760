"""A transformer of FLUX's kind that runs in milliseconds, and requests for it: for tests of how it is run."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from diffusers import FluxTransformer2DModel

from uso.transformer.context_embedder import ContextEmbedder
from uso.transformer.exchange import ExchangedTransformer

CHANNELS, CONTEXT, POOLED = 16, 32, 24


def tiny_transformer(dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """2 double and 3 single blocks, 64 wide, weights that keep signals at their size."""
    transformer = FluxTransformer2DModel(
        in_channels=CHANNELS,
        num_layers=2,
        num_single_layers=3,
        num_attention_heads=2,
        attention_head_dim=32,
        joint_attention_dim=CONTEXT,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in transformer.eval().requires_grad_(False).named_parameters():
        if parameter.dim() == 2 or name.endswith("bias"):  # all but the scales of norms, which stay 1
            spread = 0.1 if parameter.dim() == 1 else parameter.shape[1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * spread)
        parameter.data = parameter.to(dtype)
    return transformer


def tiny_request(
    transformer: Any, *, seed: int = 0, height: int = 4, width: int = 4, context: int = 6
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Noise [1, tokens, channels] in float32, and what the transformer takes beside latents and timestep."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()
    noise = torch.randn(1, height * width, CHANNELS, generator=draw)
    return noise, {
        "encoder_hidden_states": torch.randn(1, context, CONTEXT, generator=draw).to(transformer.dtype),
        "pooled_projections": torch.randn(1, POOLED, generator=draw).to(transformer.dtype),
        "guidance": torch.tensor([1.0 + seed]),
        "img_ids": ids,
        "txt_ids": torch.zeros(context, 3),
    }


@torch.inference_mode()
def tiny_steps(
    transformer: Any,
    *,
    num_steps: int = 3,
    step: Callable[..., torch.Tensor] | None = None,
    **request: Any,
) -> torch.Tensor:
    """Latents after Euler steps from noise; `step(timestep=..., ...)` in the place of the transformer's call."""
    latents, inputs = tiny_request(transformer, **request)
    call = step or (lambda **values: transformer(**values))
    levels = torch.linspace(1, 0, num_steps + 1)
    for level, following in pairwise(levels):
        hidden = latents.to(transformer.dtype)
        velocity = call(hidden_states=hidden, timestep=level[None], return_dict=False, **inputs)[0]
        latents = latents + (following - level) * velocity.float()
    return latents


def tiny_exchanged(dtype: torch.dtype = torch.float32) -> ExchangedTransformer:
    """It as the pipeline runs it."""
    transformer = tiny_transformer(dtype)
    embedder = ContextEmbedder(image_tokens=4, image_dim=8, style_tokens=2, hidden_size=transformer.inner_dim)
    return ExchangedTransformer(transformer, embedder)


def tiny_inputs(
    made: ExchangedTransformer, picture: int, references: int, batch: int = 1, context: int = 9
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Tokens for `ExchangedTransformer.run`, and its other arguments."""
    draw = torch.Generator().manual_seed(1)
    width, dtype = made.transformer.inner_dim, made.transformer.dtype

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    ids = torch.randint(0, 30, (context + picture + references, 3), generator=draw).float()
    table = made.modulation.table(torch.tensor([0.4]), torch.full((batch,), 3.0), random(batch, POOLED))
    return random(batch, picture, CHANNELS), {
        "references": random(batch, references, width) if references else None,
        "context": random(batch, context, width),
        "positions": made.position_embedding(ids),
        "row": table[0],
    }
