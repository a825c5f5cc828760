"""The verb `download`: print what a model takes, fetch it, print where it came from."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uso.cli import INTERRUPTED
from uso.config import ModelConfig, load_model_config, model_names
from uso.weights.flags import add_weights_flag, weights_folders

if TYPE_CHECKING:
    from uso.weights.hub.cache import Hub


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "download",
        help="fetch a model's weights",
        description="Print the size of a model's files, then fetch what is missing. Resumes an interrupted download.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", required=True, metavar="NAME", help=", ".join(model_names()))
    add_weights_flag(parser)
    parser.add_argument("--dry-run", action="store_true", help="only print what there is to fetch")
    return parser


def run(args: argparse.Namespace) -> int:
    config = load_model_config(args.model)
    if folders := weights_folders(args):
        from uso.weights.hub.cache import Hub
        from uso.weights.selection import with_weights

        config, _ = with_weights(config, folders, Hub().cache)
    if all(source.repo is None for source in config.components.values()):
        print(f"{config.title} needs nothing from the network: all its files are on this disk.")
        return 0
    return run_download(config, print, dry_run=args.dry_run)


def run_download(
    config: ModelConfig, out: Callable[[str], None], *, dry_run: bool = False, hub: "Hub | None" = None
) -> int:
    """Print the size of a model, fetch it, print where it came from; returns the exit status."""
    from uso.weights.hub.cache import Hub
    from uso.weights.hub.files import command, download, plan_download, size_text

    hub = hub or Hub()
    plan = plan_download(config, hub=hub)
    for file in plan.files:
        state = "here" if file.whole(hub) else "to fetch"
        out(f"{size_text(file.size):>10}  {state:<8}  {file.repo}  {file.path}")
    out(f"{config.title}: {size_text(plan.total_bytes)} in all, {size_text(plan.bytes_to_fetch)} to fetch.")
    if dry_run:
        return 0
    try:
        located = download(config, plan, hub=hub)
    except KeyboardInterrupt:
        out(f"Interrupted. Received data is kept: run `{command(config)}` to go on.")
        return INTERRUPTED
    for commit in sorted({(file.repo, file.revision, file.commit) for file in plan.files}):
        out("{}  {}  commit {}".format(*commit))
    out(f"All {len(located)} components of {config.name} are here and verified.")
    return 0
