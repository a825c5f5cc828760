"""The verb `reader`: train image encoder and projector of the demo model together."""

import argparse
from typing import Any

from tools.demo.training.config import STAGES_FOLDER
from uso.training.config_files import config_names


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "reader",
        help="train the image encoder with the projector",
        description="Train the demo model's image encoder with its projector, by the pictures that the transformer "
        "makes of their style tokens.",
    )
    parser.set_defaults(run=run)
    names = ", ".join(name for name in config_names(STAGES_FOLDER) if name.startswith("reader"))
    parser.add_argument("config", metavar="STAGE", help=f"{names}; or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as steps=400 output=FOLDER")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint, if there is one")
    return parser


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status.

    Raises:
        USOError: with the remedy.
    """
    from tools.demo.training.reader import load_reader_config, train_reader

    print(train_reader(load_reader_config(args.config, args.overrides), args.resume))
    return 0
