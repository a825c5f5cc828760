"""int8 matrix products for the transformer's blocks: `--speed fast`.

A linear layer becomes `Int8Linear`: int8 weights with one scale per output channel, activations rounded to int8 at run
time with one scale per token, products summed exactly in int32, then scaled and biased in float32. It loads nothing
and decides nothing: the folded weights come from a transformer that is loaded, and who calls it chose the level.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

LARGEST = 127
"""int8 without -128, so that the range is symmetric."""

_TINY = 1e-12
"""Least scale: a row of zeros is divided by it instead of by zero."""

_CUDA_ROWS = 17
"""`torch._int_mm` on CUDA takes no fewer rows."""

_CUDA_MULTIPLE = 8
"""... and widths that are a multiple of this."""

_CUDA_CAPABILITY = (7, 5)
"""Turing, the first cards that multiply int8 in their tensor cores through cuBLAS."""


def can_quantize(device: torch.device | str) -> str | None:
    """Why int8 products do not run on a device, in a sentence; None if they do."""
    device = torch.device(device)
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"int8 matrix products need a CUDA device (or a CPU); this is {device.type}."
    if torch.version.hip is not None:
        return "int8 matrix products were never tried on this kind of card (ROCm)."
    capability = torch.cuda.get_device_capability(device)
    if capability < _CUDA_CAPABILITY:
        found, needed = (".".join(map(str, version)) for version in (capability, _CUDA_CAPABILITY))
        return (
            f"int8 matrix products need compute capability {needed}; {torch.cuda.get_device_name(device)} has {found}."
        )
    return None


def quantize_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, K] -> int8 [M, K] and float32 scales [M, 1], so that `scale * quantized` is within half a scale of a row."""
    values = rows.float()
    scales = values.abs().amax(dim=1, keepdim=True).clamp_min(_TINY) / LARGEST
    return (values / scales).round().clamp(-LARGEST, LARGEST).to(torch.int8), scales


class Int8Linear(nn.Module):
    """A linear layer whose product runs in int8.

    Scales have the dtype of the weights they stand for: rounded to it before the weights are divided by them, so that
    nothing is lost, and a cast of the whole model changes no number.
    """

    weight: nn.Parameter
    scale: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        scale = quantize_rows(weight)[1].to(weight.dtype)
        quantized = (weight.float() / scale.float()).round().clamp(-LARGEST, LARGEST).to(torch.int8)
        self.weight = nn.Parameter(quantized, requires_grad=False)
        """int8 [out, in]."""
        self.scale = nn.Parameter(scale.flatten(), requires_grad=False)
        """[out]."""
        bias = linear.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of the inputs."""
        rows, row_scales = quantize_rows(inputs.reshape(-1, self.in_features))
        count = rows.shape[0]
        if count < _CUDA_ROWS:  # the same on every device; rows of zeros change no other row
            rows = nn.functional.pad(rows, (0, 0, 0, _CUDA_ROWS - count))
        sums = torch._int_mm(rows, self.weight.t())[:count]
        outputs = sums.float() * row_scales * self.scale.float()
        if self.bias is not None:
            outputs = outputs + self.bias.float()
        return outputs.to(inputs.dtype).reshape(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
