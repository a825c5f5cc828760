"""The verb `models`: list the models, and what of each is on this disk; or what a folder of weights has for one."""

import argparse
from pathlib import Path
from typing import Any

from uso.config import ModelConfig, load_model_config, model_names
from uso.weights.flags import AUTO_MODEL, add_weights_flag, weights_folders


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "models",
        help="which models there are",
        description="List the models, and whether they are on this disk. With --weights, print a table of what the "
        "folders hold for one model: which file is chosen for each component, and why the others are not.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", default=AUTO_MODEL, metavar="NAME", help=f"for the table ({AUTO_MODEL})")
    add_weights_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from uso.weights.hub.files import missing

    folders = weights_folders(args)
    if folders:
        return _table(load_model_config(args.model), folders)
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


def _table(config: ModelConfig, folders: list[str]) -> int:
    from uso.weights.hub.cache import Hub
    from uso.weights.hub.files import command, missing, size_text
    from uso.weights.selection import with_weights

    found, candidates = with_weights(config, folders, Hub().cache, undecided=True)
    candidates.sort(key=lambda each: (each.component is None, each.component or "", not each.chosen, each.path))
    rows = [
        (
            each.component or "-",
            _shown(each.path, folders),
            each.kind or each.title,
            size_text(each.bytes),
            "chosen" if each.chosen else "",
            each.reason,
        )
        for each in candidates
    ]
    head = ("component", "file", "kind", "size", "", "why")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    for row in (head, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1], sep="  ")
    if not any(each.chosen and each.component == "transformer" for each in candidates):
        print("No transformer is chosen. Name one with --transformer FILE where the model is used.")
    chosen = {each.component: each for each in candidates if each.chosen}
    absent = [name for name in missing(found) if name not in chosen]
    if absent:
        size = round(sum(config.components[name].size_gb or 0 for name in absent) * 10**9)
        print(f"Not found: {', '.join(absent)} (about {size_text(size)}). Fetch with `{command(config)}`.")
    else:
        print(f"All components of {config.title} are here.")
    return 0


def _shown(path: Path, folders: list[str]) -> str:
    """A path, from the folder on in which it was found."""
    for folder in folders:
        root = Path(folder).expanduser().absolute()
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)
