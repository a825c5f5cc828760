"""What a model is measured on: tasks of eight conditions out of drawn pictures; examples of every style and subject.

Each is a function of its numbers, drawn when it is needed. No torch, no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from tools.demo.world.scenes import compose, draw_look, draw_scene
from tools.demo.world.styles import STYLES, Style, blended, draw_plain, draw_styled, paint
from tools.demo.world.styles.base import Params
from tools.demo.world.subjects import SUBJECTS, Subject
from tools.demo.world.triplets import Miniature, Pixels, SplitName

FIRST = 3_000_000
"""Number of the first triplet of every split that is drawn here, and the seed of its noise; nothing that learns reads
so far."""

SIZE = 128
"""Side of the pictures in pixels: what the miniature models are trained at."""

_EXAMPLES_SEED = FIRST
"""Begins the keys of examples, as a seed does those of `Miniature`; no data to learn from are drawn with it."""


@dataclass(frozen=True)
class Condition:
    """What a model is given. With a content image, half of the tasks keep its layout and half move it."""

    name: str
    split: SplitName
    content: bool = True
    style: bool = True
    two_styles: bool = False
    """A second style image too, in another style; the picture should be in both."""
    grammar: bool = False
    """Styles of the grammar, which have no name; of new styles, those of the region that training does not see."""


CONDITIONS = (
    Condition("seen", "seen"),
    Condition("new-subjects", "new-subjects"),
    Condition("new-grammar", "new-styles", grammar=True),
    Condition("new-styles", "new-styles"),
    Condition("new-both", "new-both"),
    Condition("style+prompt", "seen", content=False),
    Condition("text", "seen", content=False, style=False),
    Condition("two-styles", "seen", two_styles=True),
)


@dataclass(frozen=True)
class Task:
    """One picture to make: what the model is given, and what it should have made of it; pictures [size, size, 3]."""

    index: int
    """Of the triplet; also the seed of the noise."""
    content: Pixels | None
    style: Pixels | None
    prompt: str
    truth: Pixels
    subject: str
    style_name: str | None
    """None where the task has no style."""
    kept: bool
    """The layout is that of the content image."""
    style_2: Pixels | None = None
    """The second style image, and its style's name, where the task has two."""
    style_name_2: str | None = None
    params: Params = field(default_factory=dict)
    """The style's numbers."""


def draw_task(condition: Condition, number: int, size: int = SIZE, ratio: float = 1.0) -> Task:
    """Task `number` of a condition, counted from 0; with a content image the even ones keep its layout.

    Args:
        size: short side of the picture, in pixels.
        ratio: its width over its height.

    Raises:
        ConfigError: the emoji font is missing, or no picture can have this size.
    """
    stays = not condition.content or number % 2 == 0
    two = 1.0 if condition.two_styles else 0.0
    data = Miniature(
        size=size,
        ratio=ratio,
        split=condition.split,
        moved=0.0 if stays else 1.0,
        two_styles=two,
        grammar=1.0 if condition.grammar else 0.0,
    )
    triplet = data.triplet(FIRST + number)
    return Task(
        index=FIRST + number,
        content=triplet.content if condition.content else None,
        style=triplet.style if condition.style else None,
        prompt=triplet.prompt if condition.content else triplet.sentence,
        truth=triplet.target if condition.style else triplet.content,
        subject=triplet.labels.subject,
        style_name=triplet.labels.style if condition.style else None,
        kept=condition.content and stays,
        style_2=triplet.style_2,
        style_name_2=triplet.labels.style_2,
        params=triplet.labels.params if condition.style else {},
    )


def style_examples(style: Style, count: int, size: int = SIZE) -> Pixels:
    """Pictures of any subjects in a style, each with parameters of its own: [count, size, size, 3]."""
    random = np.random.default_rng((_EXAMPLES_SEED, 0, STYLES.index(style)))
    pictures = []
    for _ in range(count):
        scene = compose(draw_look(SUBJECTS[int(random.integers(len(SUBJECTS)))], random), random)
        pictures.append(draw_styled(scene, style, style.draw(random), size, random))
    return np.stack(pictures)


def blend_examples(count: int, size: int = SIZE) -> Iterator[tuple[frozenset[str], Pixels]]:
    """The names of every two styles, and pictures of any subjects in a blend of both: [count, size, size, 3]."""
    random = np.random.default_rng((_EXAMPLES_SEED, 2))
    painted = []
    for _ in range(count):
        subject = SUBJECTS[int(random.integers(len(SUBJECTS)))]
        plain = draw_scene(compose(draw_look(subject, random), random), size)
        painted.append({style.name: paint(plain, style, style.draw(random), random) for style in STYLES})
    for one, other in combinations(painted[0], 2):
        yield frozenset((one, other)), np.stack([blended(each[one], each[other]) for each in painted])


def subject_examples(subject: Subject, count: int, size: int = SIZE) -> Pixels:
    """Pictures of a subject, by turns plain and in any style: [count, size, size, 3]."""
    random = np.random.default_rng((_EXAMPLES_SEED, 1, SUBJECTS.index(subject)))
    pictures = []
    for number in range(count):
        scene = compose(draw_look(subject, random), random)
        style = STYLES[int(random.integers(len(STYLES)))]
        pictures.append(
            draw_plain(scene, size) if number % 2 == 0 else draw_styled(scene, style, style.draw(random), size, random)
        )
    return np.stack(pictures)
