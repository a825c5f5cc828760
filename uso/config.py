"""What to load and how it fits a machine: `ModelConfig` and `MemoryPlan`, read from `configs/`.

Plain data; unknown keys are refused. The sizes of networks are in `configs/architectures/`, as the `config.json` files
that the components themselves use.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from uso.errors import ConfigError
from uso.files import read_text

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"

ComponentName = Literal[
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "image_encoder",
    "lora",
    "projector",
]
COMPONENT_NAMES: tuple[ComponentName, ...] = ComponentName.__args__  # type: ignore[attr-defined]
"""Everything that is loaded from files: diffusers' names, and USO's own two."""

ExampleSet = Literal["photographs", "drawn"]
"""The page's examples: photographs with long prompts, or pictures and words of the miniature training data."""

Schedule = Literal["uso", "flux"] | float
"""`uso`: the released rule; `flux`: FLUX's own; a number: the shift mu (0 means none)."""


Speed = Literal["exact", "fast"]
Compile = Literal["auto", "on", "off"]

SPEEDS: tuple[Speed, ...] = get_args(Speed)
COMPILES: tuple[Compile, ...] = get_args(Compile)


def from_home(path: str | Path) -> Path:
    """A path, with a leading `~/` replaced by the user's home; `~name` is a file name, not another user's home."""
    return Path(os.path.expanduser(path) if Path(path).parts[:1] == ("~",) else path)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


T = TypeVar("T", bound=Strict)


class Source(Strict):
    """Where a component's files are: a path in a Hub repository, or on this machine if `repo` is not set."""

    repo: str | None = None
    revision: str = "main"
    path: str
    """A file or folder in the repository; local relative paths start at the program's root."""
    size_gb: float | None = None
    """Approximate download size in 10^9 bytes, for messages without the network."""

    @property
    def local_path(self) -> Path:
        return ROOT / from_home(self.path)  # unresolved: in a cache, links end in .safetensors, their targets do not


class LoraFile(Strict):
    """A LoRA of a person's own, folded beside USO's when the model loads."""

    path: str
    """Relative paths start at the program's root."""
    strength: float = 1.0
    """What its changes are multiplied by; 1 is as trained."""

    @property
    def local_path(self) -> Path:
        return ROOT / from_home(self.path)


class Limits(Strict):
    """The ranges that requests must keep to; the page shows them."""

    min_size: int
    max_size: int
    min_content_size: int
    max_content_size: int
    max_steps: int
    min_guidance: float
    max_guidance: float

    @model_validator(mode="after")
    def _in_order(self) -> "Limits":
        if not (16 <= self.min_size <= self.max_size and self.min_size % 16 == self.max_size % 16 == 0):
            raise ValueError("min_size and max_size must be multiples of 16, in order")
        if not 16 <= self.min_content_size <= self.max_content_size:
            raise ValueError("min_content_size must be at least 16 and at most max_content_size")
        return self


class Defaults(Strict):
    """Values of a request that are not given."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    content_size: int
    schedule: Schedule


class ModelConfig(Strict):
    """A model that can be chosen by name: a file of `configs/models/`."""

    name: str
    title: str
    description: str
    architecture: str
    """A folder of `configs/architectures/` (or a local folder) that holds each component's config file."""
    components: dict[ComponentName, Source] = {}
    """Where each component's files are; empty in a saved pipeline, which no longer needs them."""
    limits: Limits
    defaults: Defaults
    guidance: bool
    """Whether the transformer takes a guidance scale (schnell does not)."""
    max_sequence_length: int
    """Length to which T5 prompts are padded, in tokens."""
    position_grid: int | None = Field(None, ge=1)
    """Positions along each side of every image, over which its tokens are spread: a model trained at few sizes then
    composes pictures of others alike. None: one position per token, as in FLUX."""
    lora_scale: float = 1.0
    weights: tuple[str, ...] = ()
    """Folders in which components are looked for by content; see `uso.weights.finder`."""
    added_loras: tuple[LoraFile, ...] = ()
    experimental: bool = False
    examples: ExampleSet = "photographs"
    """The examples that suit the model: subjects and words it was trained on."""
    licence_notice: str = ""

    @property
    def architecture_folder(self) -> Path:
        shipped = CONFIGS / "architectures" / self.architecture
        return shipped if shipped.is_dir() else (ROOT / self.architecture).resolve()


class MemoryPlan(Strict):
    """How the weights live on a machine: a file of `configs/memory/`."""

    name: str
    description: str
    device_gib: float | None = None
    """Device memory that may be used, in GiB; None for no limit."""
    visit: bool = False
    """Keep encoders, autoencoder and modulation layers in host memory; move each to the device while it works."""
    slots: int = 0
    """Device buffers in which blocks that do not fit take turns; 0: all blocks must fit."""


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(read_text(path, "file"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} could not be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold names and values.")
    return values


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def model_names() -> list[str]:
    return _names(CONFIGS / "models")


def memory_names() -> list[str]:
    return _names(CONFIGS / "memory")


def validated(cls: type[T], values: Any, path: Path) -> T:
    """What a file's values say.

    Raises:
        ConfigError: names the first value that is wrong.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}.") from error


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` updated with `changes`; mappings are merged key by key."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def read_yaml_with_parents(path: Path) -> dict[str, Any]:
    """A YAML file's names and values, merged over those of the file beside it that `extends` names, if any.

    Raises:
        ConfigError: a file cannot be read, or extends itself.
    """
    return _with_parents(path, ())


def _with_parents(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    values = _read_yaml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    base = path.parent / f"{parent}.yaml"
    if base.parent != path.parent:
        raise ConfigError(f"{path}: extends: '{parent}' is not a file beside this one. Name one, without .yaml.")
    if base in (path, *children):
        raise ConfigError(f"{path}: extends: '{parent}' extends this file in turn. Name another, or leave it out.")
    return _merged(_with_parents(base, (path, *children)), values)


def load_named(cls: type[T], name: str, folder: Path, what: str) -> T:
    """The configuration called `name` in a folder, or the one in the YAML file `name`.

    Raises:
        ConfigError: there is no `what` of that name, or a key or value is invalid.
    """
    path = _named_file(name, folder, what)
    return validated(cls, read_yaml_with_parents(path), path)


def _named_file(name: str, folder: Path, what: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(_names(folder))
        raise ConfigError(f"There is no {what} '{name}'. Choose one of: {known}, or name a YAML file.")
    return path


def load_model_config(name: str) -> ModelConfig:
    """The model called `name` (`flux-dev`, `demo`, ...), or the one in the YAML file `name`.

    Raises:
        ConfigError: there is no such model, or a key or value is invalid.
    """
    path = _named_file(name, CONFIGS / "models", "model")
    config = validated(ModelConfig, {"name": path.stem, **read_yaml_with_parents(path)}, path)
    absent = [component for component in COMPONENT_NAMES if component not in config.components]
    if absent:
        raise ConfigError(
            f"{path}: components: {', '.join(absent)} missing. Each needs a path, and a repo if it is remote."
        )
    return config


def load_memory_plan(name: str) -> MemoryPlan:
    """The memory plan called `name`.

    Raises:
        ConfigError: there is no such plan, or a key or value is invalid.
    """
    path = CONFIGS / "memory" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"There is no memory plan '{name}'. Choose one of: auto, {', '.join(memory_names())}.")
    return validated(MemoryPlan, {"name": name, **_read_yaml(path)}, path)


def with_local_files(config: ModelConfig, files: dict[str, str]) -> ModelConfig:
    """`config` with some components from paths on this machine (`--transformer` and other flags).

    Raises:
        ConfigError: a component or a path does not exist.
    """
    components = dict(config.components)
    for name, path in files.items():
        if name not in COMPONENT_NAMES:
            raise ConfigError(f"'{name}' is not a component. The components are: {', '.join(COMPONENT_NAMES)}.")
        if not from_home(path).exists():
            raise ConfigError(f"--{name.replace('_', '-')} {path}: there is no such file or folder.")
        components[name] = Source(path=str(from_home(path).absolute()))
    return config.model_copy(update={"components": components})


COMPLETE = "flux-dev"
"""The model whose folder has the config of every component; other folders hold what differs."""


def architecture_file(config: ModelConfig, name: str) -> Path:
    """The shipped config of a component, from the model's own folder or else from that of `COMPLETE`."""
    for folder in (config.architecture_folder, load_model_config(COMPLETE).architecture_folder):
        if (folder / f"{name}.json").is_file():
            return folder / f"{name}.json"
    raise ConfigError(f"{config.architecture_folder} holds no {name}.json.")


def read_component_config(path: Path) -> dict[str, Any]:
    """A component's `config.json`.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        values: dict[str, Any] = json.loads(read_text(path, "file"))
    except ValueError as error:
        raise ConfigError(f"{path} could not be read ({error}).") from error
    return values
