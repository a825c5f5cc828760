"""What a run of one part is: `PartConfig`, read from `tools/demo/configs/` with overrides. Plain data, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from uso.config import ROOT, Strict, from_home
from uso.errors import ConfigError
from uso.training.config import FlowConfig, RunConfig, TrainingConfig
from uso.training.config_files import load_config

CONFIGS = ROOT / "tools" / "demo" / "configs"
PARTS_FOLDER, STAGES_FOLDER = CONFIGS / "parts", CONFIGS / "stages"

Options = TypeVar("Options", bound=Strict)

Part = Literal["autoencoder", "tokenizers", "image-encoder", "base", "guidance", "descriptor"]


class PartOptions(Strict):
    """Weights of losses and the like, for the parts that have them."""

    divergence: float = Field(default=2e-4, ge=0)
    """Autoencoder: weight of the divergence, which keeps the latents' noise at what the pictures can bear."""
    absolute: float = Field(default=0.1, ge=0)
    """Autoencoder: weight of the absolute error; the squared one has weight 1."""
    relative: float = Field(default=0.0, ge=0)
    """Autoencoder: weight of the logarithm of each picture's squared error, by which a plain picture counts as much as
    one full of texture."""
    noise: float = Field(default=1.0, ge=0)
    """Autoencoder: share of the posterior's deviation that is added to latents."""
    decoder_only: bool = False
    """Autoencoder: leave encoder, scale and shift, and so every latent, as they are."""
    no_text: float = Field(default=0.1, ge=0, le=1)
    """Base, guidance: chance that words are left out."""
    subject: float = Field(default=1.0, ge=0)
    """Descriptor: weight of the subject's loss; that of the style has weight 1."""


class AlignmentConfig(Strict):
    """What a base learns to predict beside the flow; see `tools.demo.parts.alignment`."""

    descriptor: str
    """File of the descriptor whose features are predicted."""
    weight: float = Field(default=0.5, gt=0)
    """Of that loss; the flow's has weight 1."""

    @property
    def path(self) -> Path:
        return ROOT / from_home(self.descriptor)


OPTIONS: dict[Part, tuple[str, ...]] = {
    "autoencoder": ("divergence", "absolute", "relative", "noise", "decoder_only"),
    "base": ("no_text",),
    "guidance": ("no_text",),
    "descriptor": ("subject",),
}


class PartConfig(RunConfig):
    """A run that trains one part of a model of one's own."""

    part: Part
    model_folder: str = "outputs/training/demo/model"
    """The model that is made, in the released layout: earlier parts are read there, and the result is written there."""
    fresh: bool = False
    """Draw new weights of `architecture`; else the run continues from the model folder's part, if there is one."""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """Sizes of a new part; each part's module lists them."""
    data: str = "outputs/training/miniature/samples"
    """Shards of drawn samples (`python -m tools.demo data FOLDER --form samples`)."""
    alignment: AlignmentConfig | None = None
    """Of the base; null: it learns by the flow loss alone."""
    compile: bool = True
    flow: FlowConfig = FlowConfig()
    """Noise levels of base and guidance."""
    options: PartOptions = PartOptions()

    @model_validator(mode="after")
    def _options_of_its_part(self) -> "PartConfig":
        known = OPTIONS.get(self.part, ())
        for name in sorted(self.options.model_fields_set - set(known)):
            has = f"has {', '.join(known)}" if known else "has none"
            raise ValueError(f"options.{name} is of another part; {self.part} {has}")
        if self.alignment is not None and self.part != "base":
            raise ValueError(f"alignment is of the base; leave it out of {self.part}, or set alignment=null")
        return self

    @property
    def model(self) -> Path:
        return ROOT / from_home(self.model_folder)

    @property
    def shards(self) -> Path:
        return ROOT / from_home(self.data)


def load_part_config(name: str, overrides: Sequence[str] = ()) -> PartConfig:
    """The run of `configs/parts/NAME.yaml`, or of a YAML file, with `key=value` overrides.

    Raises:
        ConfigError: no such run; an unknown key; a value that is refused.
    """
    return load_config(PartConfig, PARTS_FOLDER, name, overrides)


def load_stage(name: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """The stage of `configs/stages/NAME.yaml`, or of a YAML file, with `key=value` overrides.

    Raises:
        ConfigError: as `load_part_config`.
    """
    return load_config(TrainingConfig, STAGES_FOLDER, name, overrides)


def checked_options(cls: type[Options], config: TrainingConfig) -> Options:
    """A teacher's options.

    Raises:
        ConfigError: an unknown option, or a value that is refused.
    """
    try:
        return cls.model_validate(config.teacher_options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["teacher_options", *map(str, first["loc"])])
        raise ConfigError(f"{where}: {first['msg']}.") from error
