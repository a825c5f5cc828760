"""Preparation follows torchvision, whose rules are written down here in its own terms."""

import numpy as np
from PIL import Image

from uso.evaluation.metrics.pixels import crop_corner, prepare_picture, resized_size


def test_sizes_are_torchvision_s() -> None:
    """Catches a long side that is rounded instead of cut."""
    assert resized_size(1000, 333, 224) == (672, 224)
    assert resized_size(300, 500, 224) == (224, 373)


def test_the_crop_is_torchvision_s() -> None:
    """`int(round((height - crop) / 2.0))`: catches halves that are always rounded down, one pixel off for one size in
    four."""
    assert [crop_corner(224 + more, 224, 224)[0] for more in range(8)] == [0, 0, 1, 2, 2, 2, 3, 4]
    assert crop_corner(224, 224 + 3, 224) == (0, 2)


def test_the_crop_is_where_it_says() -> None:
    """Catches left for top, and a picture that is squeezed instead of cropped: column 2 of 7 is the first kept."""
    columns = np.tile(np.arange(7, dtype=np.uint8) * 10, (4, 1))
    picture = Image.fromarray(np.stack([columns] * 3, axis=-1))
    kept = prepare_picture(picture, 4, 4, (0, 0, 0), (1 / 255, 1 / 255, 1 / 255))
    assert kept.shape == (3, 4, 4)
    np.testing.assert_allclose(kept[0], np.tile([20, 30, 40, 50], (4, 1)), atol=1e-3)
