"""Where subjects are: backgrounds drawn by code, indoors and out, by day, at sunset, at night and in fog.

A place gives a picture and the position of the ground. Subjects and captions are made elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from tools.demo.world.brush import (
    BASE,
    Array,
    Colour,
    Random,
    blur,
    grid,
    hsv,
    mix,
    noise,
    ramp,
    smooth,
    stripes,
)
from tools.demo.world.sketch import Sketch, Time


@dataclass(frozen=True)
class Place:
    """A kind of background. `phrase` follows a verb ("on a hill"); `outdoor` ones have times of day.

    `floating` ones hold a subject in the middle instead of on a ground.
    """

    name: str
    phrase: str
    draw: Callable[["Sketch"], None]
    outdoor: bool = True
    floating: bool = False


def hill(sketch: Sketch) -> None:
    sketch.sky()
    green = sketch.between(0.22, 0.36)
    sketch.land(sketch.wave(0.62, 0.05, 0.9), hsv(green + 0.06, 0.4, 0.68))
    sketch.land(0.72 + 0.5 * (sketch.x[0] - np.float32(sketch.between(0.35, 0.65))) ** 2, hsv(green, 0.6, 0.66))


def beach(sketch: Sketch) -> None:
    level = sketch.between(0.4, 0.5)
    sketch.sky(level)
    sketch.gradient(hsv(0.55, 0.6, 0.7), hsv(0.5, 0.45, 0.85), level, 0.65)
    sketch.land(sketch.wave(0.66, 0.012, 1.2), hsv(0.115, 0.35, 0.95), 0.15)
    sketch.land(sketch.wave(0.69, 0.012, 1.2), hsv(0.11, 0.42, 0.88), 0.15)


def sea(sketch: Sketch) -> None:
    level = sketch.between(0.4, 0.5)
    sketch.sky(level)
    hue = sketch.between(0.52, 0.62)
    for number in range(5):
        height = level + 0.02 + number * 0.12
        shade = hsv(hue, 0.55 + 0.05 * number, 0.85 - 0.08 * number)
        sketch.land(sketch.wave(height, 0.012, 3.2 - 0.4 * number), shade, 0.3)


def desert(sketch: Sketch) -> None:
    sketch.sky()
    hue = sketch.between(0.07, 0.12)
    for level, value in ((0.55, 0.95), (0.66, 0.88), (0.78, 0.8)):
        sketch.land(sketch.wave(level, 0.05, sketch.between(0.5, 0.9)), hsv(hue, 0.5, value), 0.35)


def snow(sketch: Sketch) -> None:
    sketch.sky()
    sketch.land(sketch.wave(0.58, 0.04, 0.8), (0.83, 0.88, 0.95))
    sketch.land(sketch.wave(0.7, 0.03, 0.6), (0.95, 0.97, 1.0), 0.1)
    for x, y in sketch.random.uniform(0, 1, (26, 2)):
        sketch.disc(float(x), float(y), sketch.between(0.006, 0.013), (1, 1, 1))


def mountains(sketch: Sketch) -> None:
    sketch.sky()
    for number in range(4):
        x, top, half = sketch.between(0, 1), sketch.between(0.2, 0.38), sketch.between(0.25, 0.4)
        rock = hsv(sketch.between(0.55, 0.75), 0.25, 0.45 + 0.06 * number)
        sketch.polygon([(x - half, 0.75), (x, top), (x + half, 0.75)], rock)
        share = 0.3
        left, right, level = x - half * share, x + half * share, top + (0.75 - top) * share
        sketch.polygon([(left, level), (x, top), (right, level), (x + 0.03, level - 0.04)], (0.96, 0.97, 1.0))
    sketch.land(sketch.wave(0.72, 0.02, 0.8), hsv(0.3, 0.45, 0.55))


def city(sketch: Sketch) -> None:
    sketch.sky()
    left = -0.05
    lit = (1.0, 0.9, 0.5) if sketch.time in ("night", "sunset") else (0.75, 0.85, 0.92)
    while left < 1:
        width, top = sketch.between(0.1, 0.19), sketch.between(0.15, 0.5)
        wall = hsv(sketch.between(0.5, 1.1) % 1, 0.18, sketch.between(0.4, 0.62))
        sketch.polygon([(left, 0.8), (left, top), (left + width, top), (left + width, 0.8)], wall)
        for row in np.arange(top + 0.04, 0.7, 0.08):
            for column in np.arange(left + 0.02, left + width - 0.03, 0.05):
                box = [(column, row), (column + 0.022, row), (column + 0.022, row + 0.04), (column, row + 0.04)]
                sketch.polygon([(float(x), float(y)) for x, y in box], lit)
        left += width + 0.01
    sketch.gradient((0.55, 0.54, 0.56), (0.42, 0.42, 0.45), 0.76, 1.0)


def forest(sketch: Sketch) -> None:
    sketch.sky()
    hue = sketch.between(0.28, 0.42)
    for number in range(11):
        x, top = (number + sketch.between(0.1, 0.9)) / 11, sketch.between(0.08, 0.35)
        green = hsv(hue + sketch.between(-0.03, 0.03), 0.5, sketch.between(0.32, 0.55))
        for level in range(3):
            y = top + level * 0.14
            half = 0.05 + 0.03 * level
            sketch.polygon([(x - half, y + 0.22), (x, y), (x + half, y + 0.22)], green)
    sketch.land(sketch.wave(0.7, 0.015, 1.0), hsv(hue - 0.06, 0.5, 0.5))


def meadow(sketch: Sketch) -> None:
    sketch.sky()
    sketch.land(sketch.wave(0.5, 0.02, 1.0), hsv(sketch.between(0.22, 0.33), 0.55, 0.75), 0.2)
    colours = [hsv(sketch.between(0, 1), 0.6, 1.0) for _ in range(3)]
    for x, y in sketch.random.uniform(0, 1, (34, 2)):
        depth = 0.55 + 0.43 * float(y)
        sketch.disc(float(x), depth, 0.007 + 0.02 * (depth - 0.5), colours[int(x * 997) % 3])


def road(sketch: Sketch) -> None:
    sketch.sky()
    sketch.land(sketch.wave(0.48, 0.015, 0.8), hsv(sketch.between(0.15, 0.3), 0.45, 0.72))
    x = sketch.between(0.35, 0.65)
    sketch.polygon([(x - 0.04, 0.48), (x + 0.04, 0.48), (1.15, 1.0), (-0.15, 1.0)], (0.42, 0.42, 0.45))
    for level in (0.52, 0.6, 0.72, 0.88):
        half = (level - 0.45) * 0.07
        sketch.polygon(
            [(x - half, level), (x + half, level), (x + half * 1.6, level + 0.07), (x - half * 1.6, level + 0.07)],
            (0.95, 0.93, 0.85),
        )


def lake(sketch: Sketch) -> None:
    sketch.sky(0.5)
    sketch.land(sketch.wave(0.42, 0.05, 1.1), hsv(sketch.between(0.3, 0.45), 0.35, 0.5))
    sketch.gradient(hsv(0.52, 0.35, 0.85), hsv(0.58, 0.6, 0.6), 0.52, 1.0)
    for _ in range(9):
        x, y, half = sketch.between(0, 1), sketch.between(0.56, 0.98), sketch.between(0.04, 0.14)
        sketch.polygon([(x - half, y), (x, y - 0.008), (x + half, y), (x, y + 0.008)], (0.85, 0.93, 0.97))


def room(sketch: Sketch) -> None:
    hue = sketch.between(0, 1)
    sketch.gradient(hsv(hue, 0.25, 0.92), hsv(hue, 0.3, 0.82), 0, 1)
    left, top = sketch.between(0.05, 0.6), sketch.between(0.06, 0.14)
    sketch.polygon([(left, top), (left + 0.32, top), (left + 0.32, top + 0.36), (left, top + 0.36)], (0.97, 0.96, 0.94))
    for column in (0.02, 0.17):
        for row in (0.02, 0.19):
            x, y = left + column, top + row
            sketch.polygon([(x, y), (x + 0.13, y), (x + 0.13, y + 0.15), (x, y + 0.15)], (0.62, 0.8, 0.95))
    wood = sketch.between(0.05, 0.1)
    sketch.gradient(hsv(wood, 0.5, 0.66), hsv(wood, 0.55, 0.5), 0.72, 1.0)
    sketch.fill((0.98, 0.97, 0.95), smooth(0.70, 0.705, sketch.y) * smooth(0.725, 0.72, sketch.y))


def table(sketch: Sketch) -> None:
    hue, wood = sketch.between(0, 1), sketch.between(0.04, 0.1)
    sketch.gradient(hsv(hue, 0.3, 0.75), hsv(hue, 0.2, 0.9), 0, 1)
    sketch.gradient(hsv(wood, 0.5, 0.75), hsv(wood, 0.6, 0.55), 0.66, 1.0)
    planks = stripes(sketch.side, sketch.between(7, 11), sketch.between(-0.03, 0.03))
    sketch.fill(hsv(wood, 0.65, 0.4), smooth(0.9, 0.99, planks) * smooth(0.66, 0.68, sketch.y) * 0.6)


def stage(sketch: Sketch) -> None:
    hue = float(sketch.random.choice([0.98, 0.0, 0.62, 0.83]))
    folds = stripes(sketch.side, sketch.between(12, 20), np.pi / 2, sketch.between(0, 6))
    sketch.picture = ramp(folds, [hsv(hue, 0.8, 0.4), hsv(hue, 0.75, 0.72)])
    sketch.gradient(hsv(0.08, 0.5, 0.6), hsv(0.07, 0.55, 0.45), 0.76, 1.0)
    light = np.hypot((sketch.x - 0.5) / 0.4, (sketch.y - 0.88) / 0.13)
    sketch.fill((1.0, 0.95, 0.75), smooth(1.05, 0.9, light) * 0.6)


def clouds(sketch: Sketch) -> None:
    sketch.sky(1.0)
    bank = noise(sketch.random, sketch.side, 3, 3)
    white = (0.98, 0.98, 1.0) if sketch.time != "night" else (0.5, 0.53, 0.66)
    sketch.fill(white, smooth(0.0, 0.25, bank + (sketch.y - 0.75) * 1.6))


def space(sketch: Sketch) -> None:
    hue = sketch.between(0.62, 0.85)
    fog = smooth(-0.6, 0.9, noise(sketch.random, sketch.side, 3, 3))
    sketch.picture = ramp(fog, [hsv(hue, 0.8, 0.08), hsv(hue, 0.7, 0.22), hsv(hue + 0.1, 0.6, 0.42)])
    for x, y in sketch.random.uniform(0, 1, (40, 2)):
        sketch.disc(float(x), float(y), sketch.between(0.004, 0.009), (1, 1, 0.95))
    x, y, radius = sketch.between(0.1, 0.9), sketch.between(0.1, 0.3), sketch.between(0.08, 0.13)
    sketch.disc(x, y, radius, hsv(sketch.between(0, 1), 0.5, 0.85))
    sketch.disc(x + radius / 3, y + radius / 4, radius / 4, hsv(sketch.between(0, 1), 0.4, 0.7))


def water(sketch: Sketch) -> None:
    hue = sketch.between(0.48, 0.6)
    sketch.gradient(hsv(hue, 0.4, 0.9), hsv(hue + 0.04, 0.8, 0.45), 0, 1)
    rays = stripes(sketch.side, sketch.between(18, 30), sketch.between(1.2, 1.9), noise(sketch.random, sketch.side, 2))
    sketch.fill((0.9, 1.0, 1.0), smooth(0.55, 1, rays) * (1 - sketch.y) * 0.35)
    for x, y in sketch.random.uniform(0, 1, (14, 2)):
        radius = sketch.between(0.012, 0.028)
        sketch.disc(float(x), float(y), radius, (0.85, 0.97, 1.0))
        sketch.disc(float(x), float(y), radius * 0.7, hsv(hue, 0.4, 0.85))
    sketch.land(sketch.wave(0.9, 0.02, 1.4), hsv(0.12, 0.35, 0.75))


def plain(sketch: Sketch) -> None:
    hue, saturation = sketch.between(0, 1), sketch.between(0.05, 0.45)
    value = sketch.between(0.75, 0.98)
    sketch.gradient(hsv(hue, saturation, value), hsv(hue, saturation, value * 0.9), 0, 1)


def striped(sketch: Sketch) -> None:
    angle = float(sketch.random.choice([0.0, np.pi / 2, np.pi / 4, -np.pi / 4]))
    wave = stripes(sketch.side, sketch.between(16, 30), angle, sketch.between(0, 6))
    hue = sketch.between(0, 1)
    sketch.picture = ramp(smooth(0.45, 0.55, wave), [hsv(hue, 0.35, 0.8), hsv(hue + 0.08, 0.12, 0.97)])


def spotted(sketch: Sketch) -> None:
    hue, count = sketch.between(0, 1), sketch.between(5, 8)
    sketch.fill(hsv(hue, 0.2, 0.95), np.ones_like(sketch.x))
    columns, rows = sketch.x * count, sketch.y * count
    columns = columns + 0.5 * (np.floor(rows) % 2)
    distance = np.hypot(columns % 1 - 0.5, rows % 1 - 0.5)
    sketch.fill(hsv(hue + sketch.between(0.1, 0.5), 0.4, 0.82), smooth(0.32, 0.26, distance))


def checked(sketch: Sketch) -> None:
    count, hue = sketch.between(4, 7), sketch.between(0, 1)
    horizon = 0.62
    sketch.gradient(hsv(hue, 0.25, 0.9), hsv(hue, 0.15, 0.97), 0, 1)
    depth = np.maximum(sketch.y - np.float32(horizon - 0.12), 1e-3)
    squares = (np.floor((sketch.x - 0.5) / depth * count * 0.35) + np.floor(count * 0.35 / depth)) % 2
    tiles = ramp(squares.astype(np.float32), [hsv(hue + 0.5, 0.3, 0.45), (0.95, 0.94, 0.9)])
    sketch.picture = mix(sketch.picture, tiles, smooth(horizon, horizon + 0.01, sketch.y))


def rays(sketch: Sketch) -> None:
    x, y = sketch.between(0.35, 0.65), sketch.between(0.4, 0.6)
    angle = np.arctan2(sketch.y - y, sketch.x - x)
    wave = np.sin(angle * np.float32(sketch.random.integers(7, 12)))
    hue = sketch.between(0, 1)
    sketch.picture = ramp(smooth(-0.15, 0.15, wave), [hsv(hue, 0.4, 0.85), hsv(hue + 0.1, 0.15, 0.98)])


PLACES: tuple[Place, ...] = (
    Place("hill", "on a hill", hill),
    Place("beach", "on a beach", beach),
    Place("sea", "on the sea", sea),
    Place("desert", "in a desert", desert),
    Place("snow", "in the snow", snow),
    Place("mountains", "in the mountains", mountains),
    Place("city", "in a city", city),
    Place("forest", "in a forest", forest),
    Place("meadow", "in a meadow", meadow),
    Place("road", "on a road", road),
    Place("lake", "by a lake", lake),
    Place("sky", "in the sky", clouds, floating=True),
    Place("space", "in space", space, outdoor=False, floating=True),
    Place("water", "under water", water, outdoor=False, floating=True),
    Place("room", "in a room", room, outdoor=False),
    Place("table", "on a table", table, outdoor=False),
    Place("stage", "on a stage", stage, outdoor=False),
    Place("plain wall", "in front of a plain wall", plain, outdoor=False),
    Place("striped wall", "in front of a striped wall", striped, outdoor=False),
    Place("spotted wall", "in front of a spotted wall", spotted, outdoor=False),
    Place("checked floor", "on a checked floor", checked, outdoor=False),
    Place("rays", "in front of rays of light", rays, outdoor=False),
)
BY_NAME = {place.name: place for place in PLACES}

_LIGHT: dict[Time, tuple[Colour, float]] = {
    "day": ((1.0, 1.0, 1.0), 0.0),
    "sunset": ((1.0, 0.78, 0.62), 0.75),
    "night": ((0.42, 0.48, 0.8), 0.85),
    "fog": ((0.88, 0.89, 0.91), 0.42),
}


def lit(rgb: Array, time: Time, share: float = 1.0) -> Array:
    """A picture in the light of a time of day; `share` of the effect (a subject keeps more of its own colours)."""
    colour, amount = _LIGHT[time]
    if time == "fog":
        return mix(rgb, np.asarray(colour, np.float32), amount * share)
    share_of_light = 1 + (np.asarray(colour) - 1) * amount * share
    return np.asarray(cv2.multiply(rgb, (*share_of_light.tolist(), 0)))


def draw_place(place: Place, time: Time, side: int, random: Random) -> Array:
    """A background, [side, side, 3] in [0, 1]."""
    sketch = Sketch(side, time, random)
    place.draw(sketch)
    if not place.outdoor:
        return np.clip(sketch.picture, 0, 1)
    ground = smooth(0.35, 0.6, sketch.y)  # the sky has its own light already
    return np.clip(mix(sketch.picture, lit(sketch.picture, time), ground if time != "fog" else 1.0), 0, 1)


def soft_shadow(side: int, x: float, y: float, width: float) -> Array:
    """Where a subject darkens the ground: a flat blurred ellipse, [side, side] in [0, 1]."""
    columns, rows = grid(side)
    distance = np.hypot((columns / BASE - x) / max(width, 1e-3), (rows / BASE - y) / max(width * 0.22, 1e-3))
    return blur(smooth(1.1, 0.6, distance), 1.0)
