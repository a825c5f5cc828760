"""The running mean of the weights, and optimizers of one's own."""

import torch

from uso.training.loop.optimizer import RunningMean


def test_the_running_mean_follows_every_parameter_by_its_name() -> None:
    """Catches means that are given to each other, and another rounding than that of one after the other."""
    start = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    now = {"b": torch.full((2, 2), 0.3), "a": torch.full((3,), 0.7)}
    mean = RunningMean(start, decay=0.9)
    mean.update(now, step=1000)
    assert all(torch.equal(mean.values[name], start[name].lerp(now[name], 1 - 0.9)) for name in start)
