"""The optimizer, its learning rate, and the running mean of the weights."""

import contextlib
import importlib
import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from uso.errors import ConfigError
from uso.training.config import OptimizerConfig
from uso.training.plugins import find

_STATE_BYTES = {"adamw": 8, "adamw8bit": 2}

_EMA_START = 10
"""The running mean follows faster at first: its decay in step n is at most (1 + n) / (10 + n)."""


def check_optimizer(config: OptimizerConfig, device: torch.device) -> None:
    """Refuse an optimizer that this machine cannot run.

    Raises:
        ConfigError: with what to install or choose.
    """
    if ":" in config.kind:
        find("optimizer", config.kind)
    if config.kind != "adamw8bit":
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "optimizer.kind adamw8bit needs the package bitsandbytes, which is not installed: pip install "
            "bitsandbytes; or choose optimizer.kind=adamw."
        )
    if device.type != "cuda":
        raise ConfigError(f"optimizer.kind adamw8bit needs a CUDA device; this is {device.type}. Choose adamw.")


def state_bytes(config: OptimizerConfig) -> int:
    """Bytes that an optimizer keeps per parameter; of a `module:function`, its `state_bytes` if it has any."""
    if ":" in config.kind:
        return int(getattr(find("optimizer", config.kind), "state_bytes", _STATE_BYTES["adamw"]))
    return _STATE_BYTES[config.kind]


def make_optimizer(config: OptimizerConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that a config names."""
    if ":" in config.kind:
        own: torch.optim.Optimizer = find("optimizer", config.kind)(list(parameters), config)
        return own
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
    """Of a step counted from 0, in a run of `steps`."""
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
        taken = [parameters[name].detach().to(mean) for name, mean in self.values.items()]
        torch._foreach_lerp_(list(self.values.values()), taken, 1 - decay)


@contextlib.contextmanager
def showing(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
    """Inside, parameters hold other values, such as their running mean; None keeps their own."""
    if values is None:
        yield
        return
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = values[name].to(parameter)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]
