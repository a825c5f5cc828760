"""How triplets are made from stylised pictures: `ExpertsConfig`, read from `configs/experts/`. Plain data, no torch."""

from typing import Any

from pydantic import Field, field_validator

from uso.config import CONFIGS, Strict, load_named

FOLDER = CONFIGS / "experts"


class EditorConfig(Strict):
    """An image-editing pipeline of diffusers: called with a picture and an instruction, it gives a picture."""

    pipeline: str = "FluxKontextPipeline"
    """A class of diffusers."""
    repo: str
    """A Hub repository, or a folder on this machine."""
    revision: str | None = None
    dtype: str = "bfloat16"
    offload: bool = False
    """Keep what does not work just now in host memory."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """More arguments of every call."""


class StylizationConfig(EditorConfig):
    """Shows another subject in a picture's style; one of each list is drawn per picture."""

    instructions: tuple[str, ...] = Field(min_length=1)
    """Each holds {subject}."""
    subjects: tuple[str, ...] = Field(min_length=1)

    @field_validator("instructions")
    @classmethod
    def _with_subject(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if any("{subject}" not in text for text in texts):
            raise ValueError("every instruction must hold {subject}")
        return texts


class DestylizationConfig(EditorConfig):
    """Takes the style away: with everything where it was, or with the subject elsewhere."""

    kept: tuple[str, ...] = Field(min_length=1)
    moved: tuple[str, ...] = ()


class FilterConfig(Strict):
    """Cosines in [-1, 1]; a triplet outside of them is dropped."""

    min_style: float = Field(ge=-1, le=1)
    """CSD, style reference and target."""
    min_subject: float = Field(ge=-1, le=1)
    """DINO, content reference and target."""
    max_leak: float = Field(default=1.0, ge=-1, le=1)
    """DINO, style reference and target."""
    dino: str = "facebook/dinov2-base"


class ExpertsConfig(Strict):
    """Everything but which pictures, and where CSD's weights are."""

    size: int = Field(default=1024, ge=16)
    """Long side of every picture, in pixels."""
    seed: int = Field(default=0, ge=0)
    moved: float = Field(default=0.5, ge=0, le=1)
    """Share of layout-moved triplets, among pictures that have a caption file."""
    stylization: StylizationConfig
    destylization: DestylizationConfig
    filters: FilterConfig


def load_experts_config(name: str) -> ExpertsConfig:
    """A configuration by name or path of a YAML file.

    Raises:
        ConfigError: there is none, or it holds unknown or wrong values.
    """
    return load_named(ExpertsConfig, name, FOLDER, "experts' configuration")
