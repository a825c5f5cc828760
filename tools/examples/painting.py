"""What the style pictures are drawn with: coordinates, smooth noise, blur, colours. numpy and Pillow only."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 768
"""Pixels per side of every style picture."""

Array = NDArray[np.float64]


def grid(size: int = SIZE) -> tuple[Array, Array]:
    """(x, y) of every pixel's centre, 0 to 1, y downwards."""
    steps = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(steps, steps)
    return x, y


def at(position: Array) -> NDArray[np.int_]:
    """The pixel that a position (0 to 1) falls on."""
    return np.clip(np.asarray(position) * SIZE, 0, SIZE - 1).astype(int)


def noise(random: np.random.Generator, cells: float, octaves: int = 4, size: int = SIZE) -> Array:
    """Smooth noise, about -1 to 1: random grids of `cells`, 2 `cells`, ... enlarged, each half as strong."""
    total = np.zeros((size, size))
    for octave in range(octaves):
        side = min(size, max(2, round(cells * 2**octave)))
        values = random.uniform(-1, 1, (side + 1, side + 1)).astype(np.float32)
        layer = Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC)
        total += np.asarray(layer, dtype=np.float64) / 2**octave
    return total / 1.5


def blurred(values: Array, radius: int) -> Array:
    """Three box filters: close to a Gaussian."""
    for axis in (0, 1, 0, 1, 0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(values, pad, mode="edge"), axis=axis)
        width = 2 * radius + 1
        high, low = np.split(sums, [width], axis)[1], np.split(sums, [sums.shape[axis] - width], axis)[0]
        values = (high - low) / width
    return values


def slope(values: Array) -> Array:
    """How much `values` rise per pixel towards the lower right: shade for a light from the upper left."""
    down, right = np.gradient(values)
    return np.asarray(down + right)


def smooth(low: float, high: float, values: Array) -> Array:
    """0 below `low`, 1 above `high`, a soft step between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def colour(code: str) -> Array:
    return np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)])


def picture(values: Array) -> Image.Image:
    """[H, W, 3], 0 to 1, as a picture."""
    return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))
