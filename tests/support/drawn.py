"""What tests of the drawn data share. Without the emoji font they are skipped; where CI is set they must run."""

import os

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tools.demo.world import subjects as subjects_module
from tools.demo.world.scenes import Scene, compose, draw_look
from tools.demo.world.subjects import Subject

HAS_FONT = any(path.is_file() for path in subjects_module.FONT_PLACES)


needs_font = pytest.mark.skipif(not HAS_FONT and not os.environ.get("CI"), reason="Noto Color Emoji is not installed")


def scene(subject: Subject, seed: int) -> Scene:
    random = np.random.default_rng(seed)
    return compose(draw_look(subject, random), random)


def edge_map(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where there are edges, blurred and standardised."""
    light = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    steep = np.hypot(cv2.Scharr(light, cv2.CV_32F, 1, 0), cv2.Scharr(light, cv2.CV_32F, 0, 1))
    soft = cv2.GaussianBlur(np.sqrt(steep), (0, 0), 2.5)
    return np.asarray((soft - soft.mean()) / soft.std(), np.float32)
