"""Custom operators behind `--speed fast`: `gelu_rows` for fp8 layers, `rotated` and `int8_attention` for attention.

Each has a plain PyTorch form, the shapes of its result for the compiler, and on CUDA the Triton kernel of
`uso.transformer.kernels`. That module is imported at the first call on a GPU, so importing this one needs no Triton.
"""

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import nn

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max

TINY = 1e-12
"""The least that a row's largest number counts as, so that a row of zeros is not divided by zero."""

QUERY_BLOCK, KEY_BLOCK = 128, 64
"""Tokens that share a scale in `int8_attention`: as many as its kernel takes at once."""

INT8_LARGEST = 127
"""int8 without -128, so that the range is symmetric."""


def quantize_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, K] -> float8 [M, K] and float32 scales [M, 1]; `scale * quantized` keeps three bits of mantissa."""
    values = rows.float()
    largest = values.abs().amax(dim=1, keepdim=True).clamp_min(TINY)
    return (values * (LARGEST / largest)).to(FP8), largest / LARGEST


@torch.library.custom_op("uso::gelu_rows", mutates_args=())
def gelu_rows(hidden: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """`quantize_rows` of [before, gelu(hidden)], one scale for both: [M, K], [M, P] -> float8 [M, P + K], [M, 1].

    GELU is the tanh form, as in FLUX. On CUDA one kernel reads every number once.
    """
    values = nn.functional.gelu(hidden.float(), approximate="tanh")
    return quantize_rows(values if before is None else torch.cat([before.float(), values], dim=1))


@gelu_rows.register_fake
def _(hidden: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width = hidden.shape[0], hidden.shape[1] + (0 if before is None else before.shape[1])
    return hidden.new_empty(rows, width, dtype=FP8), hidden.new_empty(rows, 1, dtype=torch.float32)


@gelu_rows.register_kernel("cuda")
def _(hidden: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    from uso.transformer import kernels  # imported here: only CUDA builds have Triton

    with torch.cuda.device(hidden.device):  # Triton launches on the current device
        return kernels.gelu_rows(hidden, before)


@torch.library.custom_op("uso::rotated", mutates_args=())
def rotated(
    context: torch.Tensor | None,
    picture: torch.Tensor,
    context_weight: torch.Tensor | None,
    picture_weight: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """Queries or keys of context and picture, [B, tokens, heads * size] each -> [B, all tokens, heads, size].

    Args:
        context: None where context and picture are already one sequence.
        context_weight, picture_weight: weights of their RMS norms, [size].
        cosines, sines: [all tokens, size], float32; both numbers of a pair share one angle.
    """
    parts = [(context, context_weight), (picture, picture_weight)]
    normed = [
        nn.functional.rms_norm(part.unflatten(-1, (-1, len(weight))), (len(weight),), weight, eps)
        for part, weight in parts
        if part is not None and weight is not None
    ]
    turned: torch.Tensor = apply_rotary_emb(torch.cat(normed, dim=1), (cosines, sines), sequence_dim=1)
    return turned


@rotated.register_fake
def _(
    context: torch.Tensor | None,
    picture: torch.Tensor,
    context_weight: torch.Tensor | None,
    picture_weight: torch.Tensor,
    *others: Any,
) -> torch.Tensor:
    batch, tokens, width = picture.shape
    size = picture_weight.shape[0]
    return picture.new_empty(batch, tokens + (0 if context is None else context.shape[1]), width // size, size)


@rotated.register_kernel("cuda")
def _(context: torch.Tensor | None, picture: torch.Tensor, *others: Any) -> torch.Tensor:
    from uso.transformer import kernels  # imported here: only CUDA builds have Triton

    with torch.cuda.device(picture.device):  # Triton launches on the current device
        return kernels.rotated(context, picture, *others)


@torch.library.custom_op("uso::int8_attention", mutates_args=())
def int8_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Attention with int8 products of queries and keys: [B, tokens, heads, size] each -> the same, in value's dtype.

    After SageAttention (arXiv:2410.02367). Queries and keys are rounded with one scale for each block of tokens and
    head. Before, the keys' mean over all tokens is subtracted: it adds the same to all scores of a query, so softmax
    does not see it, but it would take up most of the range. Softmax is float32. Its weights and the values are
    multiplied in bfloat16, with float32 sums.

    Args:
        bias: added to every query's scores, by token: [1, 1, 1, tokens].
    """
    queries, query_scales = _rounded_blocks(query.float() * query.shape[-1] ** -0.5, QUERY_BLOCK)
    centred = key.float() - key.mean(dim=1, keepdim=True, dtype=torch.float32)
    keys, key_scales = _rounded_blocks(centred, KEY_BLOCK)
    products = torch.einsum("bqhd,bkhd->bhqk", queries, keys)  # exact: whole numbers below 2**24
    scores = products * query_scales.permute(0, 2, 1, 3) * key_scales.permute(0, 2, 3, 1)
    if bias is not None:
        scores = scores + bias.float()
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    sums = torch.einsum("bhqk,bkhd->bqhd", weights.bfloat16().float(), value.bfloat16().float())
    return (sums / weights.sum(dim=-1).transpose(1, 2).unsqueeze(-1)).to(value.dtype).contiguous()


def _rounded_blocks(values: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, tokens, heads, size] -> whole numbers to `INT8_LARGEST`, and scales [B, tokens, heads, 1]."""
    tokens = values.shape[1]
    blocks = nn.functional.pad(values, (0, 0, 0, 0, 0, -tokens % block)).unflatten(1, (-1, block))
    scales = blocks.abs().amax(dim=(2, 4), keepdim=True).clamp_min(TINY) / INT8_LARGEST
    rounded = (blocks / scales).round()
    return rounded.flatten(1, 2)[:, :tokens], scales.expand_as(blocks[..., :1]).flatten(1, 2)[:, :tokens]


@int8_attention.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return value.new_empty(query.shape)


@int8_attention.register_kernel("cuda")
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    from uso.transformer import kernels  # imported here: only CUDA builds have Triton

    with torch.cuda.device(query.device):  # Triton launches on the current device
        return kernels.int8_attention(query, key, value, bias)
