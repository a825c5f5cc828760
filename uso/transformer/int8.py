"""int8 matrix products for the transformer's blocks: `--speed fast` (some cards use `uso.transformer.fp8` instead).

A linear layer becomes `Int8Linear`: int8 weights with one scale per output channel, activations rounded to int8 at run
time with one scale per token, exact sums in int32, then scale and bias in float32. The weights come from a loaded
transformer with its LoRA already folded in; the caller decides when to use it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from uso.transformer.modulation import modulation_owners
from uso.transformer.operators import INT8_LARGEST as LARGEST
from uso.transformer.operators import TINY

logger = logging.getLogger(__name__)

_CUDA_ROWS = 17
"""The fewest rows that `torch._int_mm` takes on CUDA."""

_CUDA_MULTIPLE = 16
"""Widths must be a multiple of this for fp8 (`torch._scaled_mm`), and of 8 for int8 (`torch._int_mm`)."""

_BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")

_CUDA_CAPABILITY = (7, 5)
"""Turing: the first cards whose tensor cores multiply int8 through cuBLAS."""


def can_quantize(device: torch.device | str) -> str | None:
    """Why a device cannot run int8 products, in a sentence; None if it can."""
    device = torch.device(device)
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"int8 matrix products need a CUDA device (or a CPU); this is {device.type}."
    if torch.version.hip is not None:
        return "int8 matrix products have not been tested on this kind of card (ROCm)."
    capability = torch.cuda.get_device_capability(device)
    if capability < _CUDA_CAPABILITY:
        found, needed = (".".join(map(str, version)) for version in (capability, _CUDA_CAPABILITY))
        return (
            f"int8 matrix products need compute capability {needed}; {torch.cuda.get_device_name(device)} has {found}."
        )
    return None


def row_scales(values: torch.Tensor) -> torch.Tensor:
    """float32 [M, K] -> [M, 1]: the value of one int8 step in each row."""
    return values.abs().amax(dim=1, keepdim=True).clamp_min(TINY) / LARGEST


def quantize_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, K] -> int8 [M, K] and float32 scales [M, 1]; `scale * quantized` is within half a scale of each value."""
    values = rows.float()
    scales = row_scales(values)
    return (values / scales).round().clamp(-LARGEST, LARGEST).to(torch.int8), scales


class QuantizedLinear(nn.Module):
    """A linear layer whose weights are a quantized `weight`, [out, in], and a `scale`, [out]; the bias stays."""

    weight: nn.Parameter
    scale: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, weight: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        bias = linear.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8Linear(QuantizedLinear):
    """A linear layer whose product runs in int8.

    Scales have the dtype of the original weights. They are rounded to it before the weights are divided by them, so
    casting the whole model changes no number.
    """

    def __init__(self, linear: nn.Linear) -> None:
        values = linear.weight.detach().to(torch.float32, copy=True)
        scale = row_scales(values).to(linear.weight.dtype)
        quantized = values.div_(scale.float()).round_().clamp_(-LARGEST, LARGEST)
        super().__init__(linear, quantized.to(torch.int8), scale.flatten())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of the inputs."""
        rows, row_scales = quantize_rows(inputs.reshape(-1, self.in_features))
        count = rows.shape[0]
        if count < _CUDA_ROWS:  # on every device alike; rows of zeros affect no other row
            rows = nn.functional.pad(rows, (0, 0, 0, _CUDA_ROWS - count))
        sums = torch._int_mm(rows, self.weight.t())[:count]
        outputs = sums.float() * row_scales * self.scale.float()
        if self.bias is not None:
            outputs = outputs + self.bias.float()
        return outputs.to(inputs.dtype).reshape(*inputs.shape[:-1], self.out_features)


@dataclass(frozen=True)
class QuantizeReport:
    """What `quantize_blocks` did."""

    layers: int
    """Linear layers that changed."""
    kept: tuple[str, ...]
    """Names of layers in the blocks that did not change, because their widths suit neither int8 nor fp8 products."""
    bytes_before: int
    bytes_after: int
    """Of the layers that changed."""


@torch.no_grad()
def quantize_blocks(transformer: Any, layer_class: Callable[[nn.Linear], nn.Module] = Int8Linear) -> QuantizeReport:
    """Replace every attention and MLP layer of a transformer's blocks by `layer_class`, in place, one after another.

    Call it after the LoRA is folded in and before blocks are compiled or streamed. Modulation, norms, and the
    projections into and out of the transformer stay as they are. Works on any device, including `meta`.

    Args:
        transformer: diffusers' `FluxTransformer2DModel`; it can no longer be saved as a stock one afterwards.
        layer_class: makes the new layer from a linear one.
    """
    modulation = {id(owner.linear) for owner in modulation_owners(transformer)}
    found: list[tuple[str, nn.Module, str, nn.Linear]] = []
    for path, owner in transformer.named_modules():
        if path.startswith(_BLOCKS):
            for leaf, layer in owner.named_children():
                if isinstance(layer, nn.Linear) and id(layer) not in modulation:
                    found.append((f"{path}.{leaf}", owner, leaf, layer))
    kept, layers, before, after = [], 0, 0, 0
    with torch.inference_mode(False):
        while found:
            name, owner, leaf, layer = found.pop(0)
            if layer.in_features % _CUDA_MULTIPLE or layer.out_features % _CUDA_MULTIPLE:
                kept.append(name)
                continue
            replacement = layer_class(layer)
            owner.register_module(leaf, replacement)
            layers, before, after = layers + 1, before + _bytes(layer), after + _bytes(replacement)
    report = QuantizeReport(layers, tuple(kept), before, after)
    logger.info(
        "%d layers of the blocks are quantized: %.1f GiB instead of %.1f.", layers, after / 2**30, before / 2**30
    )
    return report


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
