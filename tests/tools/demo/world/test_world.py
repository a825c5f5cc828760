"""The drawn data: what is held out stays out, the same numbers give the same bytes, styles and subjects can be told.

Without the emoji font the tests are skipped; where CI is set they must run.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tools.demo.world import subjects as subjects_module
from tools.demo.world import triplets as triplets_module
from tools.demo.world.places import PLACES, Place, draw_place
from tools.demo.world.scenes import Scene, caption_words, compose, draw_look, draw_scene, moved
from tools.demo.world.sheet import style_sheet, triplet_sheet
from tools.demo.world.sketch import TIMES
from tools.demo.world.styles import STYLES, Style, blended, draw_styled
from tools.demo.world.subjects import PROPS, SUBJECTS, Subject, glyph
from tools.demo.world.triplets import SPLITS, Miniature, Triplet, split
from tools.demo.world.unnamed_subjects import MOST_LETTERS, STRANGERS
from uso.config import ROOT
from uso.errors import ConfigError

HAS_FONT = any(path.is_file() for path in subjects_module.FONT_PLACES)
needs_font = pytest.mark.skipif(not HAS_FONT and not os.environ.get("CI"), reason="Noto Color Emoji is not installed")
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


def scene(subject: Subject, seed: int) -> Scene:
    random = np.random.default_rng(seed)
    return compose(draw_look(subject, random), random)


# What there is, and what is held out


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
    glyphs = {subject.glyph for subject in STRANGERS}
    assert len(glyphs) == len(STRANGERS) > 500
    assert not glyphs & {subject.glyph for subject in (*SUBJECTS, *PROPS)}
    names = {subject.name for subject in STRANGERS}
    assert not names & NEW_SUBJECTS and all(name.isalpha() and len(name) <= MOST_LETTERS for name in names)


def test_strangers_come_in_their_share_and_in_training_alone() -> None:
    """Catches a label that says nothing, and data drawn before that would be other data now."""
    names = {subject.name for subject in STRANGERS}
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


def test_a_blend_is_the_mean_and_knows_no_order() -> None:
    """Catches a blend that leans to the first of two pictures, and one that is washed out.

    By hand: a bright and a dark half, and stripes; their mean has half of each one's contrast, times sqrt(2) at most.
    """
    halves, stripes = np.full((8, 8, 3), 200, np.uint8), np.full((8, 8, 3), 100, np.uint8)
    halves[:, :4], stripes[::2] = 40, 60
    blend = blended(halves, stripes)
    assert np.array_equal(blend, blended(stripes, halves)) and np.array_equal(blended(halves, halves), halves)
    mean = (halves.astype(float) + stripes) / 2
    gain = np.sqrt((halves.var() + stripes.var()) / 2) / mean.std()
    assert 1.3 < gain < 1.5
    np.testing.assert_allclose(blend, (mean - mean.mean()) * gain + mean.mean(), atol=0.51)
    grey = blended(halves, 240 - halves)  # negatives: nothing is left whose contrast could be restored
    assert (grey == 120).all()


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


def test_a_missing_font_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a stack trace on a machine that lacks the package."""
    monkeypatch.setattr(subjects_module, "FONT_PLACES", ())
    monkeypatch.setattr(subjects_module, "FONT_FILE", "no-such-font.ttf")
    subjects_module.font.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"sudo apt-get install fonts-noto-color-emoji$"):
            subjects_module.font()
    finally:
        subjects_module.font.cache_clear()


# Determinism


def digest(triplet: Triplet) -> str:
    pixels = b"".join(part.tobytes() for part in (triplet.content, triplet.style, triplet.target))
    words = json.dumps([triplet.prompt, triplet.caption, triplet.labels.as_json()])
    return hashlib.sha256(pixels + words.encode()).hexdigest()


def test_another_process_draws_the_same_bytes() -> None:
    """Catches a hash seed, a clock, or what was drawn before, in the pictures: a run could not be repeated."""
    code = (
        "import sys, cv2; from tests.tools.demo.world.test_world import digest, Miniature; cv2.setNumThreads(1);"
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


# Words


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


# Pictures


def test_every_stranger_has_a_glyph_and_colours() -> None:
    for subject in STRANGERS:
        pixels = glyph(subject)
        cover = pixels[..., 3] > 0.5
        assert 0.04 < cover.mean() < 0.98 and pixels[..., :3][cover].std() > 0.02, subject.glyph


@pytest.mark.parametrize("subject", [*SUBJECTS, *PROPS], ids=lambda subject: subject.name)
def test_every_glyph_is_there(subject: Subject) -> None:
    """Catches a glyph that the font lacks: an empty box, or nothing at all."""
    pixels = glyph(subject)
    cover = pixels[..., 3] > 0.5
    assert 0.08 < cover.mean() < 0.95
    assert pixels[..., :3][cover].std() > 0.02  # colours, not a black shape


def test_glyphs_differ_in_shape() -> None:
    """Catches two subjects that nobody could tell apart once a style has taken their colours."""
    shapes = np.stack([cv2.resize(glyph(subject), (24, 24), interpolation=cv2.INTER_AREA) for subject in SUBJECTS])
    tone = shapes[..., :3].mean(-1) * shapes[..., 3] + (1 - shapes[..., 3])
    flat = tone.reshape(len(SUBJECTS), -1)
    distance = np.abs(flat[:, None] - flat[None]).mean(-1) + np.eye(len(SUBJECTS))
    assert distance.min() > 0.05


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_every_place_is_drawn_at_all_times(place: Place) -> None:
    """Catches a background that leaves its range, or looks the same whatever the numbers are."""
    drawn = [draw_place(place, time, 64, np.random.default_rng(seed)) for time in TIMES for seed in (0, 1)]
    for picture in drawn:
        assert picture.shape == (64, 64, 3) and picture.min() >= 0 and picture.max() <= 1
    assert all(np.abs(left - right).mean() > 0.005 for left, right in pairwise(drawn[:2]))


def test_a_subject_stands_out_from_its_background() -> None:
    """Catches a grey seal in grey fog: what the picture shows could not be learned from it."""
    apart = []
    for number, subject in enumerate(SUBJECTS):
        picture = draw_scene(scene(subject, number), 64)
        near = (cv2.dilate(picture.mask, np.ones((9, 9))) > 0.5) & (picture.mask < 0.05)
        inside = picture.mask > 0.5
        assert 0.05 < inside.mean() < 0.75
        apart.append(np.abs(picture.rgb[inside].mean(0) - picture.rgb[near].mean(0)).max())
    assert np.mean(np.array(apart) > 0.1) > 0.97


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_style_keeps_its_numbers_and_its_range(style: Style) -> None:
    """Catches parameters that JSON cannot hold, a picture of another size, and one that came out empty."""
    params = style.draw(np.random.default_rng(3))
    assert json.loads(json.dumps(params)) == params
    for size in (48, 192):  # painted larger, and not
        one = draw_styled(scene(SUBJECTS[0], 1), style, params, size, np.random.default_rng(0))
        assert one.shape == (size, size, 3) and one.dtype == np.uint8
        assert one.std() > 8


def features(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Histograms of colours and gradients, the spectrum by distance from the middle, and the border's colour."""
    rgb = pixels.astype(np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB) / 100
    light = lab[..., 0]
    across, down = (cv2.Scharr(light, cv2.CV_32F, *way) / 16 for way in ((1, 0), (0, 1)))
    steep = np.hypot(across, down)
    ranges = ((0, 1), (-0.6, 0.6), (-0.6, 0.6))
    counts = [np.histogram(lab[..., channel], 8, limits)[0] for channel, limits in enumerate(ranges)]
    counts.append(np.histogram(steep, [0, 0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 9])[0])
    turned = np.histogram(np.arctan2(down, across) % np.pi, 8, (0, np.pi), weights=steep)[0]
    counts.append(turned / (steep.sum() + 1e-6) * steep.size)
    power = np.abs(np.fft.fft2(light - light.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(len(light))] * 2))
    rings = [0.0, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5]
    spectrum = [power[(frequency >= low) & (frequency < high)].mean() for low, high in pairwise(rings)]
    border = rgb[:6].mean((0, 1)) - rgb[20:-20, 20:-20].mean((0, 1))
    return np.concatenate(
        [np.sqrt(np.concatenate(counts) / steep.size), 0.15 * np.log(np.array(spectrum) + 1e-3), border]
    )


def test_styles_can_be_told_apart_on_new_subjects() -> None:
    """Catches two styles that came to look alike. By the nearest of 36 mean feature vectors; chance is 2.8 %, and 88 %
    are right with 24 pictures of each style; here with ten."""
    old, new = ([subject for subject in SUBJECTS if subject.held_out == held] for held in (False, True))
    seen: list[NDArray[np.float64]] = []
    unseen: list[NDArray[np.float64]] = []
    number = 0
    for style in STYLES:
        for group, place, count in ((old, seen, 10), (new, unseen, 4)):
            for _ in range(count):
                random = np.random.default_rng(number)
                one = compose(draw_look(group[number % len(group)], random), random)
                place.append(features(draw_styled(one, style, style.draw(random), 128, random)))
                number += 1
    known = np.array(seen)
    middle, spread = known.mean(0), known.std(0) + 1e-6
    centres = ((known - middle) / spread).reshape(len(STYLES), 10, -1).mean(1)
    asked = (np.array(unseen) - middle) / spread
    nearest = ((asked[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    right = (nearest.reshape(len(STYLES), 4) == np.arange(len(STYLES))[:, None]).mean()
    assert right > 0.7


def edge_map(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where there are edges, blurred and standardised."""
    light = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    steep = np.hypot(cv2.Scharr(light, cv2.CV_32F, 1, 0), cv2.Scharr(light, cv2.CV_32F, 0, 1))
    soft = cv2.GaussianBlur(np.sqrt(steep), (0, 0), 2.5)
    return np.asarray((soft - soft.mean()) / soft.std(), np.float32)


def test_the_subject_survives_every_style() -> None:
    """Catches a style that paints its subject away: a kept layout's edges must be its own content image's, not those of
    another."""
    wins = {style.name: 0 for style in STYLES}
    for place, style in enumerate(STYLES):
        random = np.random.default_rng(place)
        params = style.draw(random)
        scenes = [
            scene(SUBJECTS[(7 * place + 11 * number) % len(SUBJECTS)], 10 * place + number) for number in range(4)
        ]
        contents = np.stack([edge_map((draw_scene(one, 128).rgb * 255).astype(np.uint8)) for one in scenes])
        targets = np.stack([edge_map(draw_styled(one, style, params, 128, random)) for one in scenes])
        agreement = np.einsum("ahw,bhw->ab", targets, contents)
        wins[style.name] = int((agreement.argmax(1) == np.arange(4)).sum())
    assert min(wins.values()) >= 2, wins  # ink wash leaves patterned walls out
    assert sum(wins.values()) >= 0.95 * 4 * len(STYLES)


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


def test_sheets_show_everything() -> None:
    """Catches a contact sheet that leaves a style out or cannot be drawn."""
    sheet = style_sheet(48, seed=0, columns=2)
    assert sheet.size == (2 * 52, (len(STYLES) + 1) * (48 + 4 + 16))
    rows = triplet_sheet(Miniature(size=48), first=3, count=2)
    assert rows.height == 2 * (48 + 4 + 16) and rows.width > 3 * 48
    wider = triplet_sheet(Miniature(size=48, two_styles=1.0), first=3, count=2)
    assert wider.size == (rows.width + 48 + 4, rows.height)
