"""Triton kernels of the operators in `uso.transformer.operators`. Imported on CUDA only."""

import torch
import triton
import triton.language as tl

_FP8 = torch.float8_e4m3fn
_ROW_WARPS = 8
_HEAD_WARPS = 4


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
