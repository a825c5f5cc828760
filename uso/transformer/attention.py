"""Attention whose queries and keys are normalised, concatenated and rotated in one pass over memory.

diffusers does this in several passes (RMS norm per head, context before picture, rotary embedding), even when compiled.
`--speed fast` uses it together with `uso.transformer.fp8`; everywhere else diffusers' own processor stays.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from uso.transformer.operators import rotated


class RotatedProcessor(FluxAttnProcessor):
    """diffusers' FLUX attention, with `rotated` for queries and keys."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Any:
        assert image_rotary_emb is not None  # FLUX always has positions
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        context_query = context_key = query_weight = key_weight = None
        if encoder_hidden_states is not None:
            context_query, context_key = attn.add_q_proj(encoder_hidden_states), attn.add_k_proj(encoder_hidden_states)
            query_weight, key_weight = attn.norm_added_q.weight, attn.norm_added_k.weight
            value = torch.cat([attn.add_v_proj(encoder_hidden_states), value], dim=1)
        positions, eps = image_rotary_emb, attn.norm_q.eps
        attended = dispatch_attention_fn(
            rotated(context_query, query, query_weight, attn.norm_q.weight, *positions, eps),
            rotated(context_key, key, key_weight, attn.norm_k.weight, *positions, eps),
            value.unflatten(-1, (-1, attn.head_dim)),
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        ).flatten(2, 3)
        if encoder_hidden_states is None:
            return attended
        context = encoder_hidden_states.shape[1]
        return attn.to_out[0](attended[:, context:]), attn.to_add_out(attended[:, :context])


def rotate_in_one_pass(transformer: Any) -> None:
    """Give every block `RotatedProcessor`. Call it before an attention backend is chosen."""
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.attn.set_processor(RotatedProcessor())
