"""What there is to learn from, and what is held out stays out."""

import pytest

from tests.support.drawn import needs_font
from tools.demo.world.styles import STYLES
from tools.demo.world.subjects import PROPS, SUBJECTS, glyph
from tools.demo.world.triplets import SPLITS, Miniature, split
from tools.demo.world.unnamed_subjects import MOST_LETTERS, UNNAMED_SUBJECTS
from uso.errors import ConfigError

pytestmark = needs_font


NEW_SUBJECTS = {
    "owl",
    "dolphin",
    "giraffe",
    "rooster",
    "robot",
    "pineapple",
    "teapot",
    "guitar",
    "bicycle",
    "castle",
}


NEW_STYLES = {"delftware", "charcoal", "risograph", "toy bricks"}


def test_enough_to_learn_from() -> None:
    """Catches a list that shrank, a name that stands for two things, and a prop that is a subject too."""
    assert len(SUBJECTS) - len(NEW_SUBJECTS) >= 60 and len(STYLES) - len(NEW_STYLES) >= 24
    names = [subject.name for subject in (*SUBJECTS, *PROPS)]
    assert len(set(names)) == len(names)
    assert len({subject.glyph for subject in (*SUBJECTS, *PROPS)}) == len(names)
    assert len({style.name for style in STYLES}) == len({style.phrase for style in STYLES}) == len(STYLES)


def test_the_held_out_lists_are_the_documented_ones() -> None:
    """Catches a subject that moves from one side to the other: every figure measured before would be wrong."""
    assert {subject.name for subject in SUBJECTS if subject.held_out} == NEW_SUBJECTS
    assert {style.name for style in STYLES if style.held_out} == NEW_STYLES


@pytest.mark.parametrize("name", SPLITS)
def test_no_split_shows_what_is_not_its_own(name: str) -> None:
    """Catches the leak that makes held-out figures worthless, style images included."""
    new_subjects, new_styles = name in ("new-subjects", "new-both"), name in ("new-styles", "new-both")
    data = Miniature(size=32, split=name)
    for index in range(40):
        labels = data.triplet(index).labels
        assert labels.style_subject is not None and labels.style_subject != labels.subject
        for subject in (labels.subject, labels.style_subject):
            assert (subject in NEW_SUBJECTS) == new_subjects
        assert (labels.style in NEW_STYLES) == new_styles
        single = data.sample(index).labels
        assert (single.subject in NEW_SUBJECTS) == new_subjects
        assert single.style is None or (single.style in NEW_STYLES) == new_styles


def test_strangers_are_neither_known_nor_held_out() -> None:
    """Catches a stranger that a base model was taught, and one that training must not show."""
    glyphs = {subject.glyph for subject in UNNAMED_SUBJECTS}
    assert len(glyphs) == len(UNNAMED_SUBJECTS) > 500
    assert not glyphs & {subject.glyph for subject in (*SUBJECTS, *PROPS)}
    names = {subject.name for subject in UNNAMED_SUBJECTS}
    assert not names & NEW_SUBJECTS and all(name.isalpha() and len(name) <= MOST_LETTERS for name in names)


def test_an_unknown_split_is_refused() -> None:
    """Catches a typo that would quietly draw the training data."""
    with pytest.raises(ConfigError, match=r"no split 'test'\. Choose one of: train, seen, new-subjects"):
        split("test")
    with pytest.raises(ConfigError, match="no split"):
        Miniature(split="held-out")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 16},
        {"size": 4096},
        {"seed": -1},
        {"moved": 1.5},
        {"plain": -0.1},
        {"strangers": 2.0},
        {"same_pose": 2},
        {"two_styles": -1},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """Catches a number that would fail deep inside, or draw something else."""
    with pytest.raises(ConfigError):
        Miniature(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="counted from 0"):
        Miniature().sample(-1)


def test_every_stranger_has_a_glyph_and_colours() -> None:
    for subject in UNNAMED_SUBJECTS:
        pixels = glyph(subject)
        cover = pixels[..., 3] > 0.5
        assert 0.04 < cover.mean() < 0.98 and pixels[..., :3][cover].std() > 0.02, subject.glyph
