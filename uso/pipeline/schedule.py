"""The noise levels of a picture, with USO's released schedule rule.

A schedule is a list of sigmas from 1 (noise) to 0 (picture), one more than there are steps. A shift mu bends it towards
the noisy end: sigma' = e^mu / (e^mu + 1/sigma - 1), as in FLUX (black-forest-labs/flux, `sampling.py`).
"""

import math

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from uso.config import Schedule

# FLUX draws a line through (256 tokens, mu 0.5) and (4096 tokens, mu 1.15).
_BASE_TOKENS, _BASE_MU = 256, 0.5
_MAX_TOKENS, _MAX_MU = 4096, 1.15


def flux_mu(tokens: int) -> float:
    """FLUX's shift for a picture with that many tokens."""
    slope = (_MAX_MU - _BASE_MU) / (_MAX_TOKENS - _BASE_TOKENS)
    return slope * tokens + (_BASE_MU - slope * _BASE_TOKENS)


def schedule_mu(schedule: Schedule, height: int, width: int) -> float:
    """The shift mu of a named rule for a picture of height x width pixels; a number is its own mu.

    `uso` is FLUX's rule with `(W//8) * (H//8) // 256` as the number of tokens (64 instead of 4096). The released
    inference code computes it this way, so the known pictures of these weights do too. `flux` counts tokens correctly.
    """
    if schedule == "uso":
        return flux_mu((width // 8) * (height // 8) // 256)
    if schedule == "flux":
        return flux_mu((width // 16) * (height // 16))
    return float(schedule)


def shifted(sigmas: torch.Tensor, mu: float) -> torch.Tensor:
    """Noise levels in (0, 1], bent towards the noisy end by mu; same shape."""
    shift = math.exp(mu)
    return shift / (shift + (1 / sigmas - 1) ** 1.0)


def schedule_sigmas(schedule: Schedule, num_inference_steps: int, height: int, width: int) -> list[float]:
    """The sigma before each step (the scheduler adds the final 0), computed in float32 like the released code."""
    linear = torch.linspace(1, 0, num_inference_steps + 1)[:-1]
    sigmas: list[float] = shifted(linear, schedule_mu(schedule, height, width)).tolist()
    return sigmas


def set_schedule(
    scheduler: FlowMatchEulerDiscreteScheduler, schedule: Schedule, num_inference_steps: int, height: int, width: int
) -> torch.Tensor:
    """Set a scheduler's sigmas and return them: [num_inference_steps + 1], float32 on the CPU, from 1 to 0.

    The scheduler must not shift by itself (shift 1, no dynamic shifting). It keeps step state: use one per request.
    """
    scheduler.set_timesteps(sigmas=schedule_sigmas(schedule, num_inference_steps, height, width))
    sigmas: torch.Tensor = scheduler.sigmas
    return sigmas
