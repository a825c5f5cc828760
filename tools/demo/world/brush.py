"""What scenes and styles are drawn with: noise, blur, edges, flow, colour ramps. numpy and OpenCV; no files, no state.

Pictures are float32 [H, W, 3] in [0, 1], maps float32 [H, W]. Lengths are in pixels of a picture of `BASE` pixels;
`unit` is that in real pixels, so that a style looks alike at every size. All randomness comes from the
generator that is passed in.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""float32 throughout; numpy's types are too narrow to say so: a number beside an array makes them forget it."""
Random = np.random.Generator
Colour = tuple[float, float, float]

BASE = 128
"""Side of the picture that lengths are given for, in pixels."""


def unit(values: Array) -> float:
    """Real pixels per pixel of a picture of `BASE` pixels."""
    return values.shape[1] / BASE


def grid(side: int) -> tuple[Array, Array]:
    """(x, y) of every pixel's centre, in pixels of `BASE`, y downwards."""
    steps = ((np.arange(side) + 0.5) * (BASE / side)).astype(np.float32)
    x, y = np.meshgrid(steps, steps)
    return x, y


def noise(random: Random, side: int, cells: float, octaves: int = 1) -> Array:
    """Smooth noise, about -1 to 1: random grids of `cells`, 2 `cells`, ... per side, enlarged, each half as strong."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        count = int(min(side, max(2, round(cells * 2**octave)))) + 1
        values = random.uniform(-1, 1, (count, count)).astype(np.float32)
        total += cv2.resize(values, (side, side), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / np.float32(2 - 0.5 ** (octaves - 1))


def grain(random: Random, side: int, sigma: float = 0.0) -> Array:
    """Fine noise with mean 0 and deviation 1, blurred to grains of about `sigma` pixels of `BASE`."""
    base = max(BASE, side // 2) if sigma else side
    values = random.standard_normal((base, base), dtype=np.float32)
    if sigma:
        values = cv2.GaussianBlur(values, (0, 0), sigma * base / BASE)
    if base != side:
        values = cv2.resize(values, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(values / np.float32(values.std() + 1e-6), np.float32)


def blur(values: Array, sigma: float) -> Array:
    """Gaussian blur by `sigma` pixels of `BASE`."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), max(0.2, sigma * unit(values))))


def smooth(low: Any, high: Any, values: Any) -> Array:
    """0 below `low`, 1 above `high` (or the other way round when `low` is larger), a soft step between."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def luma(rgb: Array) -> Array:
    """Brightness [H, W] in [0, 1], Rec. 601 weights."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def thrice(values: Array) -> Array:
    """A map as a picture, [H, W] to [H, W, 3]: numpy is slow at spreading one over three itself."""
    plane = np.asarray(values, np.float32)
    return np.asarray(cv2.merge([plane, plane, plane]))


def times(rgb: Array | Any, factor: Array) -> Array:
    """A picture (or a colour) times a map [H, W]."""
    colour = np.asarray(rgb, np.float32)
    if colour.ndim == 1:
        return np.asarray(cv2.merge([np.asarray(factor * part, np.float32) for part in colour]))
    return colour * thrice(factor)


def mix(under: Array | Any, over: Array | Any, amount: Array | float) -> Array:
    """`over` laid on `under` (pictures, maps or colours) where `amount` ([H, W] or a number) is 1."""
    below, above = np.asarray(under, np.float32), np.asarray(over, np.float32)
    if not isinstance(amount, np.ndarray):
        return np.asarray(below + (above - below) * np.float32(amount), np.float32)
    weight = np.asarray(amount, np.float32)
    if max(below.ndim, above.ndim) < 3 and max(below.shape[-1:] + above.shape[-1:], default=0) != 3:
        return np.asarray(below + (above - below) * weight)
    height, width = weight.shape
    below, above = (flat(part, width, height) if part.ndim < 3 else part for part in (below, above))
    return np.asarray(below + (above - below) * thrice(weight))


def flat(colour: Any, width: int, height: int | None = None) -> Array:
    """A picture of one colour (or grey)."""
    red, green, blue = np.broadcast_to(np.asarray(colour, np.float32), 3).tolist()
    return np.asarray(cv2.merge([np.full((height or width, width), part, np.float32) for part in (red, green, blue)]))


def saturate(rgb: Array, amount: float) -> Array:
    """Colourfulness times `amount`, brightness kept."""
    grey = thrice(luma(rgb))
    return np.clip(grey + (rgb - grey) * np.float32(amount), 0, 1)


def ramp(tone: Array, colours: Any) -> Array:
    """`tone` in [0, 1] as a picture: `colours` from dark to light, evenly spaced, mixed between."""
    table = np.asarray(colours, np.float32)
    levels = np.linspace(0, len(table) - 1, 256)
    lookup = np.stack([np.interp(levels, np.arange(len(table)), table[:, c]) for c in range(3)], 1).astype(np.float32)
    index = (np.clip(tone, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([index, index, index]), lookup[None]))


def steps(values: Array, count: int, softness: float = 0.15) -> Array:
    """`values` in [0, 1] brought to `count` even levels, with short soft edges between them."""
    scaled = np.clip(values, 0, 1) * (count - 1)
    low = np.floor(scaled)
    return np.asarray((low + smooth(0.5 - softness, 0.5 + softness, scaled - low)) / (count - 1), np.float32)


def nearest(rgb: Array, palette: Any) -> NDArray[np.int64]:
    """Index [H, W] of the palette colour next to each pixel; brightness counts more than hue."""
    table = np.asarray(palette, np.float32)
    weight = np.array([[0.8, 0.3, 0.3], [1.6, -0.55, -0.3], [0.4, 0.25, -0.7]], np.float32)
    left, right = rgb.reshape(-1, 3) @ weight, table @ weight
    distance = (right**2).sum(1) - 2 * (left @ right.T)
    return np.asarray(distance.argmin(1).reshape(rgb.shape[:2]))


def median(rgb: Array, radius: float) -> Array:
    """Median filter: flat areas with clean borders. `radius` in pixels of `BASE`."""
    size = 2 * max(1, round(radius * unit(rgb))) + 1
    return np.asarray(cv2.medianBlur((rgb * 255).astype(np.uint8), size), np.float32) / 255


def warp(values: Array, dx: Array, dy: Array) -> Array:
    """`values` moved by (dx, dy) pixels of `BASE`; borders mirrored."""
    side = values.shape[1]
    columns, rows = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    scale = np.float32(unit(values))
    moved = cv2.remap(values, columns + dx * scale, rows + dy * scale, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT_101)
    return np.asarray(moved)


def shift(values: Array, dx: float, dy: float) -> Array:
    """`values` moved to the right and down by whole pixels next to (dx, dy) pixels of `BASE`; borders repeated."""
    x, y = round(dx * unit(values)), round(dy * unit(values))
    height, width = values.shape[:2]
    padded = cv2.copyMakeBorder(values, max(y, 0), max(-y, 0), max(x, 0), max(-x, 0), cv2.BORDER_REPLICATE)
    top, left = max(-y, 0), max(-x, 0)
    return np.asarray(padded[top : top + height, left : left + width])


def slope(values: Array, sigma: float = 0.0) -> tuple[Array, Array]:
    """Derivatives (to the right, downwards) per pixel of `BASE` of a map, blurred first."""
    smoothed = blur(values, sigma) if sigma else values
    scale = unit(values) / 32
    return cv2.Scharr(smoothed, cv2.CV_32F, 1, 0) * scale, cv2.Scharr(smoothed, cv2.CV_32F, 0, 1) * scale


def relief(height: Array, strength: float = 1.0) -> Array:
    """Light from the upper left on a surface: about -1 to 1, 0 where it is level."""
    x, y = slope(height)
    return np.clip((x + y) * np.float32(-strength), -1, 1)


def edges(rgb: Array, sigma: float = 0.8, low: float = 0.05, high: float = 0.16) -> Array:
    """Where colours change: 0 to 1, the strongest of the channels."""
    soft = blur(rgb, sigma)
    scale = unit(rgb) / 32
    x, y = cv2.Scharr(soft, cv2.CV_32F, 1, 0), cv2.Scharr(soft, cv2.CV_32F, 0, 1)
    return smooth(low, high, np.sqrt((x * x + y * y).max(2)) * scale)


def rim(mask: Array, width: float) -> Array:
    """A line of about `width` pixels of `BASE` along the border of a mask."""
    soft = blur(mask, width / 2)
    return smooth(0.25, 0.75, 4 * soft * (1 - soft))


def stroke_lines(tone: Array, sigma: float, sharp: float = 18.0, threshold: float = 0.0) -> Array:
    """Lines that a pen would draw, 1 is ink: an extended difference of Gaussians (Winnemöller 2012, section 3)."""
    fine, coarse = blur(tone, sigma), blur(tone, sigma * 1.8)
    difference = fine - coarse
    return np.clip(-np.tanh((difference + np.float32(threshold)) * np.float32(sharp)), 0, 1)


def flow(tone: Array, sigma: float = 2.5) -> tuple[Array, Array]:
    """Unit vectors along the edges of a map: the minor axis of its smoothed structure tensor."""
    x, y = slope(tone, 0.7)
    xx, xy, yy = blur(x * x, sigma), blur(x * y, sigma), blur(y * y, sigma)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.float32(np.pi / 2)
    return np.cos(angle), np.sin(angle)


def along(values: Array, dx: Array, dy: Array, length: float, count: int = 5) -> Array:
    """Line integral convolution: `values` averaged along unit vectors, `length` pixels of `BASE` both ways."""
    step = np.float32(length / count)
    total = values.copy()
    for sign in (1, -1):
        for number in range(1, count + 1):
            distance = np.float32(sign * number) * step
            total += warp(values, dx * distance, dy * distance)
    return total / np.float32(2 * count + 1)


def stripes(side: int, period: float, angle: float, phase: Array | float = 0.0) -> Array:
    """Waves from 0 to 1 with a period in pixels of `BASE`, crests along `angle` (radians)."""
    x, y = grid(side)
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    return 0.5 + 0.5 * np.cos(across * np.float32(2 * np.pi / period) + phase)


def frame(side: int, width: float, wobble: Array | float = 0.0) -> Array:
    """1 inside, 0 within `width` pixels of `BASE` of the border; `wobble` moves that line."""
    x, y = grid(side)
    inside = np.minimum(np.minimum(x, BASE - x), np.minimum(y, BASE - y)) + wobble
    return smooth(width - 0.7, width + 0.7, inside)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue (turns), saturation and value in [0, 1]."""
    weights = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    red, green, blue = value * (1 - saturation * (1 - np.clip(weights, 0, 1)))
    return float(red), float(green), float(blue)


def finished(rgb: Array) -> NDArray[np.uint8]:
    """A picture as bytes, [H, W, 3]."""
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
