"""Drawn triplets: shares, poses, two styles; the same numbers give the same bytes."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.drawn import edge_map, needs_font, scene
from tools.demo.world import triplets as triplets_module
from tools.demo.world.scenes import moved
from tools.demo.world.styles import STYLES, blended, draw_styled
from tools.demo.world.subjects import SUBJECTS
from tools.demo.world.triplets import SPLITS, Miniature, Triplet, split
from tools.demo.world.unnamed_subjects import UNNAMED_SUBJECTS
from uso.config import ROOT
from uso.errors import ConfigError

pytestmark = needs_font


def test_strangers_come_in_their_share_and_in_training_alone() -> None:
    """Catches a label that says nothing, and data drawn before that would be other data now."""
    names = {subject.name for subject in UNNAMED_SUBJECTS}
    drawn = [Miniature(size=32, strangers=0.5).triplet(index).labels for index in range(60)]
    strange = [labels for labels in drawn if labels.stranger]
    assert 15 < len(strange) < 45
    assert all({labels.subject, labels.style_subject} <= names for labels in strange)
    known = {subject.name for subject in SUBJECTS}
    assert all({labels.subject, labels.style_subject} <= known for labels in drawn if not labels.stranger)
    assert "stranger" not in Miniature(size=32).triplet(0).labels.as_json()
    for name in SPLITS[1:]:
        with pytest.raises(ConfigError, match=f"none in the split '{name}'"):
            Miniature(size=32, split=name, strangers=0.5)


def test_a_same_pose_is_another_place_around_the_same_subject() -> None:
    """Catches a subject that moves though it was told not to, one that stays where it was, and a label that lies."""
    for number in range(60):
        random = np.random.default_rng(number)
        before = scene(SUBJECTS[number % len(SUBJECTS)], number)
        after = moved(before, random, same_pose=True)
        assert after.place != before.place and after.place.floating == before.place.floating
        assert replace(after, place=before.place, time=before.time, prop=before.prop, seed=before.seed) == before
        assert before.prop is not None or after.prop is None
        assert moved(before, random).scale != before.scale


def test_same_poses_come_in_their_share_of_moved_triplets() -> None:
    """Catches a share of all triplets, and data drawn before that would be other data now."""
    drawn = [Miniature(size=32, same_pose=0.5).triplet(index).labels for index in range(60)]
    still = [labels for labels in drawn if labels.same_pose]
    assert 5 < len(still) < 25 and all(labels.layout == "moved" for labels in still)
    plain = [Miniature(size=32, moved=1.0).triplet(index) for index in range(3)]
    assert [triplet.prompt for triplet in plain] == [
        "The backpack is on a stage.",
        "The elephant stands in front of a plain wall.",
        "The pig swims on the sea in fog.",
    ]  # as before there were same poses
    assert not any("same_pose" in triplet.labels.as_json() for triplet in plain)


def test_two_styles_come_in_their_share_and_leave_the_others_as_they_were() -> None:
    """Catches a share of plain ones too, and data drawn before that would be other data now."""
    before, mixed = (Miniature(size=32, plain_triplets=0.5, two_styles=share) for share in (0.0, 0.5))
    found = 0
    for index in range(80):
        one, other = before.triplet(index), mixed.triplet(index)
        assert one.style_2 is None and not any(key.endswith("_2") for key in one.labels.as_json())
        if other.style_2 is None:
            assert digest(one) == digest(other)
            continue
        found += 1
        assert one.labels.style is not None and not np.array_equal(one.target, other.target)
        assert (one.content == other.content).all() and (one.style == other.style).all()
        assert (one.prompt, one.sentence) == (other.prompt, other.sentence)
        assert replace(other.labels, style_2=None, style_subject_2=None, params_2={}) == one.labels
    assert 10 < found < 30  # half of the half that is not plain


@pytest.mark.parametrize("name", SPLITS)
def test_a_second_style_is_another_one_of_the_split(name: str) -> None:
    """Catches one style twice, a subject shown twice, and what is held out in a second style image."""
    data = Miniature(size=32, split=name, two_styles=1.0)
    phrases = {style.name: style.phrase for style in STYLES}
    for index in range(20):
        triplet, part = data.triplet(index), split(name)
        labels = triplet.labels
        assert {labels.style, labels.style_2} <= {style.name for style in part.styles} and labels.params_2
        assert labels.style is not None and labels.style_2 is not None and labels.style != labels.style_2
        shown = {labels.subject, labels.style_subject, labels.style_subject_2}
        assert len(shown) == 3 and shown <= {subject.name for subject in part.subjects}
        assert triplet.caption.startswith(f"{phrases[labels.style]} and {phrases[labels.style_2]} of a")
        assert triplet.style_2 is not None and not np.array_equal(triplet.style, triplet.style_2)


def test_a_target_in_two_styles_wears_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a target that follows one of its styles, and a second picture of another scene or in another style."""
    drawn: list[NDArray[np.uint8]] = []

    def watched(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
        drawn[:] = [first, second]
        return blended(first, second)

    monkeypatch.setattr(triplets_module, "blended", watched)
    alone, both = Miniature(size=64), Miniature(size=64, two_styles=1.0)
    likeness = []
    for index in range(24):
        target = both.triplet(index).target
        assert np.array_equal(drawn[0], alone.triplet(index).target)
        pictures = np.stack(drawn).astype(np.float64)
        to_mean = np.abs(target - pictures.mean(0)).mean()
        to_either = np.abs(target - pictures).mean((1, 2, 3)).min()
        assert to_either > max(4, to_mean)
        likeness.append(np.corrcoef([edge_map(picture).ravel() for picture in drawn])[0, 1])
    assert np.mean(likeness) > 0.4


def digest(triplet: Triplet) -> str:
    pixels = b"".join(part.tobytes() for part in (triplet.content, triplet.style, triplet.target))
    words = json.dumps([triplet.prompt, triplet.caption, triplet.labels.as_json()])
    return hashlib.sha256(pixels + words.encode()).hexdigest()


def test_another_process_draws_the_same_bytes() -> None:
    """Catches a hash seed, a clock, or what was drawn before, in the pictures: a run could not be repeated."""
    code = (
        "import sys, cv2; from tests.tools.demo.world.test_triplets import digest, Miniature; cv2.setNumThreads(1);"
        "print(*(digest(Miniature(seed=5, size=64).triplet(index)) for index in map(int, sys.argv[1:])))"
    )
    order = [str(index) for index in reversed(range(12))]
    done = subprocess.run([sys.executable, "-c", code, *order], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    data = Miniature(seed=5, size=64)
    assert done.stdout.split() == [digest(data.triplet(index)) for index in reversed(range(12))]


def test_seed_split_and_index_all_count() -> None:
    """Catches two streams that share their numbers: a validation picture would be a training picture."""
    data = Miniature(size=32)
    others = [data, replace(data, seed=1), replace(data, split="seen")]
    digests = [digest(one.triplet(index)) for one in others for index in range(4)]
    assert len(set(digests)) == len(digests)


def test_the_size_changes_nothing_but_the_size() -> None:
    """Catches a draw that depends on the number of pixels: a sample at 256 would show another scene."""
    small, large = Miniature(size=64), Miniature(size=128)
    for index in range(12):
        left, right = small.triplet(index), large.triplet(index)
        assert left.labels == right.labels and left.prompt == right.prompt
        shrunk = cv2.resize(right.content, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk.astype(int) - left.content).mean() < 12


def test_target_and_style_image_share_the_style_s_numbers() -> None:
    """Catches a style image in one palette and its target in another: there would be nothing to learn from it."""
    poster = next(style for style in STYLES if style.name == "gouache")
    random = np.random.default_rng(0)
    first, second = poster.draw(random), poster.draw(random)

    def mean(params: dict[str, object], number: int) -> NDArray[np.float64]:
        one = draw_styled(scene(SUBJECTS[number], number), poster, params, 64, np.random.default_rng(number))
        return np.median(cv2.cvtColor(one, cv2.COLOR_RGB2LAB).reshape(-1, 3), 0)[1:]

    same, other = (np.linalg.norm(mean(first, 3) - mean(params, 9)) for params in (first, second))
    assert same < other
