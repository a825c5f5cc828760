"""References as the model sees them: the pixels that `uso/pipeline/` gives to its encoders."""

import io
from typing import NamedTuple

from PIL import Image

from uso.config import ModelConfig, architecture_file, read_component_config
from uso.images.pixels import check_reference, fit_reference
from uso.language import Text
from uso.request.references import ReferenceImage, SavedStyle
from uso.web.page import html


class View(NamedTuple):
    """What the model sees of a reference."""

    image: Image.Image
    words: str
    """What was done to the file's picture, as a sentence."""


def content_view(reference: ReferenceImage, long_side: int) -> View:
    """A content image as the autoencoder reads it.

    Raises:
        ImageError: it is too long and thin.
    """
    check_reference(*reference.image.size, long_side, reference.name)
    fitted = fit_reference(reference.image, long_side)
    size = f"{fitted.width} × {fitted.height}"
    return View(
        fitted, Text("Resized to a long side of {} pixels, its edges cropped to multiples of 16: {}.", long_side, size)
    )


def style_view(config: ModelConfig, reference: ReferenceImage) -> View:
    """A style image as SigLIP reads it: the same square for every shape."""
    if isinstance(reference, SavedStyle):
        return View(reference.image, Text("A saved style. The model reads its style tokens, not this thumbnail."))
    settings = read_component_config(architecture_file(config, "image_processor"))
    size = settings["size"]["width"], settings["size"]["height"]
    squashed = reference.image.resize(size, Image.Resampling(settings["resample"]))
    if reference.image.width == reference.image.height:
        return View(squashed, Text("Resized to a square of {} × {} pixels, whatever its shape.", *size))
    return View(squashed, Text("Squashed to a square of {} × {} pixels, whatever its shape.", *size))


def data_url(image: Image.Image) -> str:
    """The very pixels, as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=0)  # quick; larger than it could be
    return html.webp(buffer.getvalue())
