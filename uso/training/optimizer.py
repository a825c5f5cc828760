"""The optimizer, its learning rate, and the running mean of the weights."""

import importlib
import importlib.util
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from uso.errors import ConfigError
from uso.training.config import OptimizerConfig

_EMA_START = 10
"""The running mean follows faster at first: its decay in step n is at most (1 + n) / (10 + n)."""


def check_optimizer(config: OptimizerConfig, device: torch.device) -> None:
    """Refuse an optimizer that this machine cannot run.

    Raises:
        ConfigError: with what to install or choose.
    """
    if config.kind != "adamw8bit":
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "optimizer.kind adamw8bit needs the package bitsandbytes, which is not installed: pip install "
            "bitsandbytes; or choose optimizer.kind=adamw."
        )
    if device.type != "cuda":
        raise ConfigError(f"optimizer.kind adamw8bit needs a CUDA device; this is {device.type}. Choose adamw.")


def make_optimizer(config: OptimizerConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    options: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.kind == "adamw8bit":
        eight_bit: torch.optim.Optimizer = importlib.import_module("bitsandbytes.optim").AdamW8bit(
            list(parameters), **options
        )
        return eight_bit
    return torch.optim.AdamW(list(parameters), **options)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Of a step counted from 0, in a run of so many."""
    if step < config.warm_up:
        return config.lr * (step + 1) / config.warm_up
    if config.decay == "constant":
        return config.lr
    share = (step - config.warm_up) / max(1, steps - config.warm_up)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class RunningMean:
    """An exponential mean of parameters, in float32."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, torch.Tensor], step: int) -> None:
        """Take in the parameters after step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (_EMA_START + step))
        for name, mean in self.values.items():
            mean.lerp_(parameters[name].detach().to(mean), 1 - decay)
