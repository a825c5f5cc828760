"""Operations of a denoising step, counted from shapes on the meta device: no weights, no GPU."""

from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel
from torch.utils.flop_counter import FlopCounterMode


def step_flops(
    transformer_config: dict[str, Any],
    *,
    picture_tokens: int,
    reference_tokens: int,
    context_tokens: int,
    modulation: bool = False,
) -> int:
    """Floating-point operations (a multiplication and an addition are two) of one call of the transformer.

    Args:
        modulation: also count the modulation layers, which a table normally replaces.
    """
    config = dict(transformer_config)
    blocks = {"num_layers": config["num_layers"], "num_single_layers": config["num_single_layers"]}
    counts = {}
    # Blocks of a kind cost the same: count one of each, and subtract a step without blocks.
    for double, single in ((0, 0), (1, 0), (0, 1)):
        changed = config | {"num_layers": double, "num_single_layers": single}
        counts[double, single] = _count(changed, picture_tokens + reference_tokens, context_tokens, modulation)
    outside = counts[0, 0]
    return (
        outside
        + blocks["num_layers"] * (counts[1, 0] - outside)
        + blocks["num_single_layers"] * (counts[0, 1] - outside)
    )


def _count(config: dict[str, Any], tokens: int, context_tokens: int, modulation: bool) -> int:
    with init_empty_weights():
        transformer = FluxTransformer2DModel.from_config(config)
    transformer.context_embedder = torch.nn.Identity()
    width = transformer.inner_dim
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        transformer(
            hidden_states=torch.empty(1, tokens, config["in_channels"], device="meta"),
            encoder_hidden_states=torch.empty(1, context_tokens, width, device="meta"),
            pooled_projections=torch.empty(1, config["pooled_projection_dim"], device="meta"),
            timestep=torch.empty(1, device="meta"),
            guidance=torch.empty(1, device="meta") if config.get("guidance_embeds") else None,
            img_ids=torch.empty(tokens, 3, device="meta"),
            txt_ids=torch.empty(context_tokens, 3, device="meta"),
        )
    total = counter.get_total_flops()
    if modulation:
        return total
    return total - sum(
        2 * module.in_features * module.out_features
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and _is_modulation(name)
    )


def _is_modulation(name: str) -> bool:
    return name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear"))
