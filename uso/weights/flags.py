"""The flags that `app.py` and `python -m uso` share: which model, from which files, on which device.

`add_model_flags` adds them to a parser, `check_model_flags` refuses wrong values before anything heavy is imported, and
`model_files` returns the files that replace components. Loads nothing, probes no device, imports no torch.
"""

import argparse
import math
import os
import re
from typing import Any

from uso.config import (
    COMPILES,
    COMPONENT_NAMES,
    SPEEDS,
    LoraFile,
    ModelConfig,
    from_home,
    load_memory_plan,
    load_model_config,
    memory_names,
    model_names,
    with_local_files,
)
from uso.errors import ConfigError

AUTO = "auto"
AUTO_MODEL = "flux-dev"
"""What `auto` takes where it can."""
WEIGHTS_VARIABLE = "USO_WEIGHTS"
DTYPES = (AUTO, "bfloat16", "float32")
AUTO_FLAGS = ("model", "memory", "device", "dtype", "compile")
"""Flags whose default is `auto`."""

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def add_machine_flags(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--memory`, `--device`, `--dtype`, `--speed` and `--compile`: how a model runs on this machine.

    Args:
        several: `--memory` and `--speed` may be comma-separated lists, which the caller verifies.
    """
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--memory",
        default=AUTO,
        metavar="PLANS" if several else "PLAN",
        help=f"auto, {', '.join(memory_names())}: how it fits the machine",
    )
    group.add_argument("--device", default=AUTO, help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--dtype", default=AUTO, metavar="TYPE", help=f"{', '.join(DTYPES)}: numbers to compute in")
    group.add_argument(
        "--speed",
        choices=None if several else SPEEDS,
        metavar="LEVELS" if several else None,
        help="exact (the default), or a level that trades exactness for time",
    )
    group.add_argument(
        "--compile", default=AUTO, choices=COMPILES, help="compile the transformer's blocks: auto does on CUDA"
    )


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--model`, `--lora-scale`, `--offline`, one flag per component, and the machine's flags."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=AUTO,
        metavar="NAME",
        help=f"auto, {', '.join(model_names())}, or a YAML file of your own. auto (the default) takes flux-dev where a "
        "GPU can hold it and its weights are on the disk, else demo; it never downloads, a name does",
    )
    add_weights_flag(group)
    group.add_argument("--lora-scale", type=float, metavar="NUMBER", help="strength of USO's LoRA (1.0 as released)")
    group.add_argument(
        "--add-lora",
        action="append",
        metavar="FILE[:STRENGTH]",
        help="a FLUX LoRA of your own, folded beside USO's; may be repeated (strength 1). One that is known to distil "
        "the model to few steps brings its own default steps, guidance and strength",
    )
    group.add_argument("--offline", action="store_true", help="use what is on the disk; no network")
    add_machine_flags(parser)
    files = parser.add_argument_group("files instead of the model's own (safetensors, GGUF, or folders)")
    for name in COMPONENT_NAMES:
        files.add_argument(f"--{name.replace('_', '-')}", metavar="PATH")


def add_weights_flag(group: argparse._ActionsContainer) -> None:
    """Add `--weights`."""
    group.add_argument(
        "--weights",
        action="append",
        metavar="FOLDER",
        help="a folder of weights, such as ComfyUI's models/: the model's parts are found in it by content; may be "
        f"repeated (${WEIGHTS_VARIABLE} names folders too)",
    )


def weights_folders(args: argparse.Namespace) -> list[str]:
    """The folders that `--weights`, or else `USO_WEIGHTS`, names."""
    given: list[str] | None = getattr(args, "weights", None)
    return given or [part for part in os.environ.get(WEIGHTS_VARIABLE, "").split(os.pathsep) if part]


def added_loras(args: argparse.Namespace) -> tuple[LoraFile, ...]:
    """What `--add-lora FILE[:STRENGTH]` says, in the order given.

    A file that distils to few steps has the strength that goes with it, where none is given.

    Raises:
        ConfigError, CheckpointError: a file that is not there or holds no weights, or a strength that is no number.
    """
    from uso.weights.few_steps import few_steps

    found = []
    for text in getattr(args, "add_lora", None) or ():
        path, strength = text, None
        head, colon, tail = text.rpartition(":")
        if colon and head and not from_home(text).exists():
            path = head
            try:
                strength = float(tail)
            except ValueError:
                strength = math.nan
        if strength is not None and not math.isfinite(strength):
            raise ConfigError(f"--add-lora {text}: '{tail}' is no strength. Give FILE or FILE:NUMBER, such as x:0.8.")
        if not from_home(path).is_file():
            raise ConfigError(f"--add-lora {path}: there is no such file.")
        if strength is None:
            known = few_steps(from_home(path))
            strength = known.strength if known else 1.0
        found.append(LoraFile(path=str(from_home(path).absolute()), strength=strength))
    return tuple(found)


def with_added_loras(config: ModelConfig, args: argparse.Namespace) -> ModelConfig:
    """A model with the LoRAs of `--add-lora` beside its own, and the defaults that go with them.

    Raises:
        ConfigError, CheckpointError: a file is refused; see `added_loras` and `few_steps.with_few_steps`.
    """
    from uso.weights.few_steps import with_few_steps

    loras = added_loras(args)
    if not loras:
        return config
    return with_few_steps(config, loras).model_copy(update={"added_loras": (*config.added_loras, *loras)})


def own_files(config: ModelConfig, args: argparse.Namespace) -> ModelConfig:
    """A model with the files that the flags name: folders first, then single components, and LoRAs beside them.

    Raises:
        ConfigError, CheckpointError: a file or folder is not there, or a file is not what its flag says.
    """
    from uso.weights.formats.kinds import check_file

    files = model_files(args)
    folders = weights_folders(args) or list(config.weights)
    if folders:
        from uso.weights.hub.cache import Hub
        from uso.weights.selection import with_weights

        config, _ = with_weights(config, folders, Hub().cache, named=files)
    for name, path in files.items():
        if from_home(path).is_file():
            check_file(from_home(path), name)  # type: ignore[arg-type]
    return with_added_loras(with_local_files(config, files), args)


def model_files(args: argparse.Namespace) -> dict[str, str]:
    """Components given as paths: {"transformer": "/models/flux1-dev.safetensors", ...}."""
    return {name: path for name in COMPONENT_NAMES if (path := getattr(args, name)) is not None}


def named_files(args: argparse.Namespace) -> dict[str, str]:
    """The flags that name files, and what they name: `auto` does not leave these unused in silence."""
    return model_files(args) | dict.fromkeys(("add_lora",) if getattr(args, "add_lora", None) else (), "")


def with_auto(args: argparse.Namespace) -> argparse.Namespace:
    """The flags with None replaced by `auto`, for verbs whose defaults are None to tell `auto` from no flag."""
    omitted = [flag for flag in AUTO_FLAGS if getattr(args, flag) is None]
    return argparse.Namespace(**(vars(args) | dict.fromkeys(omitted, AUTO)))


def load_options(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as arguments of `uso.weights.loading.load_pipeline`."""
    return {
        "memory": args.memory,
        "device": args.device,
        "dtype": args.dtype,
        "lora_scale": args.lora_scale,
        "speed": args.speed or SPEEDS[0],
        "compile": args.compile,
        "offline": args.offline,
        "download": args.model != AUTO,  # `auto` never downloads
    }


def check_model_flags(args: argparse.Namespace) -> ModelConfig | None:
    """Verify the values, before torch is imported.

    Returns:
        The named model with its local files, or None for `auto`, which depends on the device.

    Raises:
        ConfigError: an unknown name, a missing file, a value out of range.
    """
    check_values(args)
    config = own_files(load_model_config(AUTO_MODEL if args.model == AUTO else args.model), args)  # for auto too
    return None if args.model == AUTO else config


def check_values(args: argparse.Namespace) -> None:
    """Verify the values that need no files.

    Raises:
        ConfigError: an unknown name, a value out of range.
    """
    if args.memory != AUTO:
        load_memory_plan(args.memory)
    if not DEVICE.fullmatch(args.device):
        raise ConfigError(f"There is no device '{args.device}'. Choose auto, cpu, cuda, cuda:N or mps.")
    if args.dtype not in DTYPES:
        raise ConfigError(f"There is no number type '{args.dtype}'. Choose one of: {', '.join(DTYPES)}.")
    if args.lora_scale is not None and not math.isfinite(args.lora_scale):
        raise ConfigError(f"--lora-scale {args.lora_scale} is not a usable number. 1.0 is the released strength.")
