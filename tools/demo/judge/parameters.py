"""Two choices: whether a picture has its style's parameters, or others of the same style.

The judge was taught names, and hardly sees what differs within one. Here a picture is described by plain measurements:
colours, contrasts, how strong its texture is at four scales and in which direction, and the strip at its border. The
task's parameters and other ones are painted on the same few scenes, and the picture is nearer to one or to the other.
"""

import cv2
import numpy as np

from tools.demo.judge.material import FIRST, Task
from tools.demo.world.brush import Array, luma
from tools.demo.world.scenes import compose, draw_look, draw_scene
from tools.demo.world.styles import BY_NAME, paint
from tools.demo.world.styles.base import Params
from tools.demo.world.styles.grammar import GRAMMAR_NAME, NEW_GRAMMAR
from tools.demo.world.subjects import SUBJECTS
from tools.demo.world.triplets import Pixels

CHANCE = 0.5

SCENES = 8
"""On which both parameters are painted."""

DRAWN, FEW = 4, 2
"""Parameters that are drawn to choose the others from, and scenes on which they are compared."""

_SCALES = 4
_STRIP = 1 / 20
"""Width of the strip at the border, of the picture's side."""


def look(picture: Pixels) -> Array:
    """Measurements of a picture [H, W, 3]: [26]."""
    rgb = picture.astype(np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB) / np.float32(100)
    flat = lab.reshape(-1, 3)
    width = max(1, round(picture.shape[1] * _STRIP))
    inside = np.zeros(picture.shape[:2], bool)
    inside[width:-width, width:-width] = True
    strip = lab[~inside]
    found = [flat.mean(0), flat.std(0), strip.mean(0), strip.std(0), *np.percentile(flat, (10, 50, 90), axis=0)[:2]]
    light = luma(rgb)
    textures = []
    for _ in range(_SCALES):
        soft = cv2.GaussianBlur(light, (0, 0), 1.0)
        textures.append(np.log(float((light - soft).std()) + 1e-3))
        light = cv2.resize(soft, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.concatenate([*found, textures, *_direction(luma(rgb))]).astype(np.float32)


def _direction(light: Array) -> list[list[float]]:
    """How far the finest and the middle texture point along one axis, as a doubled angle's cosine and sine."""
    found = []
    for sigma in (0.7, 2.0):
        soft = cv2.GaussianBlur(light, (0, 0), sigma)
        x, y = cv2.Scharr(soft, cv2.CV_32F, 1, 0), cv2.Scharr(soft, cv2.CV_32F, 0, 1)
        total = float((x * x + y * y).sum()) + 1e-6
        found.append([float((x * x - y * y).sum()) / total, float(2 * (x * y).sum()) / total])
    return found


class Choice:
    """A task's own parameters and others of its style, painted on scenes that no task shows.

    The others are those of `DRAWN` that differ most from its own: some draws hardly differ to the eye.
    """

    def __init__(self, task: Task) -> None:
        assert task.style_name is not None
        style = NEW_GRAMMAR if task.style_name == GRAMMAR_NAME else BY_NAME[task.style_name]
        random = np.random.default_rng((FIRST, 3, task.index))
        scenes = []
        for _ in range(SCENES):
            subject = SUBJECTS[int(random.integers(len(SUBJECTS)))]
            scenes.append(draw_scene(compose(draw_look(subject, random), random), min(task.truth.shape[:2])))

        def looks(params: Params, count: int) -> Array:
            return np.stack([look(paint(scene, style, params, random)) for scene in scenes[:count]])

        own = looks(task.params, SCENES)
        drawn = [style.draw(random) for _ in range(DRAWN)]
        few, weights = own[:FEW], 1 / (own.var(0) + 0.05 * own.var(0).mean() + 1e-6)
        far = [float((weights * (looks(params, FEW).mean(0) - few.mean(0)) ** 2).sum()) for params in drawn]
        other = looks(drawn[int(np.argmax(far))], SCENES)
        spread = (own.var(0) + other.var(0)) / 2
        self.weights = 1 / (spread + 0.05 * spread.mean() + 1e-6)
        self.means = own.mean(0), other.mean(0)

    def nearer_to_own(self, picture: Pixels) -> bool:
        """Whether a picture is nearer to its parameters than to the others, each measurement by how much it varies."""
        vector = look(picture)
        far = [float((self.weights * (vector - mean) ** 2).sum()) for mean in self.means]
        return far[0] < far[1]
