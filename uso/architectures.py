"""The `config.json` of a model's components as they ship with the program: no gated page is asked for them."""

import json
from pathlib import Path
from typing import Any

from uso.config import ModelConfig, load_model_config
from uso.errors import ConfigError

COMPLETE = "flux-dev"
"""The model whose folder has every component's config; others hold what differs."""


def architecture_file(config: ModelConfig, name: str) -> Path:
    """The shipped config of a component; what a model's own folder lacks is `COMPLETE`'s."""
    for folder in (config.architecture_folder, load_model_config(COMPLETE).architecture_folder):
        if (folder / f"{name}.json").is_file():
            return folder / f"{name}.json"
    raise ConfigError(f"{config.architecture_folder} holds no {name}.json.")


def read_component_config(path: Path) -> dict[str, Any]:
    """A component's `config.json` as its class takes it.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} could not be read ({error}).") from error
    return values
