"""The verb `models`: list the models, and what of each is on this disk."""

import argparse
from typing import Any

from uso.config import load_model_config, model_names


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "models", help="which models there are", description="List the models, and whether they are on this disk."
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    from uso.weights.hub.files import missing

    for name in model_names():
        config = load_model_config(name)
        absent = missing(config)
        size = sum(config.components[component].size_gb or 0 for component in absent)
        state = f"not on this disk: {', '.join(absent)} (about {size:.1f} GB)" if absent else "on this disk"
        experimental = " (experimental)" if config.experimental else ""
        print(f"{name}: {config.title}{experimental}. {config.description}\n  {state}")
        if config.licence_notice:
            print(f"  {config.licence_notice}")
    return 0
