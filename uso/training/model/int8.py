"""A frozen base in int8 that gradients pass through: weights in 8 bits, products in the dtype of the activations.

What `--speed fast` does (`uso.transformer.int8`) rounds activations too, and rounding has no gradient. Here only
the weights are rounded, one scale per output channel, and brought back for each product, forwards and backwards.
"""

from typing import Any

import torch

from uso.pipeline.pipeline import USOPipeline
from uso.transformer.int8 import Int8Linear, QuantizeReport, quantize_blocks


class _Product(torch.autograd.Function):
    """`inputs @ (scale * weight).T`; keeps the int8 weight for the way back, and no activations."""

    @staticmethod
    def forward(context: Any, inputs: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(weight, scale)
        return inputs @ _full(weight, scale, inputs.dtype).t()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight, scale = context.saved_tensors
        (gradient,) = gradients
        return gradient @ _full(weight, scale, gradient.dtype), None, None


def _full(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return weight.to(dtype) * scale.to(dtype)[:, None]


class FrozenInt8Linear(Int8Linear):
    """A linear layer with int8 weights; inputs are not rounded, so the layer is linear and has a gradient."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of the inputs."""
        output: torch.Tensor = _Product.apply(inputs, self.weight, self.scale)
        return output if self.bias is None else output + self.bias.to(output.dtype)


def quantize_base(pipeline: USOPipeline) -> QuantizeReport:
    """Make the linear layers of a pipeline's blocks, modulation included, int8 in place; before any LoRA is put in."""
    report = quantize_blocks(pipeline.transformer, FrozenInt8Linear)
    for layer in pipeline.exchanged.modulation.layers:
        layer.linear = FrozenInt8Linear(layer.linear)  # type: ignore[assignment]
    return report
