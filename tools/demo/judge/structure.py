"""How far two pictures agree: in layout, the correlation of blurred edges (styles hardly matter); in pixels, PSNR."""

import math

import cv2
import numpy as np

from tools.demo.world.brush import Array, blur, luma, slope
from tools.demo.world.triplets import Pixels

BLUR = 2.0
"""How far the edges are blurred, in pixels of a picture of 128: lines that moved by less than a stroke still meet."""

_FLAT = 1e-12
"""Variance of a map without edges, but for rounding."""


def edge_map(picture: Pixels) -> Array:
    """Strength of a picture's edges, [H, W] from [H, W, 3]: Scharr magnitude of its brightness, blurred."""
    x, y = slope(luma(picture.astype(np.float32) / 255))
    return blur(cv2.magnitude(x, y), BLUR)


def agreement(first: Array, second: Array) -> float:
    """Pearson's correlation of two maps of one size, -1 to 1; 0 where one of them is flat."""
    one, other = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (first, second))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norm if norm > _FLAT * first.size else 0.0


def psnr(picture: Pixels, truth: Pixels) -> float:
    """Peak signal-to-noise ratio of two pictures of bytes, in dB; at most 100."""
    error = float(np.square(picture.astype(np.float64) - truth).mean())
    return min(100.0, 20 * math.log10(255) - 10 * math.log10(max(error, 1e-12)))
