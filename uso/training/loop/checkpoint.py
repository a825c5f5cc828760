"""Checkpoints: everything a run needs to resume as if it had never stopped. A folder is complete or absent.

`state.safetensors` holds what learns, the optimizer's moments and the running mean, in float32; `state.json` the step,
the position in the data, and the config. Random numbers depend only on the position in the data (`seeds.py`), so no
generator state is saved. No pickles.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from uso.errors import CheckpointError, ConfigError
from uso.training.config import RunConfig, TrainingConfig
from uso.training.data.batches import Position
from uso.training.loop.optimizer import RunningMean
from uso.training.model.export import FILES, released, write_safetensors

_NAME = re.compile(r"step-(\d{8})")
_PART = ".part"

FREE = (
    *("name", "description", "output", "steps", "device", "compile", "gradient_checkpointing", "export_dtype"),
    *("tensorboard", "wandb", "log_every", "stop_after_minutes", "checkpoint", "validation"),
    *("data.cache", "data.cached", "data.memory_gib", "reward.held_out", "reward.held_out_weights"),
)
"""Keys of a config that a resumed run may change; with all others it would be another run."""

FORMAT = 2
"""Of a checkpoint. Those of format 1, which say none, stand in epochs of another order."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int = 0
    """Updates that were made."""
    position: Position = field(default_factory=Position)
    seconds: float = 0.0
    """Of training, over all of its runs."""


def checkpoints(folder: Path) -> list[Path]:
    """A run's complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())


def save(
    folder: Path,
    config: RunConfig,
    progress: Progress,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    mean: RunningMean | None,
) -> Path:
    """Write a checkpoint, then delete the oldest ones beyond `checkpoint.last`; returns its folder."""
    tensors = {f"model/{name}": _host(parameter) for name, parameter in parameters.items()}
    if mean is not None:
        tensors |= {f"mean/{name}": _host(value) for name, value in mean.values.items()}
    values: dict[str, Any] = {}
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in _flat(moments):
            name = f"optimizer/{index}/{key}"
            if isinstance(value, torch.Tensor):
                tensors[name] = _host(value)
            else:
                values[name] = value
    target = folder / f"step-{progress.step:08d}"
    part = target.with_name(f"{target.name}.{os.getpid()}{_PART}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_safetensors(part / "state.safetensors", tensors)
    record = {
        "format": FORMAT,
        "step": progress.step,
        "position": progress.position.model_dump(),
        "seconds": progress.seconds,
        "optimizer": values,
        "config": config.model_dump(mode="json"),
    }
    (part / "state.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in checkpoints(folder)[: -config.checkpoint.last]:
        shutil.rmtree(old)
    for left in folder.glob(f"*{_PART}"):  # of runs that were killed while they wrote
        shutil.rmtree(left, ignore_errors=True)
    return target


def read_record(checkpoint: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        record: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {checkpoint} cannot be read ({error}). Delete it to go on from the one before."
        ) from error
    return record


def check_config(checkpoint: Path, config: TrainingConfig) -> None:
    """Refuse to resume with a config under which the run would not be the same.

    Raises:
        ConfigError: names the key and both values.
    """
    record = read_record(checkpoint)
    if record.get("format") != FORMAT:
        raise ConfigError(
            f"{checkpoint} was made by an earlier version of this program, whose epochs have another order. Begin "
            "another run from the files beside it: start.projector=FILE, start.lora=FILE, output=FOLDER."
        )
    then, now = dict(_dotted(record["config"])), dict(_dotted(config.model_dump(mode="json")))
    fixed_steps = config.optimizer.decay != "constant"  # the learning rate of every step depends on how many there are
    for key in dict.fromkeys((*now, *then)):
        free = any(key == name or key.startswith(f"{name}.") for name in FREE)
        if then.get(key) != now.get(key) and (not free or (key == "steps" and fixed_steps)):
            raise ConfigError(
                f"{checkpoint} was made with {key}={json.dumps(then.get(key))}, and this run has "
                f"{json.dumps(now.get(key))}. Go on with the same value, or begin anew in another folder: "
                "output=FOLDER."
            )


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`key.key`, value) of everything in nested dictionaries."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_samples(checkpoint: Path, count: int) -> None:
    """Refuse to resume with another number of samples: their order would be another.

    Raises:
        ConfigError: names both numbers.
    """
    before = Position.model_validate(read_record(checkpoint)["position"]).samples
    if before not in (0, count):
        raise ConfigError(
            f"{checkpoint} was made with {before} samples, and the data now hold {count}. Go on with the same rows, or "
            "begin anew in another folder: output=FOLDER."
        )


def keep_export(result: Path, checkpoint: Path) -> None:
    """Keep a run's result of this step beside its checkpoint, without a second copy where the disk can."""
    kept = checkpoint / result.name
    try:
        os.link(result, kept)
    except OSError:
        shutil.copyfile(result, kept)


def export(checkpoint: Path, folder: Path | None = None) -> list[Path]:
    """Write what a checkpoint has learned in the released layout: the running mean where there is one.

    Args:
        checkpoint: a checkpoint's folder, or that of a run, whose newest is taken.
        folder: where; left out, beside the checkpoint.

    Raises:
        ConfigError, CheckpointError: there is none, it cannot be read, or it is of another kind of run.
    """
    found = checkpoints(checkpoint / "checkpoints")
    checkpoint = found[-1] if found else checkpoint
    if not (checkpoint / "state.json").is_file():
        raise ConfigError(f"{checkpoint} is no checkpoint. They are in a run's folder: checkpoints/step-00000500.")
    record = read_record(checkpoint)
    values = record["config"]
    if "learns" not in values:
        raise ConfigError(f"{checkpoint} is of a run that trains no projector and no LoRA.")
    kind = "model" if values.get("ema") is None else "mean"
    named: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in _tensors(checkpoint).items():
        group, _, rest = name.partition("/")
        if group == kind:
            learner, _, parameter = rest.partition("/")
            named.setdefault(learner, {})[parameter] = tensor
    paths = []
    for learner, parameters in named.items():
        paths.append((folder or checkpoint) / FILES[learner])
        tensors = released(learner, parameters, getattr(torch, values["export_dtype"]))
        write_safetensors(paths[-1], tensors, {"run": values["name"], "step": str(record["step"])})
    return paths


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(checkpoint / "state.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The checkpoint {checkpoint} cannot be read ({error}). Delete it to go on from the one before."
        ) from error


@torch.no_grad()
def restore(
    checkpoint: Path,
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    mean: RunningMean | None,
) -> Progress:
    """Put a checkpoint's numbers in their places.

    Raises:
        CheckpointError: it cannot be read, or belongs to other parameters.
    """
    record = read_record(checkpoint)
    tensors = _tensors(checkpoint)
    _copy(checkpoint, "model", tensors, parameters)
    if mean is not None:
        _copy(checkpoint, "mean", tensors, mean.values)
    moments: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *record["optimizer"].items()]:
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, key = rest.partition("/")
            moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(record["step"], Position.model_validate(record["position"]), record["seconds"])


def _copy(
    checkpoint: Path, kind: str, tensors: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]
) -> None:
    for name, parameter in parameters.items():
        value = tensors.get(f"{kind}/{name}")
        if value is None or value.shape != parameter.shape:
            found = "nothing" if value is None else list(value.shape)
            raise CheckpointError(f"{checkpoint}: {name} should be {list(parameter.shape)} and is {found}.")
        parameter.copy_(value)


def _flat(moments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What an optimizer keeps for a parameter; bitsandbytes gives a part of it in a dictionary, and takes it flat."""
    for key, value in moments.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield key, value


def _host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
