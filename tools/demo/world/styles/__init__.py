"""The styles: real image algorithms with parameters, told apart at a glance. See `base` for what a style is."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.demo.world.brush import Random, finished, luma
from tools.demo.world.scenes import Picture, Scene, draw_scene
from tools.demo.world.styles.base import Params, Style
from tools.demo.world.styles.drawings import DRAWINGS
from tools.demo.world.styles.lines import LINES
from tools.demo.world.styles.paints import PAINTS
from tools.demo.world.styles.prints import PRINTS
from tools.demo.world.styles.threads import THREADS
from tools.demo.world.styles.tiles import TILES

STYLES: tuple[Style, ...] = PAINTS + DRAWINGS + LINES + PRINTS + TILES + THREADS
"""Every style. Held out from training: delftware, charcoal, risograph, toy bricks."""

LARGE = 192
"""From this side on, in pixels, there are pixels enough for fine lines."""

MOST_GAIN = 1.5
"""Of the contrast of a mean of two pictures, where they are each other's negative."""

BY_NAME = {style.name: style for style in STYLES}


def draw_styled(scene: Scene, style: Style, params: Params, side: int, random: Random) -> NDArray[np.uint8]:
    """A scene in a style, [side, side, 3]; `random` gives the grain."""
    return paint(draw_scene(scene, side), style, params, random)


def paint(picture: Picture, style: Style, params: Params, random: Random) -> NDArray[np.uint8]:
    """A plain picture in a style, [side, side, 3]; fine lines of small pictures are painted larger and brought down."""
    side = picture.side
    if style.oversample == 1 or side >= LARGE:
        return finished(style.paint(picture, params, random))
    large = (side * style.oversample, side * style.oversample)
    planes = (cv2.resize(plane, large, interpolation=cv2.INTER_LINEAR) for plane in (picture.rgb, picture.mask))
    painted = style.paint(Picture(*planes), params, random)
    return finished(cv2.resize(painted, (side, side), interpolation=cv2.INTER_AREA))


def blended(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A scene in two styles at once: the mean of its two pictures, with as much contrast as they have."""
    pictures = [picture.astype(np.float32) / 255 for picture in (first, second)]
    mean = (pictures[0] + pictures[1]) / 2
    wanted = np.sqrt((luma(pictures[0]).var() + luma(pictures[1]).var()) / 2)
    gain = min(MOST_GAIN, float(wanted / (luma(mean).std() + 1e-6)))
    middle = mean.mean()
    return finished((mean - middle) * np.float32(gain) + middle)


def draw_plain(scene: Scene, side: int) -> NDArray[np.uint8]:
    """A scene without style, [side, side, 3]."""
    return finished(draw_scene(scene, side).rgb)
