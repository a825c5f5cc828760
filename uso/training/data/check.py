"""Checks every row and every picture of training data before a run, by the rules of training. Needs no torch."""

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from uso.errors import RequestError
from uso.images.pixels import open_image
from uso.training.data.readers import read_entries


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row."""

    where: str
    """`line 3`, or the name of a picture in a folder."""
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


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
        bad = len({problem.where for problem in self.problems})
        lines = [f"{bad} of {self.rows} rows cannot be used:", *map(str, self.problems[:most])]
        if len(self.problems) > most:
            lines.append(f"... and {len(self.problems) - most} more problems.")
        return "\n".join(lines)


def check_rows(
    path: Path, min_side: int = 0, progress: Callable[[int, int], None] | None = None, workers: int = 2
) -> Report:
    """Check training data; every picture is decoded once.

    Args:
        path: a file or a folder, as `read_entries` takes it.
        min_side: least length of a short side in pixels.
        progress: called with (pictures looked at, pictures in all).
        workers: threads that decode.

    Raises:
        RequestError: the file itself cannot be read or is empty.
    """
    problems: list[Problem] = []
    uses: dict[Path, list[tuple[str, str, str]]] = defaultdict(list)
    folder, entries = read_entries(path)
    for entry in entries:
        try:
            row = entry.row()
        except RequestError as error:
            problems.append(Problem(entry.where, str(error)))
            continue
        for what, name in row.pictures():
            uses[folder / name].append((entry.where, what, name))
    with ThreadPoolExecutor(workers) as pool:
        faults = pool.map(lambda one: picture_fault(one, min_side), uses)
        for done, (file, fault) in enumerate(zip(uses, faults, strict=True), 1):
            if fault:
                problems += [Problem(where, f'"{what}": {name} {fault}') for where, what, name in uses[file]]
            if progress:
                progress(done, len(uses))
    order = {entry.where: number for number, entry in enumerate(entries)}
    return Report(len(entries), len(uses), tuple(sorted(problems, key=lambda problem: order[problem.where])))


def picture_fault(file: Path, min_side: int = 0) -> str:
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
    return ""
