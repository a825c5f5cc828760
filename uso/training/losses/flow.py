"""Rectified flow: which noise levels are drawn, what the network is shown, what it should say.

`x_t = (1 - t) x0 + t eps`, and the velocity should be `eps - x0` (arXiv 2508.18966; black-forest-labs/flux has the same
line from picture to noise). Pure functions on tensors; the network's arithmetic is the pipeline's.
"""

import torch

from uso.pipeline.schedule import schedule_mu, shifted
from uso.training.config import FlowConfig

_LEAST = 1e-5
"""Distance that levels keep from 0 and 1, where the shift has no value."""


def draw_levels(config: FlowConfig, count: int, height: int, width: int, draw: torch.Generator) -> torch.Tensor:
    """Noise levels in (0, 1): [count], float32 on the CPU.

    Args:
        height, width: the pictures', in pixels; FLUX's shift depends on their number of tokens.
    """
    if config.sampling == "uniform":
        levels = torch.rand(count, generator=draw)
    else:
        levels = torch.sigmoid(config.mean + config.deviation * torch.randn(count, generator=draw))
    levels = levels.clamp(_LEAST, 1 - _LEAST)
    return levels if config.shift is None else shifted(levels, schedule_mu(config.shift, height, width))


def noised(clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """What the network is shown: [B, ...]; levels [B]."""
    share = levels.to(clean).view(-1, *[1] * (clean.dim() - 1))
    return (1 - share) * clean + share * noise


def target_velocity(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return noise - clean


def clean_estimate(noisy: torch.Tensor, velocity: torch.Tensor, level: float) -> torch.Tensor:
    """The picture that a velocity at a noise level points to: `x_t - t v`."""
    return noisy - level * velocity
