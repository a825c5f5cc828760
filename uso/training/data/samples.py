"""Training samples: a JSON-lines file becomes `Sample`s whose pictures exist and whose sizes are known.

Reads file heads, not pixels. `check.py` looks at labels, duplicates and damaged pictures.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from uso.config import ROOT, from_home
from uso.errors import ConfigError, ImageError, RequestError
from uso.images import upright_size
from uso.training.config import Condition, DataConfig
from uso.training.data.buckets import Shape, Size, bucket_sizes, content_sizes, nearest_bucket
from uso.training.data.rows import numbered_lines

Kind = Literal["prompt", "latents", "style"]

_LISTED = 5
"""How many wrong rows a message names before it only counts them."""

_READ_BYTES = 2**22


@dataclass(frozen=True)
class Feature:
    """Something to encode: a prompt, or a picture's file, cropped and scaled to a size or left as it is."""

    kind: Kind
    prompt: str = ""
    path: Path | None = None
    size: Size | None = None

    @cached_property
    def content(self) -> str:
        """The source's SHA-256."""
        return hashlib.sha256(self.prompt.encode()).hexdigest() if self.path is None else file_sha256(self.path)


@cache
def file_sha256(path: Path) -> str:
    """Of a file's bytes; a file is read once per process."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class SampleFeatures:
    """The features of one sample: `Feature`s, or the equivalent of another source of samples."""

    prompt: Any
    target: Any
    content: Any | None
    styles: tuple[Any, ...]
    prompts: dict[str, Any] = field(default_factory=dict)
    """More prompts by name, for a teacher that reads them."""

    def all(self) -> list[Any]:
        return [self.prompt, self.target, *([self.content] if self.content else []), *self.styles]


@dataclass(frozen=True)
class Sample:
    """One row, its paths made absolute."""

    prompt: str
    """What the network reads."""
    sentence: str
    """What the target shows; the prompt if the row has none."""
    target: Path
    content: Path | None
    styles: tuple[Path, ...]
    shape: Shape

    @cached_property
    def features(self) -> SampleFeatures:
        content = None
        if self.content is not None:
            content = Feature("latents", path=self.content, size=self.shape.content)
        return SampleFeatures(
            prompt=Feature("prompt", prompt=self.prompt),
            target=Feature("latents", path=self.target, size=self.shape.target),
            content=content,
            styles=tuple(Feature("style", path=path) for path in self.styles),
        )


def rows_path(rows: str) -> Path:
    return ROOT / from_home(rows)


def read_samples(
    path: Path, config: DataConfig, reads: Sequence[Condition], *, key: str = "data.rows", first: int | None = None
) -> list[Sample]:
    """The rows of a file, with what the network will read of them.

    Args:
        path: JSON lines, `{"prompt", "content", "styles": [...], "target"}`; other keys are labels.
        reads: conditions that are read; pictures of others are ignored. Where content is not read, a row's
            `sentence`, if it has one, is its prompt: an empty prompt would mean that the content's layout is kept.
        key: the config's key that names the file.
        first: read only this many rows, for validation; they may lack a condition.

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
        raise ConfigError("its target is in two styles, and the run reads one. Set data.max_styles=2")
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
