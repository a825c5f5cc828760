"""Layout and fidelity, measured without the judge."""

import numpy as np
import pytest

from tests.conftest import draw_picture
from tools.demo.judge.structure import agreement, edge_map, psnr


def test_layout_agrees_whatever_the_colours() -> None:
    """Catches a measure of colours instead of edges, and one that a moved picture passes."""
    picture = np.asarray(draw_picture(128, 128, 3))
    edges = edge_map(picture)
    assert agreement(edges, edges) == pytest.approx(1)
    assert agreement(edges, edge_map(255 - picture)) == pytest.approx(1, abs=1e-3)
    padded = [np.pad(picture, ((0, 0), (by, 0), (0, 0)), mode="edge")[:, :128] for by in (1, 40)]
    nudged, moved = (agreement(edges, edge_map(other)) for other in padded)
    assert nudged > 0.8 and moved < 0.5
    assert agreement(edges, edge_map(np.asarray(draw_picture(128, 128, 4)))) < 0.5
    assert agreement(edges, edge_map(np.full_like(picture, 90))) == 0


def test_psnr_is_that_of_bytes() -> None:
    """An error of one step everywhere is 48.13 dB; plants a picture that is out by two."""
    picture = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(picture + 1, picture) == pytest.approx(48.13, abs=0.01)
    assert psnr(picture + 2, picture) == pytest.approx(42.11, abs=0.01) and psnr(picture, picture) == 100
