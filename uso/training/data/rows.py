"""The training data's file: JSON lines, one row per target picture, with paths relative to the file.

    {"prompt": "", "content": "a-content.png", "styles": ["a-style.png"], "target": "a.png", "layout": "kept"}

This module parses rows; `check.py` looks at their pictures. Plain data, no torch.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from uso.config import Strict
from uso.errors import RequestError
from uso.files import read_text


class Row(Strict):
    """One target picture and what leads to it.

    `content` is null where only a style leads to the target, `styles` empty where only a content image does. An empty
    `prompt` means that the layout is kept. What follows `target` are labels, which may be left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: str
    content: str | None = None
    styles: tuple[str, ...] = Field(default=(), max_length=8, strict=False)
    target: str
    layout: Literal["kept", "moved"] | None = None
    sentence: str | None = None
    """What the target shows, whatever the prompt is."""
    caption: str | None = None
    """What the target shows, and in which style."""
    subject: str | None = None
    style: str | None = None
    style_subject: str | None = None
    stranger: bool | None = None
    same_pose: bool | None = None
    style_2: str | None = None
    """Where there are two styles, the second one; so for the others below that end in 2."""
    style_subject_2: str | None = None
    place: str | None = None
    time: str | None = None
    split: str | None = None
    seed: int | None = None
    index: int | None = None
    params: dict[str, Any] | None = None
    """The numbers of a drawn style."""
    params_2: dict[str, Any] | None = None
    scores: dict[str, float] | None = None
    """What filters measured."""

    def pictures(self) -> Iterator[tuple[str, str]]:
        """(what it is called, path) of every picture."""
        if self.content is not None:
            yield "content", self.content
        for number, style in enumerate(self.styles, start=1):
            yield f"styles[{number}]", style
        yield "target", self.target

    def line(self) -> str:
        """The row as a line of the file."""
        return json.dumps(self.model_dump(exclude_none=True), ensure_ascii=False) + "\n"


def parse_row(line: str) -> Row:
    """A row from a line of the file.

    Raises:
        RequestError: no JSON object, an unknown or missing key, a wrong value.
    """
    try:
        values = json.loads(line)
    except ValueError as error:
        raise RequestError(f"It is not JSON ({error}). A row is one line, quotes inside texts escaped.") from error
    if not isinstance(values, dict):
        raise RequestError('It is no JSON object. A row is {"prompt", "content", "styles": [...], "target"}.')
    unknown = [key for key in values if key not in Row.model_fields]
    if unknown:
        raise RequestError(f"There is no {unknown[0][:60]!r}. The keys of a row are: {', '.join(Row.model_fields)}.")
    try:
        return Row.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f'"{where}": {first["msg"]}.') from error


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of every line that is not empty.

    Raises:
        RequestError: the file cannot be read, is no text, or holds no rows.
    """
    text = read_text(path, "rows file", RequestError)
    # Not splitlines(): it also breaks at characters that may stand inside a JSON text.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise RequestError(f"The rows {path} hold no row; one or more JSON lines are needed.")
    return lines


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, in order; pictures are not looked at.

    Raises:
        RequestError: the first line that is no row, by number.
    """
    rows = []
    for number, line in numbered_lines(path):
        try:
            rows.append(parse_row(line))
        except RequestError as error:
            raise RequestError(f"{path}, line {number}: {error}") from error
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(row.line() for row in rows)
    draft.replace(path)
