"""A model's folder in the released layouts, part by part: what is there is read, what was learned is written.

The folder is what `uso/config.py`'s `ModelConfig.architecture` and `components` name; `assets/demo-model` is one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from uso.config import load_model_config
from uso.errors import ConfigError
from uso.training.model.export import write_safetensors

DTYPE = torch.bfloat16
"""Of the files; what learns is float32."""


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """`NAME.json` of a model's folder.

    Raises:
        ConfigError: it is not there.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise ConfigError(f"{folder} holds no {name}.json. Train that part first: python -m tools.demo part")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def tower_sizes(tower: Any) -> dict[str, int]:
    """The `architecture` of a vision tower, from its config."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    return {name: int(getattr(tower, name)) for name in names}


def refuse_other_sizes(what: str, wanted: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse an `architecture` that differs from the existing part: a run continues with that part.

    Raises:
        ConfigError: which value differs.
    """
    for key, value in wanted.items():
        if key in present and present[key] != value:
            raise ConfigError(
                f"The {what} that is there has {key} {present[key]}, and architecture asks for {value}. Say fresh=true "
                "to begin a new one, or leave architecture as it is."
            )


def write_config(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    draft = folder / f".{name}.json.part"
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / f"{name}.json")


def write_pretrained(folder: Path, name: str, model: Any) -> None:
    """A transformers model as its own folder of a released repository, in bfloat16, and its config beside the others.

    The model stays as it is.
    """
    tensors = {key: value.detach().to(DTYPE).contiguous() for key, value in model.named_parameters()}
    (folder / name).mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / name / "model.safetensors", tensors, {"format": "pt"})
    values = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    write_config(folder / name, "config", values)
    write_config(folder, "image_encoder" if name == "siglip" else name, values)


def write_model_yaml(folder: Path) -> Path:
    """`model.yaml`, under which the program loads the folder: the demo's own config with every path in it."""
    values = load_model_config("demo").model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    own = values["architecture"]
    values["architecture"] = str(folder)
    for component in values["components"].values():
        component["path"] = component["path"].replace(own, str(folder), 1)
    settings = json.loads((folder / "tokenizer_2" / "tokenizer_config.json").read_text(encoding="utf-8"))
    values["max_sequence_length"] = settings["model_max_length"]
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path
