"""What a style is: a name, a phrase for captions, parameters drawn once, and a painter that takes a plain picture.

Pictures that share parameters share their look; only the grain differs, which comes from a generator of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.demo.world.brush import (
    Array,
    Random,
    blur,
    edges,
    hsv,
    luma,
    mix,
    rim,
    saturate,
    times,
    unit,
)
from tools.demo.world.scenes import Picture

Params = dict[str, Any]
"""Numbers, colours and lists of them: whatever JSON can hold."""

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Style:
    """`draw` picks parameters; `paint` gives [H, W, 3] in [0, 1] from a picture, parameters and a generator for grain.

    `phrase` stands before "of a fox"; `oversample` is how many times larger than the result the painter works on small
    pictures.
    """

    name: str
    phrase: str
    draw: Callable[[Random], Params]
    paint: Callable[[Picture, Params, Random], Array]
    held_out: bool = False
    oversample: int = 1


def pick(random: Random, choices: list[Any]) -> Any:
    return choices[int(random.integers(len(choices)))]


def graded(picture: Picture, params: Params) -> Array:
    """The picture's colours in a style's light: `saturation`, `contrast` (factors), a `tint` laid on by `tinting`."""
    rgb = saturate(picture.rgb, params.get("saturation", 1.0))
    rgb = np.clip((rgb - 0.5) * np.float32(params.get("contrast", 1.0)) + 0.5, 0, 1)
    if params.get("tinting"):
        tint = np.asarray(params["tint"], np.float32)
        near = cv2.multiply(rgb, (*(0.2 + 0.4 * tint).tolist(), 0))
        rgb = mix(rgb, times(0.6 * tint, luma(rgb)) + near, params["tinting"])
    return np.clip(rgb, 0, 1)


def tones(picture: Picture, ground: float = 0.45) -> Array:
    """Brightness [H, W] for drawing in one colour: the subject with full range, its surroundings nearer to white.

    `ground` is how much of the surroundings' range is left; the subject's own brightness is stretched.
    """
    light = luma(picture.rgb)
    inside = picture.mask > 0.5
    low, high = np.percentile(light[inside], (3, 97)) if inside.any() else (0.0, 1.0)
    own = np.clip((light - low) / max(0.25, high - low), 0, 1) * 0.85 + 0.02
    around = 1 - (1 - light) * np.float32(ground)
    return np.clip(mix(around, own, picture.mask), 0, 1)


def contours(picture: Picture, width: float = 1.4, inner: float = 0.9) -> Array:
    """Lines around the subject and where its colours change (1 is line); fainter in the surroundings."""
    found = edges(picture.rgb, max(0.6, width * 0.5))
    weight = np.float32(0.45) + picture.mask * np.float32(inner - 0.45)
    return np.maximum(rim(picture.mask, width), found * weight)


def harmony(random: Random, count: int, dark: float = 0.12, light: float = 0.96, saturation: float = 0.6) -> list[Any]:
    """`count` colours that go together, from dark to light."""
    hue = float(random.uniform(0, 1))
    reach = pick(random, [0.08, 0.16, 0.33, 0.5])
    colours = []
    for number in range(count):
        share = number / (count - 1)
        turn = hue + reach * (number % 2 if reach > 0.3 else share)
        weight = saturation * (1 - 0.55 * share)
        colours.append(bright(hsv(turn % 1, weight, 1.0), dark + (light - dark) * share))
    return colours


def bright(colour: Any, level: float) -> list[float]:
    """A colour brought to brightness `level`, towards white where it must be."""
    values = np.asarray(colour, np.float64)
    values = values * level / max(1e-3, float(values @ [0.299, 0.587, 0.114]))
    over = values.max()
    if over > 1:
        values = values / over
        own = float(values @ [0.299, 0.587, 0.114])
        values = values + (1 - values) * (level - own) / max(1e-3, 1 - own)
    return [round(float(part), 4) for part in np.clip(values, 0, 1)]


def paper(side: int, colour: Any, random: Random, roughness: float = 0.02) -> Array:
    """A sheet of paper with fibres."""
    fibres = random.standard_normal((side, side), dtype=np.float32)
    fibres = cv2.GaussianBlur(fibres, (0, 0), 0.6 * side / 128) + 0.5 * cv2.GaussianBlur(fibres, (9, 1), 0)
    return np.clip(times(colour, 1 + np.float32(roughness) * 2 * fibres), 0, 1)


def cells(side: int, spacing: float, random: Random, jitter: float = 0.7, metric: int = cv2.DIST_L2) -> Labels:
    """Labels [side, side] of the cells around points of a shaken grid, `spacing` pixels of 128 apart."""
    real = spacing * side / 128
    count = max(2, round(side / real))
    shake = random.uniform(-jitter / 2, jitter / 2, (count, count, 2))
    points = np.moveaxis(np.indices((count, count)), 0, -1) + 0.5 + shake
    return nearest_point(side, (points * side / count).reshape(-1, 2), metric)


def nearest_point(side: int, points: NDArray[Any], metric: int = cv2.DIST_L2) -> Labels:
    """Labels of the point (row, column) that is next to each pixel."""
    places = np.clip(points.astype(np.int64), 0, side - 1)
    seeds = np.ones((side, side), np.uint8)
    seeds[places[:, 0], places[:, 1]] = 0
    return cv2.distanceTransformWithLabels(seeds, metric, 3, labelType=cv2.DIST_LABEL_PIXEL)[1]


def per_label(rgb: Array, labels: Labels) -> Array:
    """The mean colour of each label, [labels, 3]."""
    flat = labels.reshape(-1)
    count = np.maximum(np.bincount(flat), 1)
    sums = [np.bincount(flat, rgb[..., channel].reshape(-1)) for channel in range(3)]
    return np.stack([total / count for total in sums], 1).astype(np.float32)


def seams(labels: Labels, width: float) -> Array:
    """Lines between labels, about `width` pixels of 128 wide; 1 is line."""
    line = np.zeros(labels.shape, np.float32)
    line[:, 1:] = np.maximum(line[:, 1:], labels[:, 1:] != labels[:, :-1])
    line[1:] = np.maximum(line[1:], labels[1:] != labels[:-1])
    real = width * unit(line)
    if real > 1.6:
        size = max(2, round(real))
        line = cv2.dilate(line, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    return np.clip(blur(line, 0.35) * np.float32(min(1.6, max(1.0, real))), 0, 1)


def blocks(rgb: Array, count: int) -> Array:
    """The picture in `count` x `count` mean colours."""
    return np.asarray(cv2.resize(rgb, (count, count), interpolation=cv2.INTER_AREA))


def enlarged(values: Array, side: int) -> Array:
    """Blocks back at full size, corners sharp."""
    return np.asarray(cv2.resize(values, (side, side), interpolation=cv2.INTER_NEAREST))
