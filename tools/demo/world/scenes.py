"""A scene: one subject, posed and coloured, in a place at a time of day, perhaps with something beside it.

`draw_scene` makes its plain picture and the subject's mask; `caption` describes it. Styles come later.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from tools.demo.world.brush import Array, Random, blur, luma, mix, smooth, times
from tools.demo.world.places import PLACES, Place, draw_place, lit, soft_shadow
from tools.demo.world.sketch import TIMES, Time
from tools.demo.world.subjects import GLYPH_SIDE, PROPS, SUBJECTS, Kind, Subject, glyph, tinted

GROUND = 0.9
"""Where a subject's foot is, as a share of the height."""

PROP_CHANCE = 0.35
FLIP_CHANCE = 0.25
"""How often a subject looks the other way in a new pose."""


@dataclass(frozen=True)
class Look:
    """What stays when a subject moves: its colours. `hue` in turns, `value` a factor."""

    subject: Subject
    hue: float
    value: float


@dataclass(frozen=True)
class Scene:
    """Everything that decides a picture but the style.

    `x` is the middle of the subject and `scale` its side, as shares of the picture's side; `angle` in degrees; `seed`
    decides the details of the background.
    """

    look: Look
    place: Place
    time: Time
    x: float
    scale: float
    angle: float
    flip: bool
    prop: Subject | None
    seed: int

    @property
    def subject(self) -> Subject:
        return self.look.subject


@dataclass(frozen=True)
class Picture:
    """A plain picture: `rgb` [H, W, 3] and `mask` [H, W] of subject and prop, both in [0, 1]."""

    rgb: Array
    mask: Array

    @property
    def side(self) -> int:
        return self.rgb.shape[1]


def draw_look(subject: Subject, random: Random) -> Look:
    """One individual of a subject."""
    hue = float(random.uniform(-subject.tint, subject.tint))
    return Look(subject, hue, float(random.uniform(0.88, 1.1)))


def compose(look: Look, random: Random) -> Scene:
    """A scene for an individual: place, time, pose, size, and perhaps a prop."""
    place = PLACES[int(random.integers(len(PLACES)))]
    time: Time = TIMES[int(random.choice(4, p=[0.46, 0.2, 0.22, 0.12]))] if place.outdoor else "day"
    prop = PROPS[int(random.integers(len(PROPS)))] if random.random() < PROP_CHANCE else None
    scale = float(random.uniform(0.55, 0.68) if prop else random.uniform(0.6, 0.88))
    free = (1 - scale) / 2
    x = 0.5 + float(random.uniform(-0.85, 0.85)) * free
    if prop:
        x = 0.5 + (-1 if random.random() < 0.5 else 1) * free * 0.9
    angle = float(random.uniform(-9, 9)) * (2.2 if place.floating else 1)
    return Scene(look, place, time, x, scale, angle, bool(random.random() < 0.5), prop, int(random.integers(2**31)))


def moved(scene: Scene, random: Random, *, same_pose: bool = False) -> Scene:
    """The same individual in another place; in another pose and size too, or in the same ones."""
    other = compose(scene.look, random)
    while other.place == scene.place or (same_pose and other.place.floating != scene.place.floating):
        other = compose(scene.look, random)
    other = replace(other, flip=scene.flip ^ bool(random.random() < FLIP_CHANCE))
    if not same_pose:
        return other
    prop = other.prop if scene.prop else None  # only where the pose leaves room for one
    return replace(other, x=scene.x, scale=scene.scale, angle=scene.angle, flip=scene.flip, prop=prop)


def draw_scene(scene: Scene, side: int) -> Picture:
    """The plain picture of a scene, `side` pixels square."""
    rgb = draw_place(scene.place, scene.time, side, np.random.default_rng(scene.seed))
    middle = 0.52 if scene.place.floating else GROUND - scene.scale / 2
    middle = min(middle, 0.97 - scene.scale / 2)
    items: list[tuple[Array, float, float, float, float, bool]] = []
    if scene.prop:
        share = 0.3
        away = 1 - share / 2 - 0.03 if scene.x < 0.5 else share / 2 + 0.03
        height = middle if scene.place.floating else GROUND - share / 2 + 0.02
        items.append((glyph(scene.prop), away, height, share, 0.0, not scene.flip))
    body = tinted(glyph(scene.subject), scene.look.hue, scene.look.value)
    items.append((body, scene.x, middle, scene.scale, scene.angle, scene.flip))
    mask = np.zeros((side, side), np.float32)
    for pixels, x, y, scale, angle, flip in items:
        if not scene.place.floating:
            shadow = soft_shadow(side, x, y + scale * 0.47, scale * 0.42)
            rgb = times(rgb, 1 - np.float32(0.35) * shadow)
        layer = _placed(pixels, side, x, y, scale, angle, flip)
        cover = np.ascontiguousarray(layer[..., 3])
        colours = lit(np.ascontiguousarray(layer[..., :3]), scene.time, 0.45)
        rgb = mix(_apart(rgb, colours, cover), colours, cover)
        mask = np.maximum(mask, cover)
    return Picture(np.clip(rgb, 0, 1).astype(np.float32), np.clip(mask, 0, 1))


def _placed(pixels: Array, side: int, x: float, y: float, scale: float, angle: float, flip: bool) -> Array:
    """A glyph on an empty canvas [side, side, 4], its middle at (x, y), its side `scale` of the canvas."""
    factor = scale * side / GLYPH_SIDE
    if factor < 0.6:
        pixels = cv2.resize(pixels, (GLYPH_SIDE // 2, GLYPH_SIDE // 2), interpolation=cv2.INTER_AREA)
        factor *= 2
    middle = pixels.shape[0] / 2 - 0.5
    turn = cv2.getRotationMatrix2D((middle, middle), angle, factor)
    if flip:
        turn[:, 0] *= -1
        turn[:, 2] -= turn[:, 0] * 2 * middle
    turn[:, 2] += np.array([x, y]) * side - 0.5 - middle
    canvas = cv2.warpAffine(pixels, turn, (side, side), flags=cv2.INTER_LINEAR)
    return np.clip(canvas, 0, 1)


def _apart(rgb: Array, subject: Array, coverage: Array) -> Array:
    """The background made lighter or darker around a subject that is as bright as it, so that its shape can be seen."""
    near = smooth(0.02, 0.5, blur(coverage, 7.0))
    weight = near * (1 - coverage)
    around = float((luma(rgb) * weight).sum() / (weight.sum() + 1e-6))
    own = float((luma(subject) * coverage).sum() / (coverage.sum() + 1e-6))
    missing = 0.22 - abs(around - own)
    if missing <= 0:
        return rgb
    lighter = around > own if 0.25 < around < 0.8 else around < 0.5
    target = 1.0 if lighter else 0.0
    return mix(rgb, np.float32(target), near * np.float32(min(0.5, missing * 2.0)))


# Words


_TIME_WORDS: dict[Time, str] = {"day": "", "sunset": " at sunset", "night": " at night", "fog": " in fog"}


_VERBS: dict[Kind, str] = {"plant": "grows", "food": "lies", "thing": "is", "vehicle": "is"}


def _verb(scene: Scene) -> str:
    kind = scene.subject.kind
    if scene.place.name == "water":
        return "swims" if kind == "animal" else "floats"
    if scene.place.floating:
        return "floats"
    if scene.place.name == "sea":
        return "swims" if kind == "animal" else "floats"
    return _VERBS.get(kind, "stands")


def situation(scene: Scene) -> str:
    """Where, when and beside what: "on a hill at night, next to a tree"."""
    words = scene.place.phrase + _TIME_WORDS[scene.time]
    if scene.prop:
        return f"{words}, next to {scene.prop.article} {scene.prop.name}"
    if scene.x < 0.42:
        return words + ", on the left"
    if scene.x > 0.58:
        return words + ", on the right"
    return words


def sentence(scene: Scene) -> str:
    """What is seen, without style: "The fox stands on a hill at night." """
    return f"The {scene.subject.name} {_verb(scene)} {situation(scene)}."


def styled_sentence(scene: Scene, style_phrase: str) -> str:
    """What is seen and how: "a woodcut of a fox on a hill at night"."""
    return f"{style_phrase} of {scene.subject.article} {scene.subject.name} {situation(scene)}"


def both(style_phrase: str, other: str) -> str:
    """Two styles in words: "a woodcut and a mosaic"."""
    return f"{style_phrase} and {other}"


def instruction(style_phrase: str) -> str:
    """What turns a picture into one of a style: "Transform the style into a woodcut." """
    return f"Transform the style into {style_phrase}."


def caption_words(style_phrases: Iterable[str]) -> set[str]:
    """Every word that captions and instructions can hold, in small letters: subjects and styles held out too."""
    texts = [*style_phrases, *(place.phrase for place in PLACES), *_TIME_WORDS.values(), *_VERBS.values()]
    texts += [subject.name for subject in (*SUBJECTS, *PROPS)]
    texts += ["the a an of on the left right, next to, stands swims floats", both("", ""), instruction("")]
    return {word.lower() for text in texts for word in re.findall(r"[\w-]+", text)}
