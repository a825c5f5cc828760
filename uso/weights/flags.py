"""The flags that `app.py` and `python -m uso` share: which model, from which files, on which device.

`add_model_flags` adds them to a parser, `check_model_flags` refuses wrong values before anything heavy is imported, and
`model_files` returns the files that replace components. Loads nothing, probes no device, imports no torch.
"""

import argparse
import math
import re
from typing import Any

from uso.config import (
    COMPILES,
    COMPONENT_NAMES,
    SPEEDS,
    ModelConfig,
    load_memory_plan,
    load_model_config,
    memory_names,
    model_names,
    with_local_files,
)
from uso.errors import ConfigError

AUTO = "auto"
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
    group.add_argument("--lora-scale", type=float, metavar="NUMBER", help="strength of USO's LoRA (1.0 as released)")
    group.add_argument("--offline", action="store_true", help="use what is on the disk; no network")
    add_machine_flags(parser)
    files = parser.add_argument_group("files instead of the model's own (safetensors, or folders)")
    for name in COMPONENT_NAMES:
        files.add_argument(f"--{name.replace('_', '-')}", metavar="PATH")


def model_files(args: argparse.Namespace) -> dict[str, str]:
    """Components given as paths: {"transformer": "/models/flux1-dev.safetensors", ...}."""
    return {name: path for name in COMPONENT_NAMES if (path := getattr(args, name)) is not None}


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
    if args.memory != AUTO:
        load_memory_plan(args.memory)
    if not DEVICE.fullmatch(args.device):
        raise ConfigError(f"There is no device '{args.device}'. Choose auto, cpu, cuda, cuda:N or mps.")
    if args.dtype not in DTYPES:
        raise ConfigError(f"There is no number type '{args.dtype}'. Choose one of: {', '.join(DTYPES)}.")
    if args.lora_scale is not None and not math.isfinite(args.lora_scale):
        raise ConfigError(f"--lora-scale {args.lora_scale} is not a usable number. 1.0 is the released strength.")
    config = load_model_config("demo" if args.model == AUTO else args.model)
    config = with_local_files(config, model_files(args))  # for auto too, so a missing file is refused now
    return None if args.model == AUTO else config
