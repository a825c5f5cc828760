"""int8 matrix products for the transformer's blocks: `--speed fast` (on some cards `uso.transformer.fp8` instead).

A linear layer becomes `Int8Linear`: int8 weights with one scale per output channel, activations rounded to int8 at run
time with one scale per token, products summed exactly in int32, then scaled and biased in float32. It loads nothing
and decides nothing: the folded weights come from a transformer that is loaded, and who calls it chose the level.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from uso.transformer.modulation import modulation_owners
from uso.transformer.operators import TINY

logger = logging.getLogger(__name__)

LARGEST = 127
"""int8 without -128, so that the range is symmetric."""

_CUDA_ROWS = 17
"""`torch._int_mm` on CUDA takes no fewer rows."""

_CUDA_MULTIPLE = 16
"""... and widths that are a multiple of 8; `torch._scaled_mm`, which fp8 runs in, of this."""

_BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")

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


def row_scales(values: torch.Tensor) -> torch.Tensor:
    """float32 [M, K] -> [M, 1]: what int8's range stands for in each row."""
    return values.abs().amax(dim=1, keepdim=True).clamp_min(TINY) / LARGEST


def quantize_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, K] -> int8 [M, K] and float32 scales [M, 1], so that `scale * quantized` is within half a scale of a row."""
    values = rows.float()
    scales = row_scales(values)
    return (values / scales).round().clamp(-LARGEST, LARGEST).to(torch.int8), scales


class QuantizedLinear(nn.Module):
    """What is left of a linear layer whose weights became `weight`, [out, in], and `scale`, [out]; its bias stays."""

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

    Scales have the dtype of the weights they stand for: rounded to it before the weights are divided by them, so that
    nothing is lost, and a cast of the whole model changes no number.
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
        if count < _CUDA_ROWS:  # the same on every device; rows of zeros change no other row
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
    """Those of the blocks that did not, by name: their widths do not suit the products of int8 and fp8."""
    bytes_before: int
    bytes_after: int
    """Of the layers that changed."""


@torch.no_grad()
def quantize_blocks(transformer: Any, layer_class: Callable[[nn.Linear], nn.Module] = Int8Linear) -> QuantizeReport:
    """Make every attention and MLP layer of a transformer's blocks int8 (or another), in place and one after another.

    To be called after LoRA weights are folded, and before blocks are compiled or streamed. Modulation, the projections
    into and out of the transformer and all norms stay as they are. Works on any device, `meta` too.

    Args:
        transformer: diffusers' `FluxTransformer2DModel`; it can no longer be saved as a stock one afterwards.
        layer_class: what a layer becomes.
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
        "%d layers of the blocks are quantized now: %.1f GiB instead of %.1f.", layers, after / 2**30, before / 2**30
    )
    return report


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
