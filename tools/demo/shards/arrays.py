"""What encoders make of shards, as arrays on disk: one file per shard, encoded once, mapped when read.

An interrupted run continues with the existing files. Their names depend on the weights that made them and on what the
pictures are; several processes may fill one folder.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tools.demo.shards.shards import Shards, mapped
from tools.demo.training.prefetch import sent
from uso.pipeline.encoders import exact_convolutions
from uso.pipeline.latents import tensor_to_image

Encode = Callable[[torch.Tensor], torch.Tensor]
"""Pixels [B, 3, H, W] in [-1, 1] -> [B, ...], on one device."""

Places = Sequence[tuple[int, int]]
"""(index of a sample, slot) each."""

HOST = torch.device("cpu")

_HELD_SHARE = 0.25
"""Of a device's free memory, the most that one kind of feature may take."""

_HOST_BATCH, _DEVICE_BATCH = 16, 256
"""Pictures that are encoded at once."""


def can_hold(device: torch.device, size: int) -> bool:
    """Whether features of `size` bytes are to lie on a device: on a CUDA device that has room for them."""
    return device.type == "cuda" and size <= _HELD_SHARE * torch.cuda.mem_get_info(device)[0]


@dataclass(frozen=True)
class Arrays:
    """`arrays[index]`: [slots, ...], float16, of sample `index` of the shards."""

    folder: Path
    shard: int

    def __getitem__(self, index: int) -> np.ndarray:
        return mapped(_file(self.folder, index // self.shard))[index % self.shard]

    def take(self, places: Places) -> torch.Tensor:
        """[B, ...], float32, of (index, slot) each."""
        return torch.from_numpy(np.stack([self[index][slot] for index, slot in places])).float()

    def near(self, device: torch.device, count: int) -> "Arrays | Held":
        """Where `take` is quickest: all `count` samples on a CUDA device that has room for them, else these files."""
        return Held.of(self, count, device) if can_hold(device, count * self[0].nbytes) else self


@dataclass(frozen=True)
class Held:
    """Arrays that lie on a device as a whole."""

    values: torch.Tensor
    """[samples, slots, ...], float16."""

    @classmethod
    def of(cls, arrays: Arrays, count: int, device: torch.device) -> "Held":
        """The first `count` samples of arrays."""
        files = [mapped(_file(arrays.folder, number)) for number in range(-(-count // arrays.shard))]
        return cls(torch.cat([torch.from_numpy(np.array(file)).to(device) for file in files])[:count])

    def take(self, places: Places) -> torch.Tensor:
        """[B, ...], float32, of (index, slot) each, on the device."""
        index, slot = torch.tensor(places).T.to(self.values.device)
        return self.values[index, slot].float()


def encoded(
    shards: Shards,
    slots: tuple[int, ...],
    folder: Path,
    encode: Encode,
    *,
    device: torch.device = HOST,
    batch: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Arrays:
    """Encode some of the pictures of every sample, where that was not done before.

    Args:
        slots: which of a sample's pictures; their order is that of the arrays' first dimension.
        device: where `encode` works.
        batch: pictures at once; by the device if None.
    """
    batch = batch or (_HOST_BATCH if device.type == "cpu" else _DEVICE_BATCH)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(-(-len(shards) // shards.shard)):
        path = _file(folder, number)
        if path.is_file():
            continue
        first = number * shards.shard
        count = min(shards.shard, len(shards) - first)
        pictures = np.stack([shards.pixels(first + index)[list(slots)] for index in range(count)])
        flat = pictures.reshape(-1, *pictures.shape[2:])
        with torch.inference_mode(), exact_convolutions():
            parts = [
                encode(to_pixels(flat[start : start + batch], device)).to("cpu", torch.float16)
                for start in range(0, len(flat), batch)
            ]
        values = torch.cat(parts).numpy()
        draft = path.with_suffix(f".{os.getpid()}.part")
        with draft.open("wb") as file:
            np.save(file, values.reshape(count, len(slots), *values.shape[1:]))
        draft.replace(path)
        if on_progress is not None:
            on_progress(first + count, len(shards))
    return Arrays(folder, shards.shard)


def to_pixels(pictures: np.ndarray, device: torch.device = HOST) -> torch.Tensor:
    """[B, H, W, 3] bytes -> [B, 3, H, W] in [-1, 1], float32, channels last in memory; bytes travel to the device."""
    return sent(torch.from_numpy(pictures), device).permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def to_bytes(pixels: torch.Tensor) -> np.ndarray:
    """[B, 3, H, W] -> [B, H, W, 3] bytes; what is beyond [-1, 1] is cut off."""
    return np.stack([np.asarray(tensor_to_image(picture[None])) for picture in pixels.cpu()])


def name_of(what: str, shards: Shards, slots: tuple[int, ...], module: nn.Module, *settings: float) -> str:
    """A folder's name for what a module makes of pictures: known by the pictures, the weights and the settings."""
    drawn = {key: value for key, value in shards.definition.items() if key != "count"}
    digest = hashlib.sha256(json.dumps([drawn, slots, settings], sort_keys=True).encode())
    for name, parameter in module.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return f"{what}-{shards.folder.name}-{digest.hexdigest()[:16]}"


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npy"
