"""Contact sheets: rows of pictures under named columns, with a line of words under each row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from uso.errors import ConfigError

ROWS = 12
"""Most rows of a sheet."""

GAP, TEXT = 4, 16
"""Pixels between pictures, and for a line of words under one."""

_FONT_SIZE = 11
_MARK = "..."
"""Ends words that were cut off."""


@dataclass(frozen=True)
class SheetRow:
    """One row: pictures [side, side, 3] by the names of their columns, None for an empty place, and words below."""

    pictures: dict[str, NDArray[np.uint8] | None]
    words: str = ""


def contact_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Rows under each other, columns named at the top; a column in which nothing is shown is left out.

    Args:
        rows: 1 to `ROWS`, with the same columns, square pictures of one size.

    Raises:
        ConfigError: none, or too many.
    """
    if not 1 <= len(rows) <= ROWS:
        raise ConfigError(f"A contact sheet has 1 to {ROWS} rows, not {len(rows)}. Choose fewer pictures.")
    columns = [name for name in rows[0].pictures if any(row.pictures[name] is not None for row in rows)]
    side = next(len(picture) for picture in rows[0].pictures.values() if picture is not None)
    width, height = side + GAP, side + TEXT + GAP
    sheet = Image.new("RGB", (len(columns) * width - GAP, TEXT + len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for across, name in enumerate(columns):
        draw.text((across * width, 0), name, fill="black", font=font)
    for down, row in enumerate(rows):
        top = TEXT + down * height
        for across, name in enumerate(columns):
            picture = row.pictures[name]
            if picture is not None:
                sheet.paste(Image.fromarray(picture), (across * width, top))
        draw.text((0, top + side), _fitting(row.words, font, sheet.width), fill="grey", font=font)
    return sheet


def _fitting(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + _MARK) > width:
        words = words[:-1]
    return words + _MARK
