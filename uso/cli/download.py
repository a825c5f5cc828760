"""The verb `download`: print what a model takes, fetch it, print where it came from."""

from collections.abc import Callable

from uso.config import ModelConfig
from uso.weights.hub.cache import Hub
from uso.weights.hub.files import command, download, plan_download, size_text

INTERRUPTED = 130
"""What a shell expects of a program that was stopped with Ctrl-C."""


def run_download(
    config: ModelConfig, out: Callable[[str], None], *, dry_run: bool = False, hub: Hub | None = None
) -> int:
    """The command `download`: say what it costs, fetch it, say where it came from. Returns the exit status."""
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
        out(f"Interrupted. What has arrived is kept: run `{command(config)}` to go on.")
        return INTERRUPTED
    for commit in sorted({(file.repo, file.revision, file.commit) for file in plan.files}):
        out("{}  {}  commit {}".format(*commit))
    out(f"All {len(located)} components of {config.name} are here and verified.")
    return 0
