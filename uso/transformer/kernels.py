"""Triton kernels of the operators in `uso.transformer.operators`. Imported on CUDA only."""

import torch
import triton
import triton.language as tl

from uso.transformer.operators import KEY_BLOCK, QUERY_BLOCK

_FP8 = torch.float8_e4m3fn
_ROW_WARPS = 8
_HEAD_WARPS = 4
_ATTENTION_WARPS = 8
_ATTENTION_STAGES = 3
"""Blocks of keys and values on their way: at size 128 they and the queries take 88 of the 99 KiB that Ada's programs
have, and Ampere's GeForce cards."""

_PRODUCTS = torch.bfloat16
"""What attention's weights and values are multiplied in."""

_LOG2_E = 1.4426950408889634
"""exp(x) is 2 ** (x * _LOG2_E), and cards have an instruction for powers of two."""


@triton.jit
def _gelu(values):  # type: ignore[no-untyped-def] # Triton reads annotations, here and below
    """The tanh form with the card's own tanh. Rounding to float8 hides its error, except near zero."""
    inner = 0.7978845608028654 * (values + 0.044715 * values * values * values)
    tanh = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=tl.float32, is_pure=True, pack=1)
    return 0.5 * values * (1.0 + tanh)


@triton.jit
def _gelu_rows(  # type: ignore[no-untyped-def]
    hidden,
    before,
    quantized,
    scales,
    hidden_width,
    before_width,
    hidden_stride,
    before_stride,
    HAS_BEFORE: tl.constexpr,
    BEFORE_BLOCK: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    TAIL_BLOCK: tl.constexpr,
):
    """A row of hidden is HEAD_BLOCK numbers and a tail. 448 and 1e-12 are `LARGEST` and `TINY` of `operators.py`."""
    row = tl.program_id(0).to(tl.int64)
    hidden += row * hidden_stride
    places = tl.arange(0, HEAD_BLOCK)
    tail_places = HEAD_BLOCK + tl.arange(0, TAIL_BLOCK)
    in_tail = tail_places < hidden_width
    head = _gelu(tl.load(hidden + places).to(tl.float32))
    tail = _gelu(tl.load(hidden + tail_places, mask=in_tail, other=0.0).to(tl.float32))
    largest = tl.maximum(tl.max(tl.abs(head), axis=0), tl.max(tl.abs(tail), axis=0))
    if HAS_BEFORE:
        first_places = tl.arange(0, BEFORE_BLOCK)
        in_first = first_places < before_width
        first = tl.load(before + row * before_stride + first_places, mask=in_first, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.max(tl.abs(first), axis=0))
    largest = tl.maximum(largest, 1e-12)
    factor = 448.0 / largest
    start = quantized + row * (before_width + hidden_width)
    if HAS_BEFORE:
        tl.store(start + first_places, (first * factor).to(tl.float8e4nv), mask=in_first)
    start += before_width
    tl.store(start + places, (head * factor).to(tl.float8e4nv))
    tl.store(start + tail_places, (tail * factor).to(tl.float8e4nv), mask=in_tail)
    tl.store(scales + row, largest / 448.0)


def gelu_rows(hidden: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """`operators.gelu_rows`, one row per program; each number is read once."""
    hidden, first = _rows(hidden), None if before is None else _rows(before)
    rows, width = hidden.shape
    before_width = 0 if first is None else first.shape[1]
    quantized = torch.empty(rows, before_width + width, dtype=_FP8, device=hidden.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=hidden.device)
    head = 2 ** (width.bit_length() - 1)
    _gelu_rows[(rows,)](
        hidden,
        hidden if first is None else first,
        quantized,
        scales,
        width,
        before_width,
        hidden.stride(0),
        0 if first is None else first.stride(0),
        HAS_BEFORE=first is not None,
        BEFORE_BLOCK=triton.next_power_of_2(max(before_width, 1)),
        HEAD_BLOCK=head,
        TAIL_BLOCK=triton.next_power_of_2(max(width - head, 1)),
        num_warps=_ROW_WARPS,
    )
    return quantized, scales


def _rows(values: torch.Tensor) -> torch.Tensor:
    """The same values, contiguous within each row."""
    return values if values.stride(-1) == 1 else values.contiguous()


@triton.jit
def _rotated(  # type: ignore[no-untyped-def]
    context,
    picture,
    context_weight,
    picture_weight,
    cosines,
    sines,
    outputs,
    context_tokens,
    tokens,
    width,
    eps,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Some heads of one token."""
    number = tl.program_id(0)
    sample, token = number // tokens, number % tokens
    heads = (tl.program_id(1) * HEADS + tl.arange(0, HEADS)) * SIZE
    sizes = tl.arange(0, SIZE)
    places = heads[:, None] + sizes[None, :]
    if token < context_tokens:
        row = (sample * context_tokens + token).to(tl.int64)
        values = tl.load(context + row * width + places).to(tl.float32)
        weight = tl.load(context_weight + sizes).to(tl.float32)
    else:
        row = (sample * (tokens - context_tokens) + token - context_tokens).to(tl.int64)
        values = tl.load(picture + row * width + places).to(tl.float32)
        weight = tl.load(picture_weight + sizes).to(tl.float32)
    values = values * tl.rsqrt(tl.sum(values * values, axis=1) / SIZE + eps)[:, None] * weight[None, :]
    left, right = tl.split(tl.reshape(values, (HEADS, SIZE // 2, 2)))
    pairs = token * SIZE + 2 * tl.arange(0, SIZE // 2)  # both numbers of a pair share one angle
    cosine, sine = tl.load(cosines + pairs)[None, :], tl.load(sines + pairs)[None, :]
    turned = tl.join(left * cosine - right * sine, right * cosine + left * sine)
    place = outputs + number.to(tl.int64) * width + places
    tl.store(place, tl.reshape(turned, (HEADS, SIZE)).to(outputs.dtype.element_ty))


def rotated(
    context: torch.Tensor | None,
    picture: torch.Tensor,
    context_weight: torch.Tensor | None,
    picture_weight: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """`operators.rotated`; each number is read once and written once."""
    picture = picture.contiguous()
    first = None if context is None else context.contiguous()
    batch, tokens, width = picture.shape
    context_tokens = 0 if first is None else first.shape[1]
    tokens += context_tokens
    size = picture_weight.shape[0]
    heads = width // size
    together = heads & -heads  # the largest power of two that divides them
    outputs = torch.empty(batch, tokens, heads, size, dtype=picture.dtype, device=picture.device)
    _rotated[(batch * tokens, heads // together)](
        picture if first is None else first,
        picture,
        picture_weight if context_weight is None else context_weight,
        picture_weight,
        cosines.contiguous(),
        sines.contiguous(),
        outputs,
        context_tokens,
        tokens,
        width,
        eps,
        HEADS=together,
        SIZE=size,
        num_warps=_HEAD_WARPS,
    )
    return outputs


@triton.jit
def _rounded_blocks(  # type: ignore[no-untyped-def]
    values,
    mean,
    rounded,
    scales,
    tokens,
    heads,
    factor,
    HAS_MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
    SIZE: tl.constexpr,
):
    """A block of tokens of one head. 127 and 1e-12 are `INT8_LARGEST` and `TINY` of `operators.py`."""
    block, head, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    numbers = block * BLOCK + tl.arange(0, BLOCK)
    sizes = tl.arange(0, SIZE)
    inside = numbers[:, None] < tokens
    rows = ((sample * tokens + numbers).to(tl.int64) * heads + head) * SIZE
    places = rows[:, None] + sizes[None, :]
    found = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
    if HAS_MEAN:
        found -= tl.load(mean + (sample * heads + head) * SIZE + sizes)[None, :]
        found = tl.where(inside, found, 0.0)
    found *= factor
    scale = tl.maximum(tl.max(tl.max(tl.abs(found), axis=1), axis=0), 1e-12) / 127.0
    found = found / scale
    found += tl.where(found >= 0, 0.5, -0.5)  # what follows cuts off
    tl.store(rounded + places, found.to(tl.int8), mask=inside)
    tl.store(scales + (sample * heads + head) * tl.num_programs(0) + block, scale)


def _in_blocks(
    values: torch.Tensor, mean: torch.Tensor | None, factor: float, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(values - mean) * factor, rounded: int8 [B, tokens, heads, size], and scales [B, heads, blocks], float32.

    Args:
        mean: [B, heads, size], float32.
    """
    values = values.contiguous()
    batch, tokens, heads, size = values.shape
    blocks = triton.cdiv(tokens, block)
    rounded = torch.empty_like(values, dtype=torch.int8)
    scales = torch.empty(batch, heads, blocks, dtype=torch.float32, device=values.device)
    _rounded_blocks[(blocks, heads, batch)](
        values,
        scales if mean is None else mean.contiguous(),
        rounded,
        scales,
        tokens,
        heads,
        factor,
        HAS_MEAN=mean is not None,
        BLOCK=block,
        SIZE=size,
        num_warps=_HEAD_WARPS,
    )
    return rounded, scales


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    queries,
    keys,
    values,
    query_scales,
    key_scales,
    bias,
    outputs,
    tokens,
    heads,
    HAS_BIAS: tl.constexpr,
    QUERY_BLOCK: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    SIZE: tl.constexpr,
):
    """A block of queries of one head, over all keys: softmax as it goes (FlashAttention, arXiv:2205.14135)."""
    block, head, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = (sample.to(tl.int64) * tokens * heads + head) * SIZE
    stride = heads * SIZE
    rows, columns, sizes = (
        block * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK),
        tl.arange(0, KEY_BLOCK),
        tl.arange(0, SIZE),
    )
    in_rows = rows[:, None] < tokens
    places = first + rows[:, None] * stride + sizes[None, :]
    query = tl.load(queries + places, mask=in_rows, other=0)
    query_scale = tl.load(query_scales + (sample * heads + head) * tl.num_programs(0) + block)
    key_scales += (sample * heads + head) * tl.cdiv(tokens, KEY_BLOCK)
    keys += first + columns[None, :] * stride + sizes[:, None]
    values += first + columns[:, None] * stride + sizes[None, :]
    largest = tl.full([QUERY_BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([QUERY_BLOCK], tl.float32)
    sums = tl.zeros([QUERY_BLOCK, SIZE], tl.float32)
    for start in range(0, tokens, KEY_BLOCK):
        inside = start + columns < tokens
        key = tl.load(keys, mask=inside[None, :], other=0)
        scale = query_scale * tl.load(key_scales)
        scores = tl.dot(query, key, out_dtype=tl.int32).to(tl.float32) * scale
        if HAS_BIAS:
            scores += tl.load(bias + start + columns, mask=inside, other=0.0)[None, :]
        scores = tl.where(inside[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - larger[:, None])
        shrunk = tl.exp2(largest - larger)
        total = total * shrunk + tl.sum(weights, axis=1)
        value = tl.load(values, mask=inside[:, None], other=0.0)
        sums = tl.dot(weights.to(value.dtype), value, sums * shrunk[:, None])
        largest = larger
        keys += KEY_BLOCK * stride
        values += KEY_BLOCK * stride
        key_scales += 1
    tl.store(outputs + places, (sums / total[:, None]).to(outputs.dtype.element_ty), mask=in_rows)


def int8_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """`operators.int8_attention`; scores and weights never go through memory."""
    batch, tokens, heads, size = query.shape
    queries, query_scales = _in_blocks(query, None, size**-0.5 * _LOG2_E, QUERY_BLOCK)
    keys, key_scales = _in_blocks(key, key.mean(dim=1, dtype=torch.float32), 1.0, KEY_BLOCK)
    outputs = torch.empty(query.shape, dtype=value.dtype, device=value.device)
    _attend[(triton.cdiv(tokens, QUERY_BLOCK), heads, batch)](
        queries,
        keys,
        value.to(_PRODUCTS).contiguous(),
        query_scales,
        key_scales,
        query_scales if bias is None else bias.flatten().float() * _LOG2_E,
        outputs,
        tokens,
        heads,
        HAS_BIAS=bias is not None,
        QUERY_BLOCK=QUERY_BLOCK,
        KEY_BLOCK=KEY_BLOCK,
        SIZE=size,
        num_warps=_ATTENTION_WARPS,
        num_stages=_ATTENTION_STAGES,
    )
    return outputs
