"""Features of shards as arrays on disk."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.support.tiny_parts import SIDE, shards
from tools.demo.shards.arrays import HOST, Held, encoded, name_of, to_pixels
from tools.demo.shards.samples import CONTENT, STYLE
from tools.demo.shards.shards import Shards, make_shards
from tools.demo.world.triplets import Miniature


def test_arrays_are_made_once_and_go_on(tmp_path: Path) -> None:
    """Catches files that are made again, and slots that are swapped."""
    opened = Shards.open(shards(tmp_path / "data", "triplets"))
    calls: list[int] = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return pixels.mean(dim=(2, 3))

    arrays = encoded(opened, (STYLE, CONTENT), tmp_path / "arrays", encode, batch=5)
    assert calls == [5, 5, 5, 5, 4]
    again = encoded(opened, (STYLE, CONTENT), tmp_path / "arrays", encode, batch=5)
    assert len(calls) == 5 and arrays == again
    for place, slot in enumerate((STYLE, CONTENT)):
        expected = to_pixels(np.stack([opened.pixels(7)[slot]])).mean(dim=(2, 3))
        assert torch.allclose(again.take([(7, place)]), expected, atol=1e-3)


def test_arrays_that_a_device_holds_are_those_of_the_files(tmp_path: Path) -> None:
    """Catches samples beyond the first shard, and slots, that are mixed up on the way to a device."""
    data = tmp_path / "data"
    for _ in make_shards(data, Miniature(size=SIDE), "samples", 514):
        pass
    arrays = encoded(Shards.open(data), (0,), tmp_path / "arrays", lambda pixels: pixels.mean(dim=(2, 3)), batch=64)
    places = [(513, 0), (0, 0), (511, 0), (512, 0), (7, 0)]
    held = Held.of(arrays, 514, HOST)
    assert held.values.dtype == torch.float16 and held.values.shape == (514, 1, 3)
    assert torch.equal(held.take(places), arrays.take(places))
    assert arrays.near(HOST, 514) is arrays


def test_arrays_are_known_by_what_made_them(tmp_path: Path) -> None:
    """Catches features of other pictures, weights or settings under the same name; growing shards keep theirs."""
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    opened = Shards.open(shards(tmp_path / "a" / "data", "triplets", 2))
    more = Shards.open(shards(tmp_path / "b" / "data", "triplets", 3))
    name = name_of("latents", opened, (0, 2), module, 0.5)
    assert name.startswith("latents-data-") and name == name_of("latents", more, (0, 2), module, 0.5)
    for _ in make_shards(tmp_path / "c" / "data", Miniature(size=SIDE, seed=1), "triplets", 2):
        pass
    redrawn = Shards.open(tmp_path / "c" / "data")
    others = {
        name_of("latents", redrawn, (0, 2), module, 0.5),
        name_of("latents", opened, (0,), module, 0.5),
        name_of("latents", opened, (0, 2), other, 0.5),
        name_of("latents", opened, (0, 2), module, 0.25),
    }
    assert name not in others and len(others) == 4
