"""Models with random weights, of full size or smaller, for benchmarks without the released weights.

Classes, shapes and dtypes are those of a loaded model; the pictures are meaningless.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from uso.config import ModelConfig
from uso.forecast.empty_model import empty_pipeline
from uso.pipeline.pipeline import USOPipeline


def random_pipeline(
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    fill_device: torch.device | str | None = None,
    changes: dict[str, dict[str, Any]] | None = None,
    without: Collection[str] = (),
) -> USOPipeline:
    """A pipeline of a model's architecture with random weights and no tokenizers (prompts are given as embeddings).

    Args:
        device: where the weights end up.
        fill_device: where the numbers are drawn; a GPU draws twelve billion in seconds, a CPU in minutes.
        changes: see `empty_pipeline`.
        without: components to leave out.
    """
    pipeline = empty_pipeline(config, dtype, changes)
    pipeline.register_modules(**dict.fromkeys(without))
    draw = torch.Generator(fill_device or device).manual_seed(0)
    with pipeline.exchanged.stock():
        for module in pipeline.components.values():
            if isinstance(module, nn.Module):
                fill(module, torch.device(device), draw)
    return pipeline


def fill(module: nn.Module, device: torch.device, draw: torch.Generator) -> None:
    """Draw every parameter: matrices scaled to preserve the size of signals, norms 1, biases 0."""
    drawn: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for leaf, parameter in part._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in drawn:
                value = _draw(parameter, leaf, draw).to(device)
                drawn[id(parameter)] = nn.Parameter(value, requires_grad=False)
            part._parameters[leaf] = drawn[id(parameter)]
        for leaf, buffer in part._buffers.items():
            part._buffers[leaf] = None if buffer is None else buffer.to(device)


def _draw(parameter: torch.Tensor, leaf: str, draw: torch.Generator) -> torch.Tensor:
    shape, dtype, where = parameter.shape, parameter.dtype, draw.device
    if parameter.dim() < 2:
        return (torch.ones if leaf == "weight" else torch.zeros)(shape, dtype=dtype, device=where)
    fan_in = parameter[0].numel()
    return torch.randn(shape, dtype=dtype, device=where, generator=draw).mul_(fan_in**-0.5)
