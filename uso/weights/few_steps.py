"""LoRAs that distil a model to few steps: which steps, guidance and strength are their defaults.

A safetensors file may say so in its metadata (`num_inference_steps`, `guidance_scale`, `lora_scale`). Files that do not
are known by name, with what their authors publish. No torch here.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uso.config import LoraFile, ModelConfig
from uso.errors import ConfigError
from uso.weights.formats.headers import read_header

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FewSteps:
    """The defaults that go with a LoRA."""

    steps: int
    guidance: float | None
    """None: the model's own."""
    strength: float
    source: str
    """Who says so."""

    @property
    def record(self) -> dict[str, Any]:
        return {"num_inference_steps": self.steps, "guidance_scale": self.guidance, "source": self.source}


_HYPER = "the model card of ByteDance/Hyper-SD"
_TURBO_ALPHA = "the model card of alimama-creative/FLUX.1-Turbo-Alpha"

KNOWN: tuple[tuple[re.Pattern[str], FewSteps], ...] = (
    (re.compile(r"hyper-flux\.?1?-dev-8-?steps?"), FewSteps(8, 3.5, 0.125, _HYPER)),
    (re.compile(r"hyper-flux\.?1?-dev-16-?steps?"), FewSteps(16, 3.5, 0.125, _HYPER)),
    (re.compile(r"flux[.\w-]*turbo-alpha"), FewSteps(8, 3.5, 1.0, _TURBO_ALPHA)),
)
"""By name, in lower case, with hyphens. The cards were read in 2026; the files themselves were not at hand."""

_NAMELESS = ("diffusion_pytorch_model.safetensors", "pytorch_lora_weights.safetensors")
"""Names that say nothing: there the folders count, as FLUX.1-Turbo-Alpha's own file needs."""

_FOLDERS = 3
"""Above such a file: the Hub's cache has a revision, `snapshots` and the repository."""


def few_steps(path: Path) -> FewSteps | None:
    """The defaults that go with a LoRA's file; None for one that says nothing and is not known.

    Raises:
        CheckpointError: it is no weights file.
    """
    said = _said(read_header(path).metadata, path.name)
    if said is not None:
        return said
    names = [path.name]
    if path.name in _NAMELESS:
        names += [folder.name for folder in path.absolute().parents[:_FOLDERS]]
    for name in names:
        plain = re.sub(r"[_ ]", "-", name.lower())
        for pattern, known in KNOWN:
            if pattern.search(plain):
                return known
    return None


def _said(metadata: Mapping[str, str], name: str) -> FewSteps | None:
    keys = ("num_inference_steps", "guidance_scale", "lora_scale")
    if keys[0] not in metadata:
        return None
    try:
        steps, guidance, strength = (float(metadata[key]) if key in metadata else None for key in keys)
    except ValueError:
        steps = guidance = strength = math.nan
    given = [value for value in (steps, guidance, strength) if value is not None]
    if not all(map(math.isfinite, given)) or steps is None or steps != int(steps) or steps < 1:
        values = ", ".join(f"{key}={metadata[key]}" for key in keys if key in metadata)
        logger.warning("%s: its metadata (%s) are no steps, guidance and strength, and do not count.", name, values)
        return None
    return FewSteps(int(steps), guidance, 1.0 if strength is None else strength, "the file's metadata")


def with_few_steps(config: ModelConfig, loras: Sequence[LoraFile]) -> ModelConfig:
    """A model with the default steps and guidance of the LoRA among these that distils it, if there is one.

    Raises:
        ConfigError: two do, or one's values are none that the model takes.
    """
    found = [(lora.local_path.name, known) for lora in loras if (known := few_steps(lora.local_path))]
    if not found:
        return config
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise ConfigError(f"--add-lora: {names} each distil the model to few steps. Add one of them.")
    name, known = found[0]
    limits = config.limits
    guidance = config.defaults.guidance_scale if known.guidance is None else known.guidance
    fits = known.steps <= limits.max_steps and limits.min_guidance <= guidance <= limits.max_guidance
    if not fits:
        raise ConfigError(
            f"--add-lora {name}: {known.steps} steps at guidance {guidance:g}, as {known.source} says, are not what "
            f"{config.title} takes: at most {limits.max_steps} steps, guidance {limits.min_guidance:g} to "
            f"{limits.max_guidance:g}."
        )
    logger.info("%s: %d steps and guidance %g are the defaults, by %s.", name, known.steps, guidance, known.source)
    changes = {"num_inference_steps": known.steps, "guidance_scale": guidance}
    return config.model_copy(update={"defaults": config.defaults.model_copy(update=changes)})
