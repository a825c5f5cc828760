"""Attention: style strengths as a bias, queries and keys that are made in one pass over memory, or multiplied in int8.

A style of strength s counts s times in every softmax: log(s) is added to the attention that every query pays to its
tokens. Style tokens all have position 0, so strength 2 equals giving the style twice.

diffusers normalises, concatenates and rotates queries and keys in several passes (RMS norm per head, context before
picture, rotary embedding), even when compiled. `RotatedProcessor` does it in one. `--speed fast` uses it together with
`uso.transformer.fp8`. `Int8Processor` multiplies queries and keys in int8 as well; `--speed fast` uses it on cards that
have int8 products, where its kernel works. Everywhere else diffusers' own processor stays.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from uso.transformer.operators import int8_attention, rotated

logger = logging.getLogger(__name__)

INT8 = "int8"
"""The name of `Int8Processor`'s attention in a picture's record."""

_INT8_HEADS = (64, 128)
"""Sizes of heads that its kernel was checked for."""

_INT8_CAPABILITIES = (8, 12)
"""Ampere and Ada (8), and GeForce Blackwell (12). Hopper has fp8, Turing no bfloat16."""

_INT8_ERROR = 0.03
"""More than int8 attention may lose on normally distributed numbers; about 0.013 is expected."""


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
        attended = self._attend(
            rotated(context_query, query, query_weight, attn.norm_q.weight, *positions, eps),
            rotated(context_key, key, key_weight, attn.norm_k.weight, *positions, eps),
            value.unflatten(-1, (-1, attn.head_dim)),
            attention_mask,
        ).flatten(2, 3)
        if encoder_hidden_states is None:
            return attended
        context = encoder_hidden_states.shape[1]
        return attn.to_out[0](attended[:, context:]), attn.to_add_out(attended[:, :context])

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """[B, tokens, heads, size] each."""
        attended: torch.Tensor = dispatch_attention_fn(
            query, key, value, attn_mask=mask, backend=self._attention_backend, parallel_config=self._parallel_config
        )
        return attended


class Int8Processor(RotatedProcessor):
    """The same, with int8 products of queries and keys. It has no attention backend."""

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        attended: torch.Tensor = int8_attention(query, key, value, mask)
        return attended


def rotate_in_one_pass(transformer: Any, processor: type[RotatedProcessor] = RotatedProcessor) -> None:
    """Give every block a `processor`. Call it before an attention backend is chosen."""
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.attn.set_processor(processor())


def int8_attention_works(transformer: Any, device: torch.device | str) -> bool:
    """Whether a device is of a kind that multiplies int8, and the kernel's numbers are right there.

    It tries: no such card was there when the kernel was written. If that fails, a warning in the log says so.
    """
    device, size = torch.device(device), transformer.config.attention_head_dim
    if device.type != "cuda" or torch.version.hip is not None or find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(device)[0] not in _INT8_CAPABILITIES:
        return False
    if size not in _INT8_HEADS or transformer.dtype == torch.float32:
        return False
    try:
        error = int8_attention_error(device, size)
    except Exception as failure:  # a toolchain can fail in any way; PyTorch's own attention always works
        lines = str(failure).strip().splitlines() or [type(failure).__name__]
        logger.warning("Attention stays in 16 bits, which is slower: its int8 kernel failed (%s).", lines[0])
        return False
    if error < _INT8_ERROR:
        return True
    logger.warning("Attention stays in 16 bits, which is slower: its int8 kernel is wrong here by %.2g.", error)
    return False


def int8_attention_error(device: torch.device, size: int, tokens: int = 300) -> float:
    """||int8 - exact|| / ||exact|| of `int8_attention` on drawn numbers: keys that have much in common, and a bias."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, tokens, 2, size, generator=draw).bfloat16().to(device) for _ in range(3))
    key = key + 4
    bias = strength_bias([tokens // 3], [2.0], tokens)
    assert bias is not None
    exact = exact_attention(query, key, value, bias.to(device))
    return float((int8_attention(query, key, value, bias.to(device)).float() - exact).norm() / exact.norm())


def exact_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """What `int8_attention` comes near to, in float32."""
    query, key, value = (part.float().transpose(1, 2) for part in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)
