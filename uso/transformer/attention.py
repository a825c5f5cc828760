"""Attention: style strengths as a bias, and queries and keys that are made in one pass over memory.

A style of strength s counts s times in every softmax: log(s) is added to the attention that every query pays to its
tokens. Style tokens all have position 0, so strength 2 equals giving the style twice.

diffusers normalises, concatenates and rotates queries and keys in several passes (RMS norm per head, context before
picture, rotary embedding), even when compiled. `RotatedProcessor` does it in one. `--speed fast` uses it together with
`uso.transformer.fp8`; everywhere else diffusers' own processor stays.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from uso.transformer.operators import rotated


def strength_bias(lengths: Sequence[int], strengths: Sequence[float], tokens: int) -> torch.Tensor | None:
    """What style strengths add to attention, by token: [1, 1, 1, tokens], float32; None if all strengths are 1.

    Args:
        lengths: tokens of each style; styles are the first tokens of all, one after another.
        strengths: above 0, for each style; 1 if there are none.
        tokens: all tokens: styles, text, picture, references.
    """
    if all(strength == 1 for strength in strengths):
        return None
    bias = torch.zeros(1, 1, 1, tokens)
    start = 0
    for length, strength in zip(lengths, strengths, strict=True):
        bias[..., start : start + length] = math.log(strength)
        start += length
    return bias


@contextmanager
def biased_attention(transformer: Any, bias: torch.Tensor | None) -> Iterator[dict[str, torch.Tensor] | None]:
    """While inside, attention can take the bias; yields the transformer's `joint_attention_kwargs`, None without bias.

    PyTorch's own choice of kernel takes any bias that is broadcast. cuDNN's kernel is not known to, so it rests
    meanwhile.
    """
    if bias is None:
        yield None
        return
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    processors = [block.attn.processor for block in blocks]
    backends = [processor._attention_backend for processor in processors]
    try:
        for processor in processors:
            processor._attention_backend = AttentionBackendName.NATIVE
        yield {"attention_mask": bias}
    finally:
        for processor, backend in zip(processors, backends, strict=True):
            processor._attention_backend = backend


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
