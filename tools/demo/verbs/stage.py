"""The verb `stage`: train projector and LoRA of the demo model, by the program's own trainer.

A stage is a config in `tools/demo/configs/stages/`. It plugs the shards, the optimizer and the teachers of the demo
into `uso.training` by their names.
"""

import argparse
from typing import Any

from tools.demo.training.config import STAGES_FOLDER, load_stage
from uso.cli import train
from uso.training.command import run_train
from uso.training.config_files import config_names


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "stage",
        help="train projector and LoRA",
        description="Train a stage of the demo model. Several GPUs: accelerate launch -m tools.demo stage STAGE.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("config", metavar="STAGE", help=f"{', '.join(config_names(STAGES_FOLDER))}; or a YAML file")
    train.add_flags(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    return run_train(load_stage(args.config, args.overrides), args, print)
