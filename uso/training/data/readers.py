"""Forms of training data, read as rows: a folder of pictures with captions, UNO's JSON, our JSON lines.

Every entry becomes a `Row` by the same rules. Pictures are not looked at. Needs no torch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uso.errors import RequestError
from uso.files import read_text
from uso.training.data.folders import SUFFIXES, caption_of, pictures_in
from uso.training.data.rows import Row, checked_row, numbered_lines, parse_row

Siblings = Literal["style", "content"]
"""What the other pictures of a folder are to one of them."""

_UNO_LEAST = 4.0
"""Least `score_final` of an entry of UNO-1M that is read; the paper of UNO trained on these alone."""


@dataclass(frozen=True)
class Entry:
    """One row that may yet be refused."""

    where: str
    """For messages: `line 3`, `entry 3`, the name of a picture."""
    row: Callable[[], Row]
    """Gives the row.

    Raises:
        RequestError: it is none.
    """


def read_entries(path: Path, siblings: Siblings | None = None, repeats: int = 1) -> tuple[Path, list[Entry]]:
    """(the folder that paths are relative to, all entries in order).

    Args:
        path: a folder, a `.json` file in UNO's format, or a file of JSON lines.
        siblings: in a folder, what another picture of it is to each; in every repeat it is another one.
        repeats: how often every entry is read.

    Raises:
        RequestError: it cannot be read, or holds nothing.
    """
    if path.is_dir():
        return path, _of_folder(path, siblings, repeats)
    if path.suffix.lower() == ".json":
        folder, entries = _of_uno(path)
    else:
        folder = path.parent
        entries = [Entry(f"line {number}", _parsed(line)) for number, line in numbered_lines(path)]
    return folder, entries * repeats


def _parsed(line: str) -> Callable[[], Row]:
    return lambda: parse_row(line)


def _of_folder(folder: Path, siblings: Siblings | None, repeats: int) -> list[Entry]:
    pictures = sorted(pictures_in(folder))
    if not pictures:
        raise RequestError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    if siblings is not None and len(pictures) == 1:
        raise RequestError(f"{folder} holds one picture, and none that could be its {siblings}.")
    names = [picture.relative_to(folder).as_posix() for picture in pictures]

    def entry(place: int, repeat: int) -> Entry:
        def row() -> Row:
            values: dict[str, Any] = {"prompt": caption_of(pictures[place]), "target": names[place]}
            if siblings is not None:
                other = names[(place + 1 + repeat % (len(names) - 1)) % len(names)]
                values |= {"styles": [other]} if siblings == "style" else {"content": other}
            return checked_row(values)

        return Entry(names[place], row)

    return [entry(place, repeat) for repeat in range(repeats) for place in range(len(names))]


def _of_uno(path: Path) -> tuple[Path, list[Entry]]:
    """Entries of a file that UNO trains on, or of the labels of UNO-1M, of which the well scored ones are read."""
    try:
        values = json.loads(read_text(path, "data file", RequestError))
    except ValueError as error:
        raise RequestError(f"{path} is not JSON ({error}). JSON lines end in .jsonl.") from error
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise RequestError(f'{path} is no list of entries such as {{"prompt", "image_paths", "image_tgt_path"}}.')
    labels = bool(values) and all("img_path1" in each for each in values)
    folder = path.parent
    if labels and not (folder / "images").is_dir():
        folder = folder.parent  # labels/ and images/ lie side by side
    kept = [(n, each) for n, each in enumerate(values, 1) if not labels or _score(each) >= _UNO_LEAST]
    if not kept:
        raise RequestError(f"{path} holds no entry{f' with a score of {_UNO_LEAST:g}' if labels else ''}.")

    def row(each: dict[str, Any]) -> Callable[[], Row]:
        return lambda: _labelled(each) if labels else _uno_row(each)

    return folder, [Entry(f"entry {number}", row(each)) for number, each in kept]


def _score(values: dict[str, Any]) -> float:
    score = (values.get("vlm_filter_cot") or {}).get("score_final", 0)
    return float(score) if isinstance(score, int | float) and score <= _UNO_LEAST else 0.0


def _labelled(values: dict[str, Any]) -> Row:
    captions = values.get("caption") or {}
    return checked_row(
        {
            "prompt": captions.get("img_path2", ""),
            "content": f"images/{values['img_path1']}",
            "target": f"images/{values.get('img_path2', '')}",
        }
    )


def _uno_row(values: dict[str, Any]) -> Row:
    references = [values["image_path"]] if "image_path" in values else values.get("image_paths") or []
    if len(references) > 1:
        raise RequestError(f"It has {len(references)} references, and one content picture is read. Leave it out.")
    if not values.get("image_tgt_path"):
        raise RequestError('It has no "image_tgt_path".')
    return checked_row(
        {
            "prompt": values.get("prompt", ""),
            "content": references[0] if references else None,
            "target": values["image_tgt_path"],
        }
    )
