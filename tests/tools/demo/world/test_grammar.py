"""The grammar of styles: continuous, without names, with a region that training never sees."""

import json

import numpy as np
import pytest

from tests.support.drawn import needs_font, scene
from tools.demo.world.scenes import draw_scene
from tools.demo.world.styles import paint
from tools.demo.world.styles.grammar import GRAMMAR, GRAMMAR_NAME, HELD_OUT, MARKS, REGIONS, draw_grammar
from tools.demo.world.subjects import SUBJECTS
from tools.demo.world.triplets import Miniature, Triplet

pytestmark = needs_font

SIDE = 48


def parts(triplet: Triplet) -> tuple[str, str]:
    return triplet.labels.params["regions"], triplet.labels.params["marks"]


def test_training_never_sees_the_held_out_region() -> None:
    """Catches a split of new styles that shows what was learned, and training data that show what is measured."""
    learned = {parts(Miniature(size=32, grammar=1.0).triplet(number)) for number in range(60)}
    assert not learned & HELD_OUT and len(learned) > 10
    for name in ("new-styles", "new-both"):
        assert {parts(Miniature(size=32, split=name, grammar=1.0).triplet(n)) for n in range(12)} <= HELD_OUT
    assert {regions for regions, _ in learned} == set(REGIONS) and {marks for _, marks in learned} == set(MARKS)


def test_no_style_comes_twice_and_none_has_words() -> None:
    """Catches parameters that take few values, a caption that names a style, and numbers that JSON cannot hold."""
    drawn = [Miniature(size=32, grammar=1.0, two_styles=1.0).triplet(number) for number in range(30)]
    written = {json.dumps(triplet.labels.params, sort_keys=True) for triplet in drawn}
    assert len(written) == 30
    assert all(triplet.labels.style == GRAMMAR_NAME and triplet.caption == triplet.sentence for triplet in drawn)
    assert all(triplet.style_2 is None for triplet in drawn)


def test_a_share_of_the_grammar_leaves_other_data_as_they_were() -> None:
    """Catches data drawn before there was a grammar that would be other data now, and a share that is not kept."""
    mixed = [Miniature(size=32, grammar=0.5).triplet(number).labels.style for number in range(60)]
    assert 15 < mixed.count(GRAMMAR_NAME) < 45
    plain = [Miniature(size=32, moved=1.0).triplet(number) for number in range(3)]
    assert [triplet.prompt for triplet in plain] == [
        "The backpack is on a stage.",
        "The elephant stands in front of a plain wall.",
        "The pig swims on the sea in fog.",
    ]  # as before there was a grammar


@pytest.mark.parametrize("number", range(24))
def test_the_same_parameters_look_alike_and_others_do_not(number: int) -> None:
    """Catches a painter that ignores its parameters, and one whose grain changes the look."""
    plain = draw_scene(scene(SUBJECTS[number], number), SIDE)
    one, other = (draw_grammar(np.random.default_rng((number, n))) for n in range(2))
    first, again, changed = (
        paint(plain, GRAMMAR, params, np.random.default_rng(seed)).astype(float)
        for params, seed in ((one, 1), (one, 2), (other, 1))
    )
    assert first.shape == (SIDE, SIDE, 3)
    same, different = np.abs(first.mean((0, 1)) - again.mean((0, 1))), np.abs(first - changed).mean()
    assert same.max() < 12 and different > 8
