"""Drawn pictures that are not square: their sizes, and subjects that are wholly in them."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.drawn import needs_font, scene
from tools.demo.shards.files import ROWS, make_files
from tools.demo.shards.sizes import sized_samples
from tools.demo.training.reader import load_reader_config
from tools.demo.world.scenes import draw_scene
from tools.demo.world.shapes import Shape
from tools.demo.world.subjects import SUBJECTS
from tools.demo.world.triplets import Miniature
from uso.errors import ConfigError
from uso.training.data.rows import read_rows

SIZES = [(128, 128), (192, 128), (128, 192), (240, 160), (192, 192), (256, 256)]

pytestmark = needs_font


@pytest.mark.parametrize("ratio", [1.5, 2 / 3])
def test_a_subject_is_wholly_in_the_cut(ratio: float) -> None:
    """Catches a cut through the subject, and one that is shown in another place than words say."""
    shape = Shape(64, ratio)
    for number, subject in enumerate(SUBJECTS[:40]):
        fitted = shape.fitted(scene(subject, number))
        mask = (draw_scene(fitted, shape.side).mask * 255).astype(np.uint8)
        inside = shape.cut(mask[..., None].repeat(3, axis=2), fitted)[..., 0]
        assert inside.shape[::-1] == shape.size and mask.any()
        assert inside.sum() > 0.97 * mask.sum(), subject.name


def test_targets_have_the_ratio_and_contents_whose_layout_they_keep_too() -> None:
    """Catches a width for a height, and a content image that no longer fits its target."""
    for number in range(12):
        triplet = Miniature(size=32, ratio=1.5, two_styles=0.5).triplet(number)
        assert triplet.target.shape == (32, 48, 3) and triplet.style.shape == (32, 32, 3)
        kept = triplet.labels.layout == "kept"
        assert triplet.content.shape == ((32, 48, 3) if kept else (32, 32, 3))
        assert "next to" not in triplet.sentence
    with pytest.raises(ConfigError, match="ratio of width to height is 3"):
        Miniature(ratio=3)


def test_the_stage_reads_every_size_as_it_was_drawn_and_every_way_of_use(tmp_path: Path) -> None:
    """Catches a bucket that crops or scales a size, and ways that are drawn and not read."""
    data = Miniature(grammar=0.3, plain_triplets=0.1, two_styles=0.2)
    list(make_files(tmp_path, data, 20, sizes=SIZES, every_way=True))
    rows = read_rows(tmp_path / ROWS)
    assert len(rows) > 20
    assert any(row.content is None and row.styles for row in rows)
    assert any(row.content is None and not row.styles for row in rows)
    assert any(row.prompt.startswith("Transform the style") for row in rows)
    config = load_reader_config("reader-sizes-mini", [f"sizes.rows={tmp_path / ROWS}"])
    assert config.sizes is not None
    samples = sized_samples(config, config.sizes, lambda _: None)
    sized = [row for row in rows if row.labels["index"] % len(SIZES)]  # the first size is that of the shards
    assert len(samples) == len(sized)
    for sample, row in zip(samples, sized, strict=True):
        assert sample.shape.target == SIZES[row.labels["index"] % len(SIZES)]
        assert sample.shape.content in (None, (128, 128), (128, 80), (80, 128))
