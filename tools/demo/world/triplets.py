"""Samples of the drawn data: each a pure function of (seed, split, index), made when it is needed.

A triplet is a content image (a subject in its plain look), a style image (another subject in a style) and a target (the
first subject in that style, with the same parameters). Some have two style images in two styles, and a target that
wears both. A single picture with its caption serves models that know no references. Nothing is written here, and
nothing is remembered but glyphs.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tools.demo.world.brush import Random, finished
from tools.demo.world.scenes import (
    Picture,
    Scene,
    both,
    compose,
    draw_look,
    draw_scene,
    moved,
    sentence,
    styled_sentence,
)
from tools.demo.world.shapes import Shape
from tools.demo.world.styles import STYLES, Style, blended, draw_plain, draw_styled, paint
from tools.demo.world.styles.grammar import GRAMMAR, NEW_GRAMMAR
from tools.demo.world.subjects import SUBJECTS, Subject
from tools.demo.world.unnamed_subjects import UNNAMED_SUBJECTS
from uso.errors import ConfigError

Pixels = NDArray[np.uint8]
Layout = Literal["kept", "moved"]
SplitName = Literal["train", "seen", "new-subjects", "new-styles", "new-both"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
"""`train`; then new pictures of seen subjects and styles, of held-out subjects, in held-out styles, of and in both."""

MIN_SIZE, MAX_SIZE = 32, 1024


@dataclass(frozen=True)
class Split:
    """Who may be shown, and in which styles. Style images of a split show its own subjects."""

    name: SplitName
    subjects: tuple[Subject, ...]
    styles: tuple[Style, ...]


def split(name: str) -> Split:
    """A part of the data by name.

    Raises:
        ConfigError: there is no such part.
    """
    if name not in SPLITS:
        raise ConfigError(f"There is no split '{name}'. Choose one of: {', '.join(SPLITS)}.")
    new_subjects, new_styles = name in ("new-subjects", "new-both"), name in ("new-styles", "new-both")
    return Split(
        name,
        tuple(subject for subject in SUBJECTS if subject.held_out == new_subjects),
        tuple(style for style in STYLES if style.held_out == new_styles),
    )


@dataclass(frozen=True)
class Labels:
    """What a sample shows, for losses, evaluation and files; `params` are the style's numbers. `..._2`: where there are
    two styles, the second one's.

    `stranger`: the subject is one of `UNNAMED_SUBJECTS`; `same_pose`: it is in the new place as it was in the old.
    """

    split: str
    seed: int
    index: int
    subject: str
    style: str | None
    layout: Layout | None = None
    style_subject: str | None = None
    stranger: bool | None = None
    same_pose: bool | None = None
    style_2: str | None = None
    style_subject_2: str | None = None
    place: str = ""
    time: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    params_2: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Without what is not there; numbers rounded as JSON has them."""
        values = {key: value for key, value in asdict(self).items() if value not in (None, "", {})}
        return dict(json.loads(json.dumps(values)))


@dataclass(frozen=True)
class Triplet:
    """`content`, `style`, `target`: [size, size, 3] bytes, unless the data have another shape.

    `prompt` is what the network reads: nothing where the layout is kept, else the target in words. `sentence` always
    describes the target, and `caption` names its styles too.
    """

    content: Pixels
    style: Pixels
    target: Pixels
    prompt: str
    sentence: str
    caption: str
    labels: Labels
    style_2: Pixels | None = None
    """The second style image, where there are two."""


@dataclass(frozen=True)
class Sample:
    """One picture [size, size, 3] and its caption, which names the style if there is one."""

    picture: Pixels
    caption: str
    labels: Labels


@dataclass(frozen=True)
class Miniature:
    """The drawn data: `triplet(index)` and `sample(index)` for any index from 0.

    Args:
        seed: another seed, other pictures.
        size: side of the pictures in pixels.
        split: one of `SPLITS`.
        moved: share of triplets whose layout is moved.
        plain: share of single samples without style.
        plain_triplets: share of triplets whose style image and target are plain too: the subject, and nothing else.
        strangers: share of triplets whose subjects are `UNNAMED_SUBJECTS`, for training alone.
        same_pose: share of the moved triplets whose subject keeps its pose and size in the new place.
        two_styles: share of the triplets that are not plain which have two style images, in two styles of which the
            target is a blend. Those with one are the same ones as without this share.
        grammar: share of triplets whose style is of the grammar and has no name. In the splits with new styles it is
            of the region that training does not see.
        ratio: width over height of the triplets' targets, whose short side is `size`, and of content images whose
            layout they keep. Everything else is square.

    Raises:
        ConfigError: an unknown split, a size or share out of range, or strangers in another split than `train`.
    """

    seed: int = 0
    size: int = 128
    split: str = "train"
    moved: float = 0.5
    plain: float = 0.2
    plain_triplets: float = 0.0
    strangers: float = 0.0
    same_pose: float = 0.0
    two_styles: float = 0.0
    grammar: float = 0.0
    ratio: float = 1.0

    def __post_init__(self) -> None:
        split(self.split)
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise ConfigError(f"Drawn pictures have {MIN_SIZE} to {MAX_SIZE} pixels a side, not {self.size}.")
        for name, share in (
            ("moved", self.moved),
            ("plain", self.plain),
            ("plain_triplets", self.plain_triplets),
            ("strangers", self.strangers),
            ("same_pose", self.same_pose),
            ("two_styles", self.two_styles),
            ("grammar", self.grammar),
        ):
            if not 0 <= share <= 1:
                raise ConfigError(f"The share '{name}' is {share}; it must lie between 0 and 1.")
        if not 0.5 <= self.ratio <= 2:
            raise ConfigError(f"The ratio of width to height is {self.ratio}; it must lie between 0.5 and 2.")
        if self.strangers and self.split != "train":
            raise ConfigError(f"Strangers are for training; there are none in the split '{self.split}'. Set 0.")
        if self.seed < 0:
            raise ConfigError(f"The seed of drawn data is {self.seed}; it must be 0 or more.")

    def triplet(self, index: int) -> Triplet:
        """Triplet number `index`. All its pictures together take about 20 ms on one core at 128 pixels."""
        random = self._random("triplet", index)
        part = split(self.split)
        stranger = self.strangers > 0 and bool(random.random() < self.strangers)
        subjects = UNNAMED_SUBJECTS if stranger else part.subjects
        style = self._style(part, random)
        params = style.draw(random)
        first, second = (subjects[int(number)] for number in random.choice(len(subjects), 2, replace=False))
        content = compose(draw_look(first, random), random)
        layout: Layout = "moved" if random.random() < self.moved else "kept"
        posed = layout == "moved" and self.same_pose > 0 and bool(random.random() < self.same_pose)
        target = moved(content, random, same_pose=posed) if layout == "moved" else content
        other = compose(draw_look(second, random), random)
        grain = [np.random.default_rng(int(number)) for number in random.integers(2**62, size=2)]
        shape = Shape(self.size, self.ratio)
        same, target = target is content, shape.fitted(target)
        seen = draw_scene(target, shape.side)
        plain = shape.cut(finished(seen.rgb), target) if same else draw_plain(content, self.size)
        words = sentence(target)
        labels = self._labels(index, target, style, params)
        labels = replace(labels, layout=layout, style_subject=second.name)
        labels = replace(labels, stranger=stranger or None, same_pose=posed or None)
        if random.random() < self.plain_triplets:
            return Triplet(
                content=plain,
                style=draw_plain(other, self.size),
                target=shape.cut(finished(seen.rgb), target),
                prompt=words if layout == "moved" else "",
                sentence=words,
                caption=words,
                labels=replace(labels, style=None, params={}),
            )
        triplet = Triplet(
            content=plain,
            style=draw_styled(other, style, params, self.size, grain[0]),
            target=shape.cut(paint(seen, style, params, grain[1]), target),
            prompt=words if layout == "moved" else "",
            sentence=words,
            caption=styled_sentence(target, style.phrase) if style.phrase else words,
            labels=labels,
        )
        if style.phrase and self.two_styles > 0 and random.random() < self.two_styles:
            left = [subject for subject in subjects if subject not in (first, second)]
            return self._with_second(triplet, style, shape, target, seen, left, random)
        return triplet

    def _style(self, part: Split, random: Random) -> Style:
        if self.grammar > 0 and random.random() < self.grammar:
            return NEW_GRAMMAR if part.name in ("new-styles", "new-both") else GRAMMAR
        return part.styles[int(random.integers(len(part.styles)))]

    def _with_second(
        self,
        triplet: Triplet,
        style: Style,
        shape: Shape,
        target: Scene,
        seen: Picture,
        subjects: list[Subject],
        random: Random,
    ) -> Triplet:
        """A triplet in `style` with one style more, shown by one of the subjects; `seen` is the plain target."""
        styles = [other for other in split(self.split).styles if other != style]
        second = styles[int(random.integers(len(styles)))]
        params = second.draw(random)
        subject = subjects[int(random.integers(len(subjects)))]
        scene = compose(draw_look(subject, random), random)
        grain = [np.random.default_rng(int(number)) for number in random.integers(2**62, size=2)]
        return replace(
            triplet,
            style_2=draw_styled(scene, second, params, self.size, grain[0]),
            target=blended(triplet.target, shape.cut(paint(seen, second, params, grain[1]), target)),
            caption=styled_sentence(target, both(style.phrase, second.phrase)),
            labels=replace(triplet.labels, style_2=second.name, style_subject_2=subject.name, params_2=params),
        )

    def sample(self, index: int) -> Sample:
        """Single picture number `index`, with a caption that names its style."""
        random = self._random("sample", index)
        part = split(self.split)
        subject = part.subjects[int(random.integers(len(part.subjects)))]
        scene = compose(draw_look(subject, random), random)
        if random.random() < self.plain:
            return Sample(draw_plain(scene, self.size), sentence(scene), self._labels(index, scene, None))
        style = part.styles[int(random.integers(len(part.styles)))]
        params = style.draw(random)
        grain = np.random.default_rng(int(random.integers(2**62)))
        picture = draw_styled(scene, style, params, self.size, grain)
        labels = self._labels(index, scene, style, params)
        return Sample(picture, styled_sentence(scene, style.phrase), labels)

    def _random(self, purpose: str, index: int) -> Random:
        if index < 0:
            raise ConfigError(f"Samples are counted from 0; there is no sample {index}.")
        key = (self.seed, SPLITS.index(self.split), int(purpose == "sample"), index)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def _labels(
        self,
        index: int,
        scene: Scene,
        style: Style | None,
        params: dict[str, Any] | None = None,
    ) -> Labels:
        return Labels(
            split=self.split,
            seed=self.seed,
            index=index,
            subject=scene.subject.name,
            style=style.name if style else None,
            place=scene.place.name,
            time=scene.time,
            params=params or {},
        )
