"""Where a run's samples come from: rows of a file or folder, or a `module:function` that a config names."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from uso.errors import ConfigError
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.data.buckets import Shape
from uso.training.data.features import FeatureCache
from uso.training.data.samples import Feature, SampleFeatures, read_samples, rows_path
from uso.training.losses.teacher import extra_prompts
from uso.training.plugins import find

Notify = Callable[[str], None]
"""Is given a sentence for the person who started the run."""

OnProgress = Callable[[int, int], None]
"""Is given how many features are encoded, of how many."""

EMPTY = "empty"
"""The name of the empty prompt, which every source has."""


class StoredPicture(Hashable, Protocol):
    """A picture that is no file of its own."""

    def open(self) -> Image.Image: ...


StylePicture = Path | StoredPicture


class TrainingSample(Protocol):
    """What one sample trains."""

    @property
    def shape(self) -> Shape: ...
    @property
    def styles(self) -> Sequence[StylePicture]: ...
    @property
    def features(self) -> SampleFeatures: ...
    @property
    def moved(self) -> bool:
        """Whether the target's layout is another than the content's, so that the prompt must stay."""


class FeatureStore(Protocol):
    """Encoded features of a source."""

    @property
    def empty_prompt(self) -> Any:
        """The feature of no words."""

    def stacked(self, features: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Features of one kind by name, [B, ...] each (names: `uso.training.data.features.KEPT`)."""


class SampleSource(Protocol):
    """A run's samples.

    A `module:function` is given the config and a `Notify`, before any weights load, and returns a source. It refuses
    data that the run cannot use (ConfigError).
    """

    samples: Sequence[TrainingSample]

    def cached(self) -> list[Feature]:
        """Features that the run's cache must hold before `features` is called."""

    def features(self, pipeline: USOPipeline, cache: FeatureCache, on_progress: OnProgress) -> FeatureStore:
        """The features of all samples; called once, while the pipeline still has its encoders."""


class RowSource:
    """Rows of a file or folder; their features are in the run's cache.

    Raises:
        ConfigError: rows or pictures are missing, or the run's teacher reads prompts that rows do not have.
    """

    def __init__(self, config: TrainingConfig, notify: Notify) -> None:
        samples = read_samples(rows_path(config.data.rows), config.data, config.reads)
        if not config.data.enlarge:
            filling = [sample for sample in samples if not sample.enlarged]
            least = config.data.resolutions[-1]
            if not filling:
                raise ConfigError(
                    f"All targets have fewer pixels than {least} x {least}. Set data.smaller=[...] to sides that they "
                    "fill, or data.enlarge=true."
                )
            if len(filling) < len(samples):
                notify(
                    f"{len(samples) - len(filling)} of {len(samples)} targets have fewer pixels than {least} x {least} "
                    "and are left out."
                )
            samples = filling
        self.samples: Sequence[TrainingSample] = samples
        if absent := [name for name in extra_prompts(config) if name != EMPTY]:
            raise ConfigError(
                f"teacher must be null where data.rows are files: rows have no prompt '{absent[0]}' for it to read."
            )
        silent = sum(not sample.prompt for sample in samples)
        if silent and "content" not in config.reads:
            notify(f"{silent} of {len(samples)} rows say nothing of what they show: give them a prompt or a sentence.")
        if enlarged := sum(sample.enlarged for sample in samples):
            notify(
                f"{enlarged} of {len(samples)} targets have fewer pixels than {config.data.resolutions[-1]} x "
                f"{config.data.resolutions[-1]} and are enlarged: the network learns their blur. Leave them out: "
                "data.enlarge=false."
            )

    def cached(self) -> list[Feature]:
        return [FeatureCache.empty_prompt, *(feature for sample in self.samples for feature in sample.features.all())]

    def features(self, pipeline: USOPipeline, cache: FeatureCache, on_progress: OnProgress) -> FeatureStore:
        return cache


def open_source(config: TrainingConfig, notify: Notify) -> SampleSource:
    """The source that a config names.

    Raises:
        ConfigError: there is no source of that name, or it refuses its data.
    """
    if config.data.source is None:
        return RowSource(config, notify)
    source: SampleSource = find("data source", config.data.source)(config, notify)
    return source
