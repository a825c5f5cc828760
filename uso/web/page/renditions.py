"""Images that browsers cannot show, such as TIFF and JPEG 2000, and saved styles, as small pictures that they can."""

import io
from contextlib import suppress
from typing import Any

from uso.errors import ImageError
from uso.images.formats.kinds import kind_of
from uso.images.pixels import MAX_PIXELS
from uso.request.references import ReferenceImage, SavedStyle
from uso.web.api.files import uploaded
from uso.web.page import html
from uso.web.page.scripts import RENDERED

SHOWN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")
"""Formats that every browser shows."""

SIDE = 384
"""Pixels: twice the height of an image field, for dense screens."""


def renditions(values: tuple[Any, ...], max_pixels: int = MAX_PIXELS) -> dict[str, str]:
    """By the path of an uploaded image that browsers cannot show: a small WebP of it, as a data URL. Decodes it.

    Args:
        values: raw values of image fields. Those that have their rendition are left out, and so are files that are
            refused: the page tells why elsewhere.
    """
    found = {}
    for value in values:
        with suppress(ImageError):
            reference = None if _has_rendition(value) else uploaded(value, max_pixels)
            if reference is not None and (isinstance(reference, SavedStyle) or kind_of(reference.data) not in SHOWN):
                found[value["path"]] = _rendition(reference)
    return found


def _has_rendition(value: Any) -> bool:
    return isinstance(value, dict) and value.get("mime_type") == RENDERED


def _rendition(reference: ReferenceImage) -> str:
    image = reference.image.copy()
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return html.webp(buffer.getvalue())
