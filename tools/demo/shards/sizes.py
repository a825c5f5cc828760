"""Triplets of other sizes beside shards, which have one size: rows of files (`data --form files --sizes`)."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from tools.demo.shards.samples import ShardFeature
from uso.config import Strict
from uso.errors import ConfigError
from uso.training.config import TrainingConfig
from uso.training.data.buckets import Shape
from uso.training.data.samples import Sample, SampleFeatures, read_samples, rows_path
from uso.training.data.source import Notify


class SizesConfig(Strict):
    """Rows of other sizes that a run reads beside its shards. What is not said here is as in `data`."""

    rows: str
    resolution: int = Field(ge=16)
    smaller: tuple[int, ...] = ()
    aspects: tuple[str, ...]
    share: float = Field(default=0.35, gt=0, lt=1)
    """About their part of an epoch: each row is repeated a whole number of times."""


@dataclass(frozen=True)
class SizedSample:
    """One row; its prompt is encoded with those of the shards."""

    row: Sample

    @property
    def shape(self) -> Shape:
        return self.row.shape

    @property
    def styles(self) -> tuple[Path, ...]:
        return self.row.styles

    @property
    def moved(self) -> bool:
        return self.row.moved

    @cached_property
    def features(self) -> SampleFeatures:
        return replace(self.row.features, prompt=ShardFeature("prompt", prompt=self.row.prompt))

    @property
    def pictures(self) -> list[Any]:
        """The features of target and content."""
        return [each for each in (self.features.target, self.features.content) if each is not None]


def sized_samples(config: TrainingConfig, sizes: SizesConfig, notify: Notify) -> list[SizedSample]:
    """The rows, but for those of the shards' own size and those too small for every resolution.

    Raises:
        ConfigError: rows or pictures are missing, or none is left.
    """
    names = {"rows", "resolution", "smaller", "aspects"}
    data = config.data.model_copy(update=sizes.model_dump(include=names))
    rows = read_samples(rows_path(data.rows), data, config.reads, key="sizes.rows")
    side = config.data.resolution
    found = [SizedSample(row) for row in rows if not row.enlarged and row.shape.target != (side, side)]
    if not found:
        raise ConfigError(
            f"{data.rows} holds no picture that fills {' or '.join(map(str, data.resolutions))} pixels squared and is "
            f"not {side} x {side} itself. Draw some: data --form files --sizes 192x128."
        )
    if len(found) < len(rows):
        notify(
            f"{len(rows) - len(found)} of {len(rows)} rows have the shards' size, or are too small, and are left out."
        )
    return found
