"""A background while it is drawn: sky, land, polygons, discs in coordinates from 0 to 1. Knows no places."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.demo.world.brush import (
    BASE,
    Array,
    Colour,
    Random,
    finished,
    flat,
    grid,
    hsv,
    mix,
    noise,
    ramp,
    smooth,
    times,
)

Time = Literal["day", "sunset", "night", "fog"]
TIMES: tuple[Time, ...] = ("day", "sunset", "night", "fog")


class Sketch:
    """A background while it is drawn: a picture, a generator, and helpers in coordinates from 0 to 1.

    OpenCV draws smooth borders on bytes only, while mixing wants fractions: the picture turns from one into the other
    when it must, so that a run of small shapes costs one turn.
    """

    def __init__(self, side: int, time: Time, random: Random) -> None:
        self.side, self.time, self.random = side, time, random
        self.x, self.y = grid(side)
        self.x, self.y = self.x / BASE, self.y / BASE
        self._pixels: Array | NDArray[np.uint8] = flat((1, 1, 1), side)

    @property
    def picture(self) -> Array:
        """[side, side, 3] in [0, 1]."""
        if self._pixels.dtype == np.uint8:
            self._pixels = self._pixels.astype(np.float32) / np.float32(255)
        return self._pixels

    @picture.setter
    def picture(self, values: Array) -> None:
        self._pixels = values

    def _bytes(self) -> NDArray[np.uint8]:
        if self._pixels.dtype != np.uint8:
            self._pixels = finished(self._pixels)
        return self._pixels

    def between(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def fill(self, colour: Colour, where: Array) -> None:
        self.picture = mix(self.picture, colour, where)

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> None:
        """Colour the rows from `start` to `end`; rows below too, with `bottom`."""
        tone = np.clip((self.y - start) / (end - start), 0, 1)
        self.picture = mix(self.picture, ramp(tone, [top, bottom]), smooth(start - 0.004, start + 0.004, self.y))

    def land(self, heights: Array, colour: Colour, shade: float = 0.25) -> None:
        """Fill everything below a skyline `heights` (one y per column), darker towards the bottom."""
        depth = self.y - heights[None, :]
        factor = np.float32(1) - np.float32(shade) * np.clip(depth * 1.5, 0, 1)
        ground = times(colour, factor)
        self.picture = mix(self.picture, ground, smooth(-0.004, 0.004, depth))

    def wave(self, level: float, height: float, cycles: float) -> Array:
        """A rolling skyline: y per column."""
        x = self.x[0]
        phase = self.random.uniform(0, 2 * np.pi, 2)
        return np.asarray(
            level
            + height * np.sin(x * np.float32(2 * np.pi * cycles) + np.float32(phase[0]))
            + 0.4 * height * np.sin(x * np.float32(4.6 * np.pi * cycles) + np.float32(phase[1])),
            np.float32,
        )

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon with corners in [0, 1], with a smooth border."""
        corners = np.round(np.array(points) * self.side * 16).astype(np.int32)
        cv2.fillPoly(self._bytes(), [corners], [round(255 * part) for part in colour], cv2.LINE_AA, 4)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        centre = (round(x * self.side * 16), round(y * self.side * 16))
        ink = [round(255 * part) for part in colour]
        cv2.circle(self._bytes(), centre, round(radius * self.side * 16), ink, -1, cv2.LINE_AA, 4)

    def sky(self, horizon: float = 1.0) -> None:
        """Sky for the time of day, with clouds, a sun, or a moon and stars."""
        if self.time == "day":
            self.gradient(hsv(0.58, self.between(0.35, 0.6), 0.9), hsv(0.55, 0.15, 1.0), 0, horizon)
            clouds = smooth(0.15, 0.6, noise(self.random, self.side, self.between(2, 4), 3))
            self.fill((1.0, 1.0, 1.0), clouds * 0.75)
            if self.random.random() < 0.4:
                self.disc(self.between(0.1, 0.9), self.between(0.08, 0.25), self.between(0.05, 0.08), (1, 0.93, 0.55))
        elif self.time == "sunset":
            self.gradient(hsv(self.between(0.72, 0.85), 0.45, 0.6), hsv(self.between(0.03, 0.1), 0.65, 1.0), 0, horizon)
            self.disc(
                self.between(0.15, 0.85), horizon - self.between(0.05, 0.2), self.between(0.07, 0.11), (1, 0.9, 0.6)
            )
        elif self.time == "night":
            self.gradient(hsv(0.65, 0.75, 0.16), hsv(0.63, 0.55, 0.36), 0, horizon)
            for x, y in self.random.uniform(0, 1, (24, 2)):
                self.disc(float(x), float(y) * 0.7, 0.007, (0.95, 0.95, 0.85))
            if self.random.random() < 0.7:
                x, y = self.between(0.1, 0.9), self.between(0.1, 0.25)
                self.disc(x, y, 0.07, (0.97, 0.95, 0.8))
                self.disc(x + 0.03, y - 0.012, 0.06, hsv(0.65, 0.72, 0.2))
        else:
            self.gradient((0.78, 0.8, 0.82), (0.88, 0.88, 0.87), 0, horizon)
