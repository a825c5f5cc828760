"""Training samples: rows become `Sample`s whose pictures exist and whose sizes are known.

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
from uso.training.data.readers import read_entries
from uso.training.data.rows import Row

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
    """The rows of a file or folder, with what the network will read of them.

    Args:
        path: as `read_entries` takes it.
        reads: conditions that are read; pictures of others are ignored. Where content is not read, a row's
            `sentence`, if it has one, is its prompt: an empty prompt would mean that the content's layout is kept.
        key: the config's key that names the file.
        first: read only this many rows, once, for validation; they may lack a condition.

    Raises:
        ConfigError: the file or pictures are missing; names the rows.
    """
    try:
        folder, entries = read_entries(path, config.siblings, config.repeats if first is None else 1)
    except RequestError as error:
        raise ConfigError(f"{error} Name a file of rows or a folder of pictures: {key}=PATH.") from error
    reader = _Reader(folder, config, reads)
    samples: list[Sample] = []
    wrong: dict[str, None] = {}
    for entry in entries[:first]:
        try:
            samples.append(reader.sample(entry.row()))
        except (ConfigError, ImageError, RequestError) as error:
            wrong[f"{entry.where}: {error}"] = None
    if wrong:
        more = f" (and {len(wrong) - _LISTED} more)" if len(wrong) > _LISTED else ""
        raise ConfigError(f"{path}: {'; '.join(list(wrong)[:_LISTED])}{more}")
    for condition in reads if first is None else ():
        if not any(sample.styles if condition == "style" else sample.content for sample in samples):
            siblings = f" In a folder, data.siblings={condition} takes other pictures." if path.is_dir() else ""
            raise ConfigError(f"{path}: no row has a {condition} picture, and the run reads one.{siblings}")
    return samples


class _Reader:
    """Rows become samples.

    Args:
        folder: that paths are relative to.
    """

    def __init__(self, folder: Path, config: DataConfig, reads: Sequence[Condition]) -> None:
        self.folder = folder
        self.config = config
        self.reads = reads
        self.buckets = [bucket_sizes(side, config.aspects) for side in config.resolutions]
        self.contents = content_sizes(config.content_size, self.buckets[0])
        self._sizes: dict[Path, Size] = {}

    def sample(self, row: Row) -> Sample:
        """A row's sample.

        Raises:
            ConfigError, ImageError: a picture is missing or damaged, or the run cannot read the row.
        """
        sentence = row.sentence or row.prompt
        target = self._picture(row.target, "target")
        content, content_size = None, None
        if "content" in self.reads and row.content:
            content = self._picture(row.content, "content")
            largest = self.buckets[0]
            content_size = self.contents[largest.index(nearest_bucket(self._size(content), largest))]
        kept = row.styles[: self.config.max_styles] if "style" in self.reads else ()
        if kept and row.style_2 and len(kept) < 2:
            raise ConfigError("its target is in two styles, and the run reads one. Set data.max_styles=2.")
        paths = tuple(self._picture(style, "styles") for style in kept)
        for style in paths:
            self._size(style)
        bucket, enlarged = self._bucket(self._size(target))
        return Sample(
            row.prompt if "content" in self.reads else sentence,
            sentence,
            target,
            content,
            paths,
            Shape(bucket, content_size, len(paths)),
            moved=row.moved and content is not None,
            enlarged=enlarged,
        )

    def _bucket(self, size: Size) -> tuple[Size, bool]:
        """The size at which a target is read, and whether it has fewer pixels."""
        for buckets in self.buckets:
            bucket = nearest_bucket(size, buckets)
            if fills := min(size[0] / bucket[0], size[1] / bucket[1]) >= 1:
                break
        return bucket, not fills

    def _picture(self, name: str, key: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ConfigError(f"{key}: there is no file {path}.")
        return path

    def _size(self, path: Path) -> Size:
        if path not in self._sizes:
            self._sizes[path] = picture_size(path)
        return self._sizes[path]
