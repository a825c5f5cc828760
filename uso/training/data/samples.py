"""Training samples: a JSON-lines file becomes `Sample`s whose pictures are there, and whose sizes are known.

Reads file heads, not pixels. A thorough look at rows (labels, duplicates, damaged pictures) is the checker's business.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uso.config import ROOT, from_home
from uso.errors import ConfigError, ImageError, RequestError
from uso.images import upright_size
from uso.training.config import Condition, DataConfig
from uso.training.data.buckets import Shape, Size, bucket_sizes, content_sizes, nearest_bucket
from uso.training.data.rows import numbered_lines

_LISTED = 5
"""How many wrong rows a message names before it only counts them."""


@dataclass(frozen=True)
class Sample:
    """One row, its paths made absolute."""

    prompt: str
    """What the network is told."""
    sentence: str
    """What the target shows; the prompt where nobody wrote it down."""
    target: Path
    content: Path | None
    styles: tuple[Path, ...]
    shape: Shape


def rows_path(rows: str) -> Path:
    return ROOT / from_home(rows)


def read_samples(
    path: Path, config: DataConfig, reads: Sequence[Condition], *, key: str = "data.rows", first: int | None = None
) -> list[Sample]:
    """The rows of a file, with what the network will read of them.

    Args:
        path: JSON lines, `{"prompt", "content", "styles": [...], "target"}`; other keys are labels.
        reads: conditions that are read; the pictures of others are not looked at. Where content is not read, a row's
            `sentence`, if it has one, is its prompt: an empty prompt says that the content's layout is kept.
        key: of the config, that names the file.
        first: only so many rows, to look at and not to learn from: those may lack what is read.

    Raises:
        ConfigError: the file or pictures are missing; names the rows.
    """
    try:
        lines = numbered_lines(path)[:first]
    except RequestError as error:
        raise ConfigError(f"{error} Name a file of rows: {key}=FILE.") from error
    targets = bucket_sizes(config.resolution, config.aspects)
    contents = content_sizes(config.content_size, targets)
    samples, wrong = [], []
    for number, line in lines:
        try:
            samples.append(_sample(line, path.parent, config, reads, targets, contents))
        except (ConfigError, ImageError) as error:
            wrong.append(f"row {number}: {error}")
    if wrong:
        more = f" (and {len(wrong) - _LISTED} more)" if len(wrong) > _LISTED else ""
        raise ConfigError(f"{path}: {'; '.join(wrong[:_LISTED])}{more}")
    for condition in reads if first is None else ():
        if not any(sample.styles if condition == "style" else sample.content for sample in samples):
            raise ConfigError(f"{path}: no row has a {condition} picture, and the run reads one.")
    return samples


def _sample(
    line: str,
    folder: Path,
    config: DataConfig,
    reads: Sequence[Condition],
    targets: Sequence[Size],
    contents: Sequence[Size],
) -> Sample:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"no JSON ({error})") from error
    if not isinstance(row, dict):
        raise ConfigError("no object with names and values")
    prompt, styles = row.get("prompt", ""), row.get("styles") or []
    sentence = row.get("sentence") or prompt
    for key, text in (("prompt", prompt), ("sentence", sentence)):
        if not isinstance(text, str):
            raise ConfigError(f"{key} is no text")
    if not isinstance(styles, list):
        raise ConfigError("styles is no list")
    target = _picture(folder, row.get("target"), "target")
    content, content_size = None, None
    if "content" in reads and row.get("content"):
        content = _picture(folder, row["content"], "content")
        content_size = contents[targets.index(nearest_bucket(_size(content), targets))]
    kept = styles[: config.max_styles] if "style" in reads else []
    if kept and row.get("style_2") and len(kept) < 2:
        raise ConfigError("its target wears two styles, and the run reads one. Set data.max_styles=2")
    paths = tuple(_picture(folder, style, "styles") for style in kept)
    for style in paths:
        _size(style)
    shape = Shape(nearest_bucket(_size(target), targets), content_size, len(paths))
    return Sample(prompt if "content" in reads else sentence, sentence, target, content, paths, shape)


def _picture(folder: Path, value: Any, key: str) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} names no picture")
    path = folder / value
    if not path.is_file():
        raise ConfigError(f"{key}: there is no file {path}")
    return path


def _size(path: Path) -> Size:
    """(width, height) as a person would see it."""
    return upright_size(path.read_bytes(), path.name)
