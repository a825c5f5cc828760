"""Captions and their words."""

import re

import pytest

from tests.support.drawn import needs_font
from tools.demo.world.scenes import caption_words
from tools.demo.world.styles import STYLES
from tools.demo.world.subjects import SUBJECTS
from tools.demo.world.triplets import Miniature

pytestmark = needs_font


def test_captions_say_what_is_there() -> None:
    """Catches a caption without its subject, and a layout label that contradicts the prompt."""
    data = Miniature(size=32)
    layouts = set()
    for index in range(60):
        triplet = data.triplet(index)
        labels = triplet.labels
        layouts.add(labels.layout)
        assert (triplet.prompt == "") == (labels.layout == "kept")
        assert triplet.sentence.startswith(f"The {labels.subject} ") and triplet.sentence.endswith(".")
        phrase = next(style.phrase for style in STYLES if style.name == labels.style)
        assert re.match(rf"{phrase} of an? {labels.subject} ", triplet.caption)
        assert ("at night" in triplet.sentence) == (labels.time == "night")
    assert layouts == {"kept", "moved"}


@pytest.mark.slow
def test_every_word_is_in_the_vocabulary() -> None:
    """Catches a caption with a word that a tokenizer trained on the vocabulary has never seen."""
    known = caption_words(style.phrase for style in STYLES)
    data = Miniature(size=32, split="new-both")
    for one in (Miniature(size=32), data, Miniature(size=32, two_styles=1.0)):
        for index in range(60):
            text = " ".join((one.sample(index).caption, one.triplet(index).sentence, one.triplet(index).caption))
            assert {word.lower() for word in re.findall(r"[\w-]+", text)} <= known
    assert 150 < len(known) < 400


def test_articles() -> None:
    """Catches "a owl" and "an unicorn"."""
    articles = {subject.name: subject.article for subject in SUBJECTS}
    assert [articles[name] for name in ("owl", "umbrella", "unicorn", "ice cream", "apple", "house")] == [
        "an",
        "an",
        "a",
        "an",
        "an",
        "a",
    ]
