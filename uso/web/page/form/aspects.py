"""Sizes of usual shapes for a model: about as many pixels as it draws by default, sides in its range."""

import math

from uso.config import ModelConfig
from uso.images.pixels import TOKEN_SIZE

SHAPES = ((1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16))

SHAPE_WEIGHT = 8
"""How much worse it is to miss the shape by a part than to miss the area by it."""


def aspects(config: ModelConfig) -> list[tuple[str, str]]:
    """(name, size as `1024x768`) of each shape."""
    return [(f"{wide}:{high}", "{}x{}".format(*_nearest(config, wide / high))) for wide, high in SHAPES]


def _nearest(config: ModelConfig, shape: float) -> tuple[int, int]:
    """(width, height): the best compromise of shape and area."""
    sides = range(config.limits.min_size, config.limits.max_size + 1, TOKEN_SIZE)
    area = config.defaults.width * config.defaults.height

    def cost(size: tuple[int, int]) -> float:
        width, height = size
        return SHAPE_WEIGHT * abs(math.log(width / height / shape)) + abs(math.log(width * height / area))

    return min(((width, height) for width in sides for height in sides), key=cost)
