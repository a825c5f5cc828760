"""The judge: rivals, prototypes, and what is nearest."""

from itertools import combinations

import numpy as np
import pytest
import torch

from tests.support.drawn import needs_font
from tests.support.judging import SIZE
from tools.demo.judge.judge import (
    BLEND_CHANCE,
    BOTH_CHANCE,
    EITHER_CHANCE,
    RIVALS,
    Judge,
    nearest,
    ranked,
    rivals,
)
from tools.demo.judge.material import blend_examples, style_examples
from tools.demo.world.styles import BY_NAME as STYLES_BY_NAME
from tools.demo.world.subjects import BY_NAME as SUBJECTS_BY_NAME

pytestmark = needs_font


def test_rivals_are_nine_others(judge: Judge) -> None:
    """Catches a style that is held against itself, or rivals that change with the model that is judged."""
    for number in range(20):
        found = rivals(judge.styles, ("woodcut",), "seen/style", number)
        assert len(set(found)) == RIVALS and "woodcut" not in found
        assert found == rivals(judge.styles, ("woodcut",), "seen/style", number)
    sets = {tuple(rivals(judge.styles, ("woodcut",), "seen/style", number)) for number in range(20)}
    assert len(sets) == 20
    every = {name for number in range(200) for name in rivals(judge.styles, ("woodcut",), "seen/style", number)}
    assert every == set(judge.styles) - {"woodcut"}  # held-out ones too
    of_two = rivals(judge.styles, ("woodcut", "neon"), "two-styles/style", 3)
    assert len(set(of_two)) == RIVALS - 1 and not {"woodcut", "neon"} & set(of_two)


def test_nearest_is_the_largest_cosine() -> None:
    """Catches a distance taken for a cosine, and a tie that counts as right."""
    prototypes = {name: torch.eye(3)[number] for number, name in enumerate("abc")}
    vector = torch.tensor([0.9, 0.1, 0.0])
    assert nearest(vector, prototypes, "a", ["b", "c"])
    assert not nearest(vector, prototypes, "b", ["a", "c"])
    assert not nearest(torch.tensor([0.5, 0.5, 0.0]), prototypes, "a", ["b", "c"])
    assert ranked(torch.tensor([0.1, -0.9, 0.4]), prototypes, ["a", "b", "c"]) == ["c", "a", "b"]


def test_blends_are_of_every_two_styles(judge: Judge) -> None:
    """Catches a pair that is missing, and blends that are one style's pictures."""
    assert set(judge.blends) == {frozenset(pair) for pair in combinations(STYLES_BY_NAME, 2)}
    assert all(float(vector.norm()) == pytest.approx(1, abs=1e-5) for vector in judge.blends.values())
    found = dict(blend_examples(2, SIZE))
    one, other = (found[frozenset(("woodcut", name))] for name in ("neon", "oil"))
    assert one.shape == (2, SIZE, SIZE, 3) and not np.array_equal(one, other)
    assert np.array_equal(one, dict(blend_examples(2, SIZE))[frozenset(("neon", "woodcut"))])


def test_prototypes_are_of_every_name_and_unit_long(judge: Judge) -> None:
    """Catches held-out styles or subjects that are no rivals, and style vectors under the subjects' names."""
    assert set(judge.styles) == set(STYLES_BY_NAME) and set(judge.subjects) == set(SUBJECTS_BY_NAME)
    for vector in (*judge.styles.values(), *judge.subjects.values()):
        assert float(vector.norm()) == pytest.approx(1, abs=1e-5)
    vectors = judge.vectors(style_examples(STYLES_BY_NAME["woodcut"], 2, SIZE))
    own = float(judge.styles["woodcut"] @ torch.nn.functional.normalize(vectors.style.mean(0), dim=0))
    mistaken = float(judge.styles["woodcut"] @ torch.nn.functional.normalize(vectors.subject.mean(0), dim=0))
    assert own == pytest.approx(1, abs=1e-5) and mistaken < 0.99


def test_chance_of_two_styles_is_that_of_drawing_them() -> None:
    """By counting: of all pairs of ten, how many hold one of two, and how many are the two."""
    names = range(1 + RIVALS)
    orders = [(first, second) for first in names for second in names if first != second]
    assert pytest.approx(EITHER_CHANCE) == sum(first in (0, 1) for first, _ in orders) / len(orders)
    assert pytest.approx(BLEND_CHANCE) == 1 / (len(names) + len(orders) / 2)
    assert pytest.approx(BOTH_CHANCE) == sum({first, second} == {0, 1} for first, second in orders) / len(orders)
