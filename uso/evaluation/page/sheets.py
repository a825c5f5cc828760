"""Sheets of pictures: the best and the worst of a task beside their references, and the seeds of some prompts."""

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from uso.errors import ImageError
from uso.evaluation.bench.entries import Bench
from uso.evaluation.scores import NAMES, Score
from uso.evaluation.sheet import SheetRow, contact_sheet
from uso.images.pixels import open_image

SIDE = 192
"""Of one picture on a sheet, in pixels."""
EXTREMES, PROMPTS, SEEDS = 4, 5, 6
"""Rows of best and of worst pictures, rows of prompts whose seeds are shown, and how many seeds."""
PROMPT = 56
"""Characters of a prompt under a row."""
Columns = dict[str, NDArray[np.uint8] | None]
MAIN = {"subject": "dino", "style": "csd", "joint-kept": "csd", "joint-moved": "csd", "text": "clip_t"}
"""What best and worst go by."""


def extremes(scores: Sequence[Score], task: str, bench: Bench) -> Image.Image | None:
    """The best and the worst pictures of a task, at most one per subject; None if nothing can be shown."""
    metric = MAIN[task]
    ranked = sorted((each for each in scores if metric in each.values), key=lambda each: -each.values[metric])
    best = _distinct(ranked)
    worst = _distinct([each for each in reversed(ranked) if each not in best])
    rows = []
    for good, bad in itertools.zip_longest(best, worst):
        sides = [("best", good), ("worst", bad)]
        columns = [_columns(which, each, bench) for which, each in sides]
        rows.append(SheetRow(columns[0] | columns[1], "   |   ".join(_words(each, metric) for _, each in sides)))
    return _sheet(rows)


def seeds(scores: Sequence[Score], bench: Bench) -> Image.Image | None:
    """The first prompts that have several pictures, seed by seed; None where each has one."""
    groups: dict[str, list[Score]] = {}
    for each in scores:
        groups.setdefault(each.id, []).append(each)
    several = [group for group in groups.values() if len(group) > 1]
    columns = min(SEEDS, max((len(group) for group in several), default=0))
    rows = []
    for group in several[:: max(1, len(several) // PROMPTS)][:PROMPTS]:
        pictures = _references(group[0], bench)
        for number in range(columns):
            pictures[f"seed {number + 1}"] = _thumbnail(group[number].file) if number < len(group) else None
        rows.append(SheetRow(pictures, f"{group[0].prompt or '(empty prompt)'} Seeds from {group[0].seed}"))
    return _sheet(rows)


def _distinct(ranked: Sequence[Score]) -> list[Score]:
    """The first of each pair of content and style, no content or style twice while others are left."""
    chosen: list[Score] = []
    for each in ranked:
        taken = {name for other in chosen for name in (other.content, other.style) if name}
        if not {each.content, each.style} & taken:
            chosen.append(each)
    return (chosen + [each for each in ranked if each not in chosen])[:EXTREMES]


def _columns(which: str, each: Score | None, bench: Bench) -> Columns:
    """References and result; empty places where there is no such picture."""
    if each is None:
        return {f"{which}: {column}": None for column in ("content", "style", "result")}
    found = _references(each, bench) | {"result": _thumbnail(each.file)}
    return {f"{which}: {column}": picture for column, picture in found.items()}


def _words(each: Score | None, metric: str) -> str:
    if each is None:
        return ""
    prompt = textwrap.shorten(each.prompt or "(empty prompt)", PROMPT, placeholder=" ...")
    return f"{NAMES[metric]} {each.values[metric]:.3f}: {prompt} Seed {each.seed}."


def _references(each: Score, bench: Bench) -> Columns:
    found: Columns = {}
    for column, name in (("content", each.content), ("style", each.style)):
        found[column] = _thumbnail(str(bench.references[name].files[0])) if name in bench.references else None
    return found


def _sheet(rows: Sequence[SheetRow]) -> Image.Image | None:
    shown = [row for row in rows if any(picture is not None for picture in row.pictures.values())]
    return contact_sheet(shown) if shown else None


def _thumbnail(file: str) -> NDArray[np.uint8] | None:
    """A picture fitted on a white square, or None if it is gone."""
    try:
        picture = open_image(Path(file).read_bytes(), file)
    except (OSError, ImageError):
        return None
    picture = ImageOps.contain(picture, (SIDE, SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return np.asarray(square, np.uint8)
