"""The samples that a run reads of drawn triplets: which ways of use, and with which texts.

`uso.training.data.samples` makes them from files. Pictures are square and of one size, and are not cropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from tools.demo.shards.shards import Shards
from tools.demo.training.words import NAMED
from tools.demo.world.scenes import instruction
from tools.demo.world.styles import STYLES
from tools.demo.world.styles.grammar import GRAMMAR_NAME
from uso.errors import ConfigError
from uso.training.config import TrainingConfig
from uso.training.data.buckets import Shape
from uso.training.data.samples import SampleFeatures
from uso.training.losses.teacher import extra_prompts

CONTENT, STYLE, TARGET, STYLE_2 = 0, 1, 2, 3
"""Places of a triplet's pictures; the last one only where some triplets have two styles."""

STYLE_ONLY, TEXT_ONLY = 4, 8
"""Where content is read, one triplet in so many is also trained without it."""

INSTRUCTED = 2
"""Where content is read, one triplet in so many that keep their layout is also trained with an instruction."""

UNNAMED = 2
"""Where content is read, one pair of triplets in so many with a moved layout has a prompt without the subject's name.
The network must then look at the content picture, as it must for subjects whose names no model has learned."""

NAMELESS = ("subject", "thing", "figure", "object")
"""Words that replace the name."""

Text = Literal["prompt", "unnamed", "sentence", "caption", "instruction"]
"""Texts of a triplet: its prompt; the prompt without the subject's name; what the target shows; that, with its styles;
an instruction that names the style alone."""


@dataclass(frozen=True)
class ShardPicture:
    """One picture of a folder of shards."""

    shards: Shards
    index: int
    slot: int

    def __hash__(self) -> int:
        return hash((self.shards.folder, self.index, self.slot))

    def open(self) -> Image.Image:
        return Image.fromarray(np.asarray(self.shards.pixels(self.index)[self.slot]))


@dataclass(frozen=True)
class ShardFeature:
    """A feature of a triplet: of a picture by its number, of a prompt by its text."""

    kind: Literal["prompt", "latents", "style"]
    index: int = 0
    slot: int = 0
    prompt: str = ""


@dataclass(frozen=True)
class ShardSample:
    """One triplet, with what the run reads of it."""

    shards: Shards
    features: SampleFeatures
    shape: Shape
    styles: tuple[ShardPicture, ...]

    @property
    def moved(self) -> bool:
        layout: str = self.shards.words[self.features.target.index]["labels"]["layout"]
        return layout == "moved"


def shard_samples(shards: Shards, config: TrainingConfig) -> list[ShardSample]:
    """Triplets of a folder, in the ways of use that the run reads; those of strangers only with their content.

    Strangers are subjects that no words name (`unnamed_subjects.py`).

    Where content is read: subject and style, layout kept without words or moved by them, with the subject's name or
    without; plain triplets without a style picture every other time (the subject alone); and, beside those, some
    triplets by style and words, some by words that name the style, and some by their content and an instruction that
    does. Where content is not read, words always describe the target, and no words name a stranger.

    Triplets with two styles are read with both, or, where `data.max_styles` is 1, not at all. They have no instruction
    and no prompt for the teacher `Words`: a base is taught no such words. Styles of the grammar have no words at all.

    Raises:
        ConfigError: the shards hold no triplets, none that the run can use, or pictures of another size than its own.
    """
    if shards.kind != "triplets":
        raise ConfigError(f"{shards.folder} holds {shards.kind}, and a run needs triplets. Make them: --form triplets.")
    side = shards.pixels(0).shape[1]
    for key, size in (("resolution", config.data.resolution), ("content_size", config.data.content_size)):
        if size != side:
            raise ConfigError(f"{shards.folder} holds pictures of {side} pixels. Set data.{key}={side}, not {size}.")

    def sample(index: int, text: Text, content: bool, style: bool) -> ShardSample:
        two = has_two_styles(shards.words[index])
        slots = ((STYLE, STYLE_2) if two else (STYLE,)) if style else ()
        named = reads_named and not two and not is_nameless(shards.words[index])
        features = SampleFeatures(
            prompt=ShardFeature("prompt", prompt=text_of(shards.words[index], text)),
            target=ShardFeature("latents", index, TARGET),
            content=ShardFeature("latents", index, CONTENT) if content else None,
            styles=tuple(ShardFeature("style", index, slot) for slot in slots),
            prompts={NAMED: ShardFeature("prompt", prompt=text_of(shards.words[index], "caption"))} if named else {},
        )
        shape = Shape((side, side), (side, side) if content else None, len(slots))
        return ShardSample(shards, features, shape, tuple(ShardPicture(shards, index, slot) for slot in slots))

    reads_style, reads_named = "style" in config.reads, NAMED in extra_prompts(config)
    unread = set(unread_styles(shards, config))
    usable = range(len(shards)) if "content" in config.reads else nameable(shards)
    read = [index for index in usable if index not in unread]
    if not read:
        raise ConfigError(f"{shards.folder} shows two styles throughout, and the run reads one. Set data.max_styles=2.")
    if "content" not in config.reads:
        return [sample(index, "sentence", False, reads_style) for index in read]
    return [
        sample(index, text, content, style and reads_style)
        for index in read
        for text, content, style in ways(shards.words[index], index)
        if content or reads_style or not style
    ]


def ways(words: dict[str, Any], index: int) -> Iterator[tuple[Text, bool, bool]]:
    """(text, content, style): the ways of use in which a triplet is learned where content is read."""
    plain, two, nameless = "style" not in words["labels"], has_two_styles(words), is_nameless(words)
    alone = plain and index % 2 == 0
    moved, known = words["labels"]["layout"] == "moved", not _is_stranger(words)
    yield "unnamed" if moved and index // 2 % UNNAMED == 0 else "prompt", True, not alone
    if index % STYLE_ONLY == 0 and known:
        yield "sentence", False, True
    if index % TEXT_ONLY == 1 and known and not nameless:
        yield "caption", False, False
    if index % INSTRUCTED == 0 and not plain and not two and not moved and not nameless:
        yield "instruction", True, False


def unread_styles(shards: Shards, config: TrainingConfig) -> list[int]:
    """Which triplets a run leaves out because they have more styles than it reads."""
    if config.data.max_styles > 1:
        return []
    return [index for index, words in enumerate(shards.words) if has_two_styles(words)]


def has_two_styles(words: dict[str, Any]) -> bool:
    return "style_2" in words["labels"]


def is_nameless(words: dict[str, Any]) -> bool:
    """Whether the style is of the grammar, which no words name."""
    return bool(words["labels"].get("style") == GRAMMAR_NAME)


def nameable(shards: Shards) -> list[int]:
    """Which samples show a subject that words can name: for whatever learns without content images.

    Raises:
        ConfigError: there are none.
    """
    known = [index for index, words in enumerate(shards.words) if not _is_stranger(words)]
    if not known:
        raise ConfigError(
            f"{shards.folder} shows strangers alone, and a run without content images needs subjects that words can "
            "name. Make others: --strangers 0.5 or less."
        )
    return known


def _is_stranger(words: dict[str, Any]) -> bool:
    return bool(words["labels"].get("stranger"))


PHRASES = {style.name: style.phrase for style in STYLES}


def text_of(words: dict[str, Any], text: Text) -> str:
    """A text of a triplet; plain ones and those in two styles have no instruction."""
    labels = words["labels"]
    if text == "instruction":
        return instruction(PHRASES[labels["style"]])
    if text == "unnamed":
        word = NAMELESS[labels["index"] // (2 * UNNAMED) % len(NAMELESS)]
        return str(words["prompt"]).replace(f"The {labels['subject']} ", f"The {word} ", 1)
    return str(words[text])
