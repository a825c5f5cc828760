"""The running mean of the weights, and the learning rate."""

import pytest
import torch

from uso.training.config import OptimizerConfig
from uso.training.loop.optimizer import RunningMean, learning_rate


def test_the_running_mean_follows_every_parameter_by_its_name() -> None:
    """Catches means that are given to each other, and another rounding than that of one after the other."""
    start = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    now = {"b": torch.full((2, 2), 0.3), "a": torch.full((3,), 0.7)}
    mean = RunningMean(start, decay=0.9)
    mean.update(now, step=1000)
    assert all(torch.equal(mean.values[name], start[name].lerp(now[name], 1 - 0.9)) for name in start)


def test_learning_rate_rises_and_falls() -> None:
    """Catches a first step at the full rate, and a cosine that ends anywhere but at 0."""
    config = OptimizerConfig(lr=1.0, warm_up=4, decay="cosine")
    rates = [learning_rate(config, step, 14) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.5)
    assert rates[14] == pytest.approx(0.0, abs=1e-9)
    assert learning_rate(OptimizerConfig(lr=1.0), 10**6, 10) == 1.0


def test_running_mean_follows_fast_at_first() -> None:
    """Catches a mean that is still the drawn weights after a short run."""
    weight = torch.zeros(1)
    mean = RunningMean({"w": weight}, 0.999)
    weight.fill_(1.0)
    mean.update({"w": weight}, 0)
    assert float(mean.values["w"]) == pytest.approx(0.9)
    mean.values["w"].zero_()
    mean.update({"w": weight}, 10**6)
    assert float(mean.values["w"]) == pytest.approx(0.001)
