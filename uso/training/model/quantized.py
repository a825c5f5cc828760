"""A frozen base in 8 or 4 bits that gradients pass through: weights in few bits, products in the dtype of activations.

What `--speed fast` does (`uso.transformer.int8`) rounds activations too, and rounding has no gradient. Here only the
weights are rounded, and brought back for each product, forwards and backwards.
"""

import math
from typing import Any, Literal

import torch
from torch import nn

from uso.pipeline.pipeline import USOPipeline
from uso.transformer.int8 import Int8Linear, QuantizedLinear, QuantizeReport, quantize_blocks

Bits = Literal["int8", "nf4"]

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 values of NormalFloat 4 (arXiv 2305.14314, appendix E): quantiles of a normal distribution."""

_BLOCK = 64
"""Weights that share a scale in NF4, as in that paper."""


class _Product(torch.autograd.Function):
    """`inputs @ weight.T`; keeps the layer for the way back, and no activations."""

    @staticmethod
    def forward(context: Any, inputs: torch.Tensor, layer: Any) -> torch.Tensor:
        context.layer = layer
        return inputs @ layer.full(inputs.dtype).t()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        return gradient @ context.layer.full(gradient.dtype), None


def _linear(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = _Product.apply(inputs, layer)
    return output if layer.bias is None else output + layer.bias.to(output.dtype)


class FrozenInt8Linear(Int8Linear):
    """A linear layer with int8 weights; inputs are not rounded, so the layer is linear and has a gradient."""

    def full(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights: [out, in]."""
        return self.weight.to(dtype) * self.scale.to(dtype)[:, None]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of the inputs."""
        return _linear(self, inputs)


class FrozenNf4Linear(QuantizedLinear):
    """A linear layer with weights in NF4, two in a byte: [out, in / 2], and a scale for every 64: [out, in / 64]."""

    table: torch.Tensor
    """The two weights of every byte: [256, 2]."""

    def __init__(self, linear: nn.Linear) -> None:
        rows, columns = linear.weight.shape
        values = linear.weight.detach().float().view(rows, -1, math.gcd(columns, _BLOCK))
        scale = values.abs().amax(dim=-1).clamp_min(torch.finfo(torch.float16).tiny).to(linear.weight.dtype)
        levels = torch.tensor(NF4)
        between = ((levels[1:] + levels[:-1]) / 2).to(values.device)
        codes = torch.bucketize((values / scale.float()[..., None]).contiguous(), between).to(torch.uint8)
        high, low = codes.view(rows, -1, 2).unbind(-1)
        super().__init__(linear, high * 16 + low, scale)
        pairs = torch.cartesian_prod(levels, levels)
        self.register_buffer("table", pairs.to(linear.weight.device), persistent=False)

    def full(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights: [out, in]."""
        pairs = nn.functional.embedding(self.weight.int(), self.table.to(dtype))
        blocks = pairs.view(*self.scale.shape, -1) * self.scale.to(dtype)[..., None]
        return blocks.view(self.out_features, self.in_features)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of the inputs."""
        return _linear(self, inputs)


def quantize_base(pipeline: USOPipeline, bits: Bits = "int8") -> QuantizeReport:
    """Round the linear layers of a pipeline's blocks, modulation included, in place; before any LoRA is put in."""
    layer_class = FrozenInt8Linear if bits == "int8" else FrozenNf4Linear
    report = quantize_blocks(pipeline.transformer, layer_class)
    for layer in pipeline.exchanged.modulation.layers:
        layer.linear = layer_class(layer.linear)  # type: ignore[assignment]
    return report
