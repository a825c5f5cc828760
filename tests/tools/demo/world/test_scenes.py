"""Subjects, places and contact sheets."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from tests.support.drawn import needs_font, scene
from tools.demo.world import subjects as subjects_module
from tools.demo.world.pictures import style_sheet, triplet_sheet
from tools.demo.world.places import PLACES, Place, draw_place
from tools.demo.world.scenes import draw_scene
from tools.demo.world.sketch import TIMES
from tools.demo.world.styles import STYLES
from tools.demo.world.subjects import PROPS, SUBJECTS, Subject, glyph
from tools.demo.world.triplets import Miniature
from uso.errors import ConfigError

pytestmark = needs_font


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


def test_sheets_show_everything() -> None:
    """Catches a contact sheet that leaves a style out or cannot be drawn."""
    sheet = style_sheet(48, seed=0, columns=2)
    assert sheet.size == (2 * 52, (len(STYLES) + 1) * (48 + 4 + 16))
    rows = triplet_sheet(Miniature(size=48), first=3, count=2)
    assert rows.height == 2 * (48 + 4 + 16) and rows.width > 3 * 48
    wider = triplet_sheet(Miniature(size=48, two_styles=1.0), first=3, count=2)
    assert wider.size == (rows.width + 48 + 4, rows.height)
