"""The training data's file: JSON lines, one row per target picture, with paths relative to the file.

    {"prompt": "", "content": "a-content.png", "styles": ["a-style.png"], "target": "a.png", "layout": "kept"}

`parse_row` says what a row is, for training and for `check.py`. Pictures are not looked at. Plain data, no torch.
"""

import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from uso.config import Strict
from uso.errors import RequestError
from uso.files import read_text

_READ = ("prompt", "content", "styles", "target", "layout", "sentence")

_ALIKE = 0.75
"""Of 1: how near an unknown key must be to one that a row lacks to be a typing error, and no label."""


class Row(Strict):
    """One target picture and what leads to it.

    `content` is null where nothing shows the subject, `styles` empty where nothing shows the style. An empty `prompt`
    means that the layout is kept. All other keys are labels, and are kept.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    prompt: str = ""
    content: str | None = None
    styles: tuple[str, ...] = Field(default=(), strict=False)
    target: str
    layout: Literal["kept", "moved"] | None = None
    sentence: str | None = None
    """What the target shows, whatever the prompt is."""
    style_2: str | None = None
    """Name of the second style, of a target in two."""

    @field_validator("styles", mode="before")
    @classmethod
    def _none(cls, styles: Any) -> Any:
        return () if styles is None else styles

    @property
    def labels(self) -> dict[str, Any]:
        """All other keys."""
        return self.model_extra or {}

    @property
    def moved(self) -> bool:
        """Whether the target's layout is another than the content's."""
        return self.content is not None and (self.layout == "moved" or (self.layout is None and bool(self.prompt)))

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
        RequestError: no JSON object, a misspelt or missing key, a value that nothing can be learned from.
    """
    try:
        values = json.loads(line)
    except ValueError as error:
        raise RequestError(f"It is not JSON ({error}). A row is one line, quotes inside texts escaped.") from error
    if not isinstance(values, dict):
        raise RequestError('It is no JSON object. A row is {"prompt", "content", "styles": [...], "target"}.')
    return checked_row(values)


def checked_row(values: dict[str, Any]) -> Row:
    """A row from its values.

    Raises:
        RequestError: as `parse_row`.
    """
    absent = [key for key in _READ if key not in values]
    for key in values:
        near = [] if key in Row.model_fields else difflib.get_close_matches(key, absent, 1, _ALIKE)
        if near:
            raise RequestError(f'There is no "{key[:60]}". Did you mean "{near[0]}"?')
    try:
        row = Row.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f'"{where}": {first["msg"]}.') from error
    for what, name in row.pictures():
        if not name or "\0" in name:
            raise RequestError(f'"{what}" names no file.')
        if what != "target" and name == row.target:
            raise RequestError(f'"{what}" is the target itself: the network would learn to copy.')
    if row.layout == "moved" and not row.prompt.strip():
        raise RequestError(
            '"prompt" is empty though "layout" is "moved": describe the target, or label the layout "kept".'
        )
    return row


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
