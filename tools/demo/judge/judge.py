"""The judge: a descriptor's vectors of pictures, and whether they are nearest to what the pictures should show.

The descriptor has CSD's form and was trained apart from the reward's. A style or subject is known by its prototype, the
normalised mean of the vectors of drawn examples. `structure.py` measures the layout without it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from tools.demo.judge.material import FIRST, SIZE, blend_examples, style_examples, subject_examples
from tools.demo.world.styles import STYLES
from tools.demo.world.subjects import SUBJECTS
from tools.demo.world.triplets import Pixels
from uso.evaluation.metrics.csd import CSD
from uso.pipeline.latents import image_to_tensor
from uso.training.losses.seeds import generator

EXAMPLES = 16
"""Pictures that a prototype is the mean of."""

RIVALS = 9
"""Others that a picture's own style or subject is held against; of two own styles, each is one of the other's."""

CHANCE = 1 / (1 + RIVALS)
EITHER_CHANCE = 2 * CHANCE
BOTH_CHANCE = 1 / math.comb(1 + RIVALS, 2)
BLEND_CHANCE = 1 / (1 + RIVALS + math.comb(1 + RIVALS, 2))
"""Of two own styles: that one is the nearest; that they are the two nearest; that their blend is (`nearest_looks`)."""

_AT_ONCE = 64
"""Pictures that the descriptor reads at once; bounds the memory, changes nothing."""

_BLENDS_AT_ONCE = 64
"""Pairs of styles whose pictures are drawn and prepared at once, 0.1 GB: a call costs more than a picture."""

Prototypes = dict[str, torch.Tensor]
"""Unit vectors [D] by name."""

Blends = dict[frozenset[str], torch.Tensor]
"""Unit vectors [D] by the names of two styles."""


@dataclass(frozen=True)
class Vectors:
    """Of pictures: unit vectors [B, D]."""

    style: torch.Tensor
    subject: torch.Tensor


class Judge:
    """A descriptor, and the prototypes of every style and subject, held out or not.

    Args:
        size: side of the examples in pixels: that of the pictures to be judged.
        examples: pictures per prototype.
    """

    def __init__(self, descriptor: CSD, size: int = SIZE, examples: int = EXAMPLES) -> None:
        self.descriptor, self.size, self.examples = descriptor, size, examples
        self.styles: Prototypes = {
            style.name: _centre(self.vectors(style_examples(style, examples, size)).style) for style in STYLES
        }
        self.subjects: Prototypes = {
            subject.name: _centre(self.vectors(subject_examples(subject, examples, size)).subject)
            for subject in SUBJECTS
        }

    @cached_property
    def blends(self) -> Blends:
        """Prototypes of every two styles at once, of half as many examples each; they take a minute when they are
        first needed."""
        count = max(1, self.examples // 2)
        found: Blends = {}
        drawn = blend_examples(count, self.size)
        while some := dict(islice(drawn, _BLENDS_AT_ONCE)):
            vectors = self.vectors(np.concatenate(list(some.values()))).style.split(count)
            found |= {names: _centre(each) for names, each in zip(some, vectors, strict=True)}
        return found

    @torch.inference_mode()
    def vectors(self, pictures: Iterable[Pixels]) -> Vectors:
        """Vectors of pictures [H, W, 3], of which the middle is seen where they are not square."""
        descriptor = self.descriptor
        tensors = [image_to_tensor(Image.fromarray(picture)) for picture in pictures]
        pixels = torch.cat([descriptor.prepare(tensor) for tensor in tensors])
        features = torch.cat([descriptor.features(part) for part in pixels.split(_AT_ONCE)])
        return Vectors(descriptor.style(features), descriptor.content(features))


def _centre(vectors: torch.Tensor) -> torch.Tensor:
    return functional.normalize(vectors.mean(dim=0), dim=0)


def rivals(prototypes: Prototypes, own: tuple[str, ...], question: str, number: int) -> list[str]:
    """Other names, with its own `1 + RIVALS`, drawn by a question (any text) and a task's number: the same for every
    model."""
    others = [name for name in prototypes if name not in own]
    order = torch.randperm(len(others), generator=generator(FIRST, question, number))
    return [others[int(place)] for place in order[: 1 + RIVALS - len(own)]]


def nearest(vector: torch.Tensor, prototypes: Prototypes, own: str, others: list[str]) -> bool:
    """Whether a vector [D] has a larger cosine with its own prototype than with every other."""
    beside = torch.stack([prototypes[name] for name in others]) @ vector
    return bool(prototypes[own] @ vector > beside.max())


def ranked(vector: torch.Tensor, prototypes: Prototypes, names: Sequence[str]) -> list[str]:
    """Names by the cosine of their prototypes with a vector [D], the nearest first."""
    cosines = torch.stack([prototypes[name] for name in names]) @ vector
    return [names[int(place)] for place in cosines.argsort(descending=True)]


def nearest_looks(vector: torch.Tensor, prototypes: Prototypes, blends: Blends, names: Sequence[str]) -> frozenset[str]:
    """Which of some styles, or which two of them at once, a vector [D] is nearest to."""
    looks = {frozenset((name,)): prototypes[name] for name in names}
    looks |= {pair: blends[pair] for pair in map(frozenset, combinations(names, 2))}
    return max(looks, key=lambda look: float(looks[look] @ vector))
