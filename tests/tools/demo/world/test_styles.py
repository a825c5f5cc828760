"""Styles can be told apart, and keep their numbers and the subject."""

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.drawn import edge_map, needs_font, scene
from tools.demo.world.scenes import compose, draw_look, draw_scene
from tools.demo.world.styles import STYLES, Style, blended, draw_styled
from tools.demo.world.subjects import SUBJECTS

pytestmark = needs_font


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


@pytest.mark.slow
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
