"""The Triton kernel behind `uso.fp8.gelu_rows`. Imported on a CUDA device alone."""

import torch
import triton
import triton.language as tl

from uso.fp8 import FP8

_WARPS = 8


@triton.jit
def _gelu_rows(  # type: ignore[no-untyped-def] # Triton reads annotations
    hidden,
    before,
    quantized,
    scales,
    hidden_width,
    before_width,
    hidden_stride,
    before_stride,
    HAS_BEFORE: tl.constexpr,
    HIDDEN_BLOCK: tl.constexpr,
    BEFORE_BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, HIDDEN_BLOCK)
    values = tl.load(hidden + row * hidden_stride + places, mask=places < hidden_width, other=0.0).to(tl.float32)
    # 0.5 x (1 + tanh(u)) is x sigmoid(2 u); u = sqrt(2 / pi) (x + 0.044715 x^3)
    values = values * tl.sigmoid(1.5957691216057308 * (values + 0.044715 * values * values * values))
    largest = tl.max(tl.abs(values), axis=0)
    if HAS_BEFORE:
        first_places = tl.arange(0, BEFORE_BLOCK)
        first = tl.load(before + row * before_stride + first_places, mask=first_places < before_width, other=0.0)
        first = first.to(tl.float32)
        largest = tl.maximum(largest, tl.max(tl.abs(first), axis=0))
    largest = tl.maximum(largest, 1e-12)
    factor = 448.0 / largest
    start = quantized + row * (before_width + hidden_width)
    if HAS_BEFORE:
        tl.store(start + first_places, (first * factor).to(tl.float8e4nv), mask=first_places < before_width)
    tl.store(start + before_width + places, (values * factor).to(tl.float8e4nv), mask=places < hidden_width)
    tl.store(scales + row, largest / 448.0)


def gelu_rows(hidden: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """See `uso.fp8.gelu_rows`; a row at a time, each number read once."""
    rows, width = hidden.shape
    first = 0 if before is None else before.shape[1]
    quantized = torch.empty(rows, first + width, dtype=FP8, device=hidden.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=hidden.device)
    if hidden.stride(1) != 1 or (before is not None and before.stride(1) != 1):
        hidden, before = hidden.contiguous(), None if before is None else before.contiguous()
    _gelu_rows[(rows,)](
        hidden,
        hidden if before is None else before,
        quantized,
        scales,
        width,
        first,
        hidden.stride(0),
        0 if before is None else before.stride(0),
        HAS_BEFORE=before is not None,
        HIDDEN_BLOCK=triton.next_power_of_2(width),
        BEFORE_BLOCK=triton.next_power_of_2(max(first, 1)),
        num_warps=_WARPS,
    )
    return quantized, scales
