"""What a run of one part is: `PartConfig`, read from `configs/training/demo/` with overrides. Plain data, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from uso.config import ROOT
from uso.training.config import FOLDER, FlowConfig, RunConfig, load_run_config

PARTS_FOLDER = FOLDER / "demo"

Part = Literal["autoencoder", "tokenizers", "image-encoder", "base", "descriptor"]


class PartConfig(RunConfig):
    """A run that trains one part of a model of one's own."""

    part: Part
    model_folder: str = "outputs/training/demo/model"
    """The model that is made, in the released layout: earlier parts are read there, and the result is written there."""
    fresh: bool = False
    """Draw new weights of `architecture`; else the run goes on from what the model's folder holds, if it is there."""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """Sizes of a new part; each part's module says which."""
    data: str = "outputs/training/miniature/samples"
    """Shards of drawn samples (`python -m uso train.data make-miniature FOLDER --form samples`)."""
    compile: bool = True
    """Compile the network with torch.compile (needs a C++ compiler): a minute at the start, then twice as fast."""
    flow: FlowConfig = FlowConfig()
    """Noise levels of the base."""
    options: dict[str, float] = Field(default_factory=dict)
    """Weights of losses and the like; each part's module says which."""

    @property
    def model(self) -> Path:
        return ROOT / Path(self.model_folder).expanduser()

    @property
    def shards(self) -> Path:
        return ROOT / Path(self.data).expanduser()


def load_part_config(name: str, overrides: Sequence[str] = ()) -> PartConfig:
    """The run of `configs/training/demo/NAME.yaml`, or of a YAML file, with `key=value` laid over it.

    Raises:
        ConfigError: no such run; a key that is not known; a value that is refused.
    """
    return load_run_config(PartConfig, PARTS_FOLDER, name, overrides)
