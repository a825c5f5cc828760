"""The verb `train`: run a training stage, forecast it, or time its steps."""

import argparse
from pathlib import Path
from typing import Any

from uso.errors import ConfigError


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "train",
        help="train projector and LoRA",
        description="Run a training stage of configs/training/ or a YAML file of your own; several GPUs: accelerate "
        "launch -m uso train CONFIG. The result is written in the released layout, with every checkpoint; train export "
        "CHECKPOINT [FOLDER] writes it anew.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("config", metavar="CONFIG", help="a name (see configs/training/), a YAML file, or export")
    add_flags(parser)
    return parser


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What follows the config's name; the stages of `tools.demo` have them too."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as optimizer.lr=1e-4 data.rows=FILE")
    parser.add_argument("--dry-run", action="store_true", help="forecast memory and time, load nothing")
    parser.add_argument("--bench", type=int, metavar="N", help="time N steps on random weights (on a CPU reduced)")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint, if there is one")
    parser.add_argument("--offline", action="store_true", help="use the weights on the disk, fetch none")


def run(args: argparse.Namespace) -> int:
    if args.config == "export":
        return _export(args.overrides)
    from uso.training.command import run_train
    from uso.training.config import load_training_config

    return run_train(load_training_config(args.config, args.overrides), args, print)


def _export(places: list[str]) -> int:
    if not 1 <= len(places) <= 2:
        raise ConfigError("train export takes a checkpoint's folder, and the folder to write to if it is another.")
    from uso.training.loop.checkpoint import export

    for path in export(*map(Path, places)):
        print(path)
    return 0
