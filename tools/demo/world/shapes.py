"""Pictures that are not square: cut out of larger square ones, which is all that places and painters can make.

The subject is as large as the short side allows, and stands as far from the lower edge as in a square. There is nothing
beside it. What a style does at the border is cut off with the border.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tools.demo.world.scenes import GROUND, Scene
from uso.images.pixels import TOKEN_SIZE


@dataclass(frozen=True)
class Shape:
    """A picture's shape: its short side in pixels, and its width over its height."""

    short: int
    ratio: float = 1.0

    @property
    def side(self) -> int:
        """Of the square that it is cut out of: its long side, a multiple of a token's."""
        longer = max(self.ratio, 1 / self.ratio)
        return self.short if longer == 1 else round(self.short * longer / TOKEN_SIZE) * TOKEN_SIZE

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return (self.side, self.short) if self.ratio >= 1 else (self.short, self.side)

    def fitted(self, scene: Scene) -> Scene:
        """A scene whose subject is wholly in the cut."""
        if self.ratio == 1:
            return scene
        share = self.short / self.side
        x = scene.x if self.ratio > 1 else 0.5 + (scene.x - 0.5) * share
        return replace(scene, x=x, scale=scene.scale * share, prop=None)

    def cut(self, picture: NDArray[np.uint8], scene: Scene) -> NDArray[np.uint8]:
        """[H, W, 3] out of a fitted scene's picture [side, side, 3]."""
        width, height = self.size
        left, spare = (self.side - width) // 2, self.side - height
        top = spare // 2 if scene.place.floating else round(spare * GROUND)
        return np.ascontiguousarray(picture[top : top + height, left : left + width])
