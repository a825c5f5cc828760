"""Drawn samples from shards, as the parts read them: pixels by the number of a step, captions, held-out pictures."""

from pathlib import Path

import numpy as np
import torch

from tools.demo.shards.arrays import HOST, to_pixels
from tools.demo.shards.shards import Shards
from tools.demo.world.triplets import Miniature
from uso.errors import ConfigError
from uso.training.losses.seeds import generator

HELD_OUT = 2_000_000
"""Number of the first sample of the split `seen` that measures a part; nothing is trained on that split."""

_COUNT = 64


def open_samples(folder: Path) -> Shards:
    """Shards of single pictures.

    Raises:
        ConfigError: there are none, or they hold triplets.
    """
    shards = Shards.open(folder)
    if shards.kind != "samples":
        raise ConfigError(f"{folder} holds {shards.kind}, not samples. Make them with --form samples.")
    return shards


def pick(seed: int, purpose: str, step: int, batch: int, count: int) -> list[int]:
    """Which of `count` samples a step reads; the same for the same step."""
    return [int(number) for number in torch.randint(count, (batch,), generator=generator(seed, purpose, step))]


def pixels_of(shards: Shards, numbers: list[int], device: torch.device = HOST) -> torch.Tensor:
    return to_pixels(np.stack([shards.pixels(number)[0] for number in numbers]), device)


def held_out(size: int, device: torch.device = HOST) -> torch.Tensor:
    """64 new pictures of seen subjects, in seen styles and plain, which no part learns from: [64, 3, size, size] in
    [-1, 1]."""
    data = Miniature(size=size, split="seen")
    return to_pixels(np.stack([data.sample(HELD_OUT + number).picture for number in range(_COUNT)]), device)
