"""The program in a browser: flags -> port open -> page built behind it -> the model loads behind that.

`python app.py`, then open http://127.0.0.1:7860. Wrong flags, a taken port and an output folder that cannot be written
to are refused here, before anything heavy is imported. What this file imports at its top is all that stands between
the start of the process and its first answer.
"""

import argparse
import atexit
import logging
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from uso.arguments import Parser
from uso.cluster.address import Workers, add_workers_flags, model_spec, named_model, reach, workers_of
from uso.config import ModelConfig
from uso.errors import ConfigError, USOError
from uso.language import Text
from uso.output import check_folder
from uso.request.translation import load_translator
from uso.system.garbage import collect_seldom, keep_what_is_there
from uso.system.threads import share_processors
from uso.terminal import run_program
from uso.web.gradio_import import importing_gradio
from uso.web.jobs.safety import load_safety
from uso.web.server.port import address, listen, reserve
from uso.web.settings import ServerSettings, add_server_flags, server_settings, worker_devices
from uso.weights.automatic import automatic_model
from uso.weights.flags import add_model_flags, load_options

if TYPE_CHECKING:
    from uso.pipeline.pipeline import USOPipeline
    from uso.web.jobs.job import Load, OnProgress
    from uso.web.server.starting import BuiltApp

logger = logging.getLogger("uso")

REFUSED = 2
"""Exit status where a flag is wrong, as argparse's."""


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="app.py", description="USO in a browser.")
    add_server_flags(made)
    add_workers_flags(made)
    add_model_flags(made)
    return made


def main() -> int:
    collect_seldom()
    share_processors()
    args = parser().parse_args()
    try:
        check_system()
        workers = workers_of(args)
        named, settings = named_model(args, workers), server_settings(args)
        worker_devices(args)
        if workers is not None and not workers.local:
            reach(workers)
        hooks = {"safety": load_safety(settings.safety), "translator": load_translator(settings.translate)}
        if settings.accounts:
            from uso.web.access.accounts import read_accounts

            read_accounts(settings.accounts)
        if settings.mcp:
            from uso.web.api.mcp import check_mcp

            check_mcp()
        check_folder(args.output)
        serve(args, named, settings, hooks, workers)
    except USOError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:  # uvicorn raises it again after it has ended in order
        # A thread may still be importing or loading, in C++ that aborts where the interpreter is taken down around it.
        logging.shutdown()
        os._exit(0)
    return 0


def check_system() -> None:
    """Refuse a system without the file locks that the page needs.

    Raises:
        ConfigError: this is Windows.
    """
    if sys.platform == "win32":
        raise ConfigError("The page runs on Linux and macOS. On Windows start it in WSL 2, or in the container.")


def serve(
    args: argparse.Namespace,
    named: ModelConfig | None,
    settings: ServerSettings,
    hooks: dict[str, Any],
    workers: Workers | None,
) -> None:
    """Open the port (or only take it), then build the page and let the model load behind it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("uvicorn", "httpx", "mcp"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = (reserve if settings.bind_when_ready else listen)(settings.host, settings.port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else a table of all calls so far, after every call
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    from uso.web.server.process import Server
    from uso.web.server.starting import StartingApp
    from uso.web.store import uploads

    folder = uploads.private_uploads()
    starting = StartingApp(
        lambda: build(args, named, settings, hooks, listener, workers), hold=settings.bind_when_ready
    )
    proxies = settings.trusted_proxies
    Server(starting, grace=settings.grace, uploads=folder, proxies=proxies).run(sockets=[listener])


def build(
    args: argparse.Namespace,
    named: ModelConfig | None,
    settings: ServerSettings,
    hooks: dict[str, Any],
    listener: socket.socket,
    workers: Workers | None = None,
) -> "BuiltApp":
    """The page. Called in a thread of its own, so that the seconds of importing Gradio delay no answer."""
    config: ModelConfig | None = named
    reason: str = Text("Chosen with --model {}.", args.model)
    if config is None:
        config, reason = automatic_model(args, worker_devices(args)[0])
    logger.info("%s. %s", config.title, reason)
    if args.lora_scale is not None:
        config = config.model_copy(update={"lora_scale": args.lora_scale})  # the page tells it

    with importing_gradio():
        from uso.web.api.calls import Calls
        from uso.web.jobs.queue import JobQueue
        from uso.web.page.layout import build_page
        from uso.web.server.app import built_app
        from uso.web.server.metrics import Metrics
        from uso.web.store.recovery import open_ledger

    metrics = Metrics(settings.log_prompts)
    why = None if named else reason
    loads: list[Load]
    if workers is None:
        devices = worker_devices(args)
        loads = [partial(load, args, config, device, why, len(devices) == 1) for device in devices]
    else:
        loads = loads_elsewhere(args, config, why, workers)
    ledger = open_ledger(settings.output)
    queue = JobQueue(loads, settings, ledger, **hooks, on_over=metrics.job_over, workers_change=workers is not None)
    metrics.watch(lambda: queue.status)
    page = build_page(Calls(config, queue, ledger, metrics.refused), reason)
    return built_app(queue, ledger, page, metrics, own_url=lambda: address(listener))


def load(
    args: argparse.Namespace,
    config: ModelConfig,
    device: str,
    why: str | None,
    alone: bool,
    on_progress: "OnProgress",
) -> "USOPipeline":
    """The pipeline. Called in a worker's thread, so that the seconds of importing torch delay no answer.

    Args:
        why: why `auto` chose this model; recorded in every picture.
        alone: it is the only worker.
    """
    from uso.weights.loading import load_pipeline

    options = load_options(args) | {"device": device, "alone": alone, "behind": True, "why": why}
    pipeline = load_pipeline(config, **options, on_progress=on_progress)
    on_progress("Fitting the preview", 1.0)
    pipeline.fit_preview()
    keep_what_is_there()
    return pipeline


def loads_elsewhere(args: argparse.Namespace, config: ModelConfig, why: str | None, workers: Workers) -> "list[Load]":
    """Connect to the cluster; one function for each of its workers.

    Raises:
        ConfigError: it cannot be used.
    """
    from uso.cluster.cluster import Cluster
    from uso.cluster.loading import load_remote

    cluster = Cluster(workers, args.device)
    cluster.connect()
    atexit.register(cluster.end)
    spec = model_spec(args, config, workers, load_options(args) | {"behind": True, "why": why}, previews=True)
    return [partial(load_remote, cluster, spec)] * cluster.count()


if __name__ == "__main__":
    sys.exit(run_program(main))
