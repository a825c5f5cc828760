"""Training samples: a JSON-lines file becomes `Sample`s whose pictures exist and whose sizes are known.

Reads file heads, not pixels. `check.py` decodes the pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from uso.config import ROOT, from_home
from uso.errors import ConfigError, ImageError, RequestError
from uso.training.config import Condition, DataConfig, FeatureKind
from uso.training.data.buckets import Shape, Size, bucket_sizes, content_sizes, nearest_bucket
from uso.training.data.files import picture_size
from uso.training.data.rows import numbered_lines, parse_row

_LISTED = 5
"""How many wrong rows a message names before it only counts them."""


@dataclass(frozen=True)
class Feature:
    """Something to encode: a prompt, or a picture's file, cropped and scaled to a size or left as it is."""

    kind: FeatureKind
    prompt: str = ""
    path: Path | None = None
    size: Size | None = None


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
    moved: bool = False
    """Whether the target's layout is another than the content's."""
    enlarged: bool = False
    """Whether the target has fewer pixels than the run reads of it."""

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
        except (ConfigError, ImageError, RequestError) as error:
            wrong.append(f"line {number}: {error}")
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
    row = parse_row(line)
    sentence = row.sentence or row.prompt
    target = _picture(folder, row.target, "target")
    content, content_size = None, None
    if "content" in reads and row.content:
        content = _picture(folder, row.content, "content")
        content_size = contents[targets.index(nearest_bucket(picture_size(content), targets))]
    kept = row.styles[: config.max_styles] if "style" in reads else ()
    if kept and row.style_2 and len(kept) < 2:
        raise ConfigError("its target is in two styles, and the run reads one. Set data.max_styles=2.")
    paths = tuple(_picture(folder, style, "styles") for style in kept)
    for style in paths:
        picture_size(style)
    size = picture_size(target)
    bucket = nearest_bucket(size, targets)
    return Sample(
        row.prompt if "content" in reads else sentence,
        sentence,
        target,
        content,
        paths,
        Shape(bucket, content_size, len(paths)),
        moved=row.moved and content is not None,
        enlarged=min(size[0] / bucket[0], size[1] / bucket[1]) < 1,
    )


def _picture(folder: Path, name: str, key: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise ConfigError(f"{key}: there is no file {path}.")
    return path
