"""Keep input size: the picture takes the content image's shape, within the model's range."""

import io
import random

import pytest
from PIL import Image, ImageOps

from uso.errors import RequestError
from uso.images.pixels import keep_input_size, open_image


def test_keep_input_size_holds_its_promise_for_every_shape() -> None:
    """Aspect kept within a token per side, in range; own size where it is supported; refused beyond."""
    rng = random.Random(2)
    seen = {"kept": 0, "scaled": 0, "refused": 0}
    for _ in range(20_000):
        width, height = (int(2 ** rng.uniform(6, 12)) for _ in range(2))
        short, long = min(width, height), max(width, height)
        if long * 256 > 1536 * short:
            with pytest.raises(RequestError):
                keep_input_size(width, height, 512, 1536)
            seen["refused"] += 1
            continue
        size = keep_input_size(width, height, 512, 1536)
        assert size[0] % 16 == size[1] % 16 == 0
        assert min(size) >= 256 and max(size) <= 1536
        if short >= 512 and long <= 1536:
            assert abs(size[0] - width) < 16 and abs(size[1] - height) < 16
            seen["kept"] += 1
            continue
        # Some scale puts both sides less than a token away from the exact ones.
        low = max((size[0] - 16) / width, (size[1] - 16) / height)
        high = min((size[0] + 16) / width, (size[1] + 16) / height)
        assert low < high
        assert max(size) == 1536 or min(size) == 512  # no smaller or larger than it has to be
        seen["scaled"] += 1
    assert min(seen.values()) > 500


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((1024, 768), (1024, 768)),  # supported: its own size
        ((1000, 600), (1008, 608)),  # nearest multiples of 16
        ((300, 300), (512, 512)),  # scaled up into the range
        ((4000, 3000), (1536, 1152)),  # scaled down into it
        ((3000, 1000), (1536, 512)),
        ((600, 100), (1536, 256)),  # the longest that is kept: the short side at half the minimum
        ((100, 600), (256, 1536)),
    ],
)
def test_keep_input_size_by_example(given: tuple[int, int], kept: tuple[int, int]) -> None:
    assert keep_input_size(*given, 512, 1536) == kept


def test_keep_input_size_refuses_longer_shapes_in_words() -> None:
    message = (
        r"Keep input size cannot keep 6100 x 1000: at most 1536:256 \(6 to 1\) is supported\. Crop the content image"
    )
    with pytest.raises(RequestError, match=message):
        keep_input_size(6100, 1000, 512, 1536)


def test_keep_input_size_counts_the_upright_size() -> None:
    """Taken before EXIF orientation, a portrait photograph would become a landscape."""
    image = ImageOps.expand(Image.new("RGB", (600, 200), "red"), 20)
    exif = Image.Exif()
    exif[0x0112] = 8
    image.save(buffer := io.BytesIO(), "JPEG", exif=exif)
    assert keep_input_size(*open_image(buffer.getvalue()).size, 128, 384) == (144, 384)
