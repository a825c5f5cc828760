"""Contact sheets of what a model was given, made, and should have made; and all its pictures as files."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tools.demo.judge.material import Task
from tools.demo.judge.scores import Batch
from tools.demo.world.sheet import GAP, TEXT
from tools.demo.world.triplets import Pixels
from uso.errors import ConfigError

ROWS = 12
"""Most rows of a sheet."""

_FONT_SIZE = 11
_MARK = "..."
"""Ends words that were cut off."""


@dataclass(frozen=True)
class SheetRow:
    """One row: pictures [side, side, 3] by the names of their columns, None for an empty place, and words below."""

    pictures: dict[str, Pixels | None]
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


def row_of(task: Task, results: dict[str, Pixels]) -> SheetRow:
    """A task, what models made of it, and the truth."""
    looks = [name for name in (task.subject, task.style_name, task.style_name_2) if name]
    told = task.prompt or "(no words: layout kept)"
    return SheetRow(
        {"content": task.content, "style": task.style, "style 2": task.style_2, **results, "truth": task.truth},
        f"{', '.join(looks)}: {told}",
    )


class Album:
    """A folder with every picture, `CONDITION/MODEL/INDEX.png`, and `CONDITION.png`, a sheet of the first ones.

    Nothing is selected. Files of the same names are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, list[SheetRow]] = defaultdict(list)

    def add(self, batch: Batch) -> None:
        """Write a batch's pictures, and the sheet while it still grows."""
        rows = self._rows[batch.condition.name]
        grew = len(rows) < ROWS
        for place, task in enumerate(batch.tasks):
            made = {name: pictures[place] for name, pictures in batch.results.items()}
            for name, picture in made.items():
                path = self.folder / batch.condition.name / name / f"{task.index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
            if len(rows) < ROWS:
                rows.append(row_of(task, made))
        if grew:
            contact_sheet(rows).save(self.folder / f"{batch.condition.name}.png")
