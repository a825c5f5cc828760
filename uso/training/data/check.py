"""Checks every row and every picture of a data file before a run. Changes nothing and needs no torch."""

import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from uso.errors import RequestError
from uso.images import open_image
from uso.training.data.rows import Row, numbered_lines, parse_row

MIN_SIDE = 64
"""Least length of a picture's short side, in pixels, by default."""

MAX_PROMPT = 2000
"""Longest prompt, in characters; what T5 reads of 512 tokens is shorter than that."""

MAX_RATIO = 4
"""A longer shape than this to one loses most of itself to the crop."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row; `line` counts from 1."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True)
class Report:
    """What a check found."""

    rows: int
    pictures: int
    problems: tuple[Problem, ...]

    def text(self, most: int = 100) -> str:
        """For people; at most `most` problems are named."""
        if not self.problems:
            return f"{self.rows} rows and {self.pictures} pictures: all can be used."
        bad = len({problem.line for problem in self.problems})
        lines = [f"{bad} of {self.rows} rows cannot be used:", *map(str, self.problems[:most])]
        if len(self.problems) > most:
            lines.append(f"... and {len(self.problems) - most} more problems.")
        return "\n".join(lines)


def check_rows(
    path: Path,
    min_side: int = MIN_SIDE,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
    links: bool = False,
) -> Report:
    """Check a data file; every picture is decoded once.

    Args:
        path: the JSON-lines file; pictures lie beside or below it.
        min_side: least length of a short side in pixels.
        progress: called with (pictures looked at, pictures in all).
        workers: threads that decode.
        links: whether links may lead out of the file's folder.

    Raises:
        RequestError: the file itself cannot be read or is empty.
    """
    problems: list[Problem] = []
    uses: dict[Path, list[tuple[int, str, str]]] = defaultdict(list)
    targets: dict[Path, int] = {}
    lines = numbered_lines(path)
    for number, line in lines:
        try:
            row = parse_row(line)
        except RequestError as error:
            problems.append(Problem(number, str(error)))
            continue
        problems += [Problem(number, text) for text in _words(row)]
        for what, name in row.pictures():
            try:
                uses[_inside(path.parent, name, links)].append((number, what, name))
            except RequestError as error:
                problems.append(Problem(number, f'"{what}": {error}'))
        problems += _repeated(row, number, path.parent, targets)
    with ThreadPoolExecutor(workers) as pool:
        for done, (file, fault) in enumerate(
            zip(uses, pool.map(lambda one: _fault(one, min_side), uses), strict=True), 1
        ):
            if fault:
                problems += [Problem(number, f'"{what}": {name} {fault}') for number, what, name in uses[file]]
            if progress:
                progress(done, len(uses))
    return Report(len(lines), len(uses), tuple(sorted(problems, key=lambda problem: problem.line)))


def _words(row: Row) -> list[str]:
    """What is wrong with a row whatever its pictures are."""
    faults = []
    blank = not row.prompt.strip()
    if row.content is None and not row.styles:
        faults.append('It has neither "content" nor "styles"; at least one reference is needed.')
    if blank and row.content is None:
        faults.append('"prompt" is empty without "content": then nothing says what is shown. Write a sentence.')
    if blank and row.layout == "moved":
        faults.append('"prompt" is empty though "layout" is "moved": describe the target, or label the layout "kept".')
    if not blank and row.layout == "kept":
        faults.append('"prompt" is not empty though "layout" is "kept": that mode knows only the empty prompt "".')
    if len(row.prompt) > MAX_PROMPT:
        faults.append(f'"prompt" has {len(row.prompt)} characters; at most {MAX_PROMPT} are read. Shorten it.')
    return faults


def _inside(folder: Path, name: str, links: bool) -> Path:
    """The file that a path names; it must lie beside or below the data file.

    Raises:
        RequestError: an absolute path, or one that leads out of the folder, also through a link.
    """
    if not name or "\0" in name:
        raise RequestError("it names no file; a path relative to the data file is needed.")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise RequestError(f"{name!r} is an absolute path; write it relative to the data file.")
    file = folder / name
    written = Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder))
    if not (written if links else file.resolve().is_relative_to(folder.resolve())):
        hint = ", or allow links with --links" if written else ""
        raise RequestError(
            f"{name!r} leads out of the data file's folder; keep pictures beside or below the file{hint}."
        )
    return file


def _repeated(row: Row, number: int, folder: Path, targets: dict[Path, int]) -> list[Problem]:
    """A target that stands in an earlier row too, or is its own reference; `targets` remembers lines."""
    target = Path(folder / row.target).resolve()
    problems = []
    first = targets.setdefault(target, number)
    if first != number:
        problems.append(Problem(number, f'"target": {row.target} is the target of line {first} already; keep one.'))
    for what, name in row.pictures():
        if what != "target" and (folder / name).resolve() == target:
            problems.append(Problem(number, f'"{what}" is the target itself: the network would learn to copy.'))
    return problems


def _fault(file: Path, min_side: int) -> str:
    """What is wrong with a picture file, as the end of a sentence; empty if nothing."""
    if not file.is_file():
        return "is not there."
    try:
        picture = open_image(file.read_bytes(), "it")
    except OSError as error:
        return f"could not be read ({error.strerror})."
    except RequestError as error:
        return f"cannot be used: {error}"
    width, height = picture.size
    if min(width, height) < min_side:
        return (
            f"has {width} x {height} pixels; the short side needs at least {min_side}. Leave it out or lower the limit."
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        return f"has {width} x {height} pixels; at most {MAX_RATIO} to 1 is accepted. Crop it."
    return ""
