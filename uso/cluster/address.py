"""`--workers`: where the workers are. Everything that can be refused without Ray is refused here."""

import argparse
import importlib.util
import re
import socket
from dataclasses import dataclass
from typing import Any

from uso.config import COMPONENT_NAMES, ModelConfig, from_home, load_model_config
from uso.errors import ConfigError
from uso.weights.flags import AUTO, check_model_flags, check_values

CLIENT_PORT = 10001
"""Where a Ray head listens for clients."""

REACH_SECONDS = 5.0

MAX_WORKERS = 1024

LOCAL = "local-ray"

FILE_FLAGS = ("weights", "add_lora", *COMPONENT_NAMES)
"""Flags that name files, which each node looks for by itself."""

_RAY = re.compile(r"ray://(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?/?")
_LOCAL = re.compile(rf"{LOCAL}:(\d{{1,4}})")


@dataclass(frozen=True)
class Workers:
    """Where workers are, and how many."""

    host: str
    """Of the head; empty for a cluster of this machine alone."""
    port: int
    count: int | None
    """None: one for each GPU that the cluster has."""

    @property
    def local(self) -> bool:
        return not self.host

    @property
    def name(self) -> str:
        """As people know it."""
        return f"{LOCAL}:{self.count}" if self.local else f"ray://{self.host}:{self.port}"


def add_workers_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--workers` and `--worker-count`."""
    group = parser.add_argument_group("workers elsewhere (pip install -r requirements-ray.txt)")
    group.add_argument(
        "--workers",
        metavar="WHERE",
        help=f"ray://HOST:{CLIENT_PORT}, the GPUs of a Ray cluster; {LOCAL}:N, N of this machine in processes of "
        "their own",
    )
    group.add_argument(
        "--worker-count",
        type=int,
        metavar="N",
        help="with ray://: how many (default: the GPUs that the cluster has); Ray's autoscaler may bring more than "
        "there are",
    )


def workers_of(args: argparse.Namespace) -> Workers | None:
    """What `--workers` says; None without it.

    Raises:
        ConfigError: it makes no sense, or not with the other flags, or Ray is not installed.
    """
    if args.workers is None:
        if args.worker_count is not None:
            raise ConfigError("--worker-count belongs to --workers ray://HOST:PORT.")
        return None
    found = _parsed(args.workers, args.worker_count)
    if getattr(args, "devices", None) is not None:
        raise ConfigError("--workers and --devices both say where to run; choose one.")
    if args.device not in (AUTO, "cpu", "cuda"):
        raise ConfigError(f"--device {args.device}: with --workers Ray chooses the GPU. Give auto, cuda or cpu.")
    if not found.local:
        if args.model == AUTO:
            raise ConfigError(
                f"--workers {found.name} needs a model by its name, such as --model flux-dev: auto looks at this "
                "machine alone."
            )
        for flag, path in _given(args):
            if not from_home(path).is_absolute() and not path.startswith("~"):
                raise ConfigError(
                    f"--{flag.replace('_', '-')} {path}: each node looks for it by itself, so give an absolute path."
                )
    for package in ("ray", "grpc"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError("--workers needs Ray, which is not installed. Run pip install -r requirements-ray.txt.")
    return found


def _parsed(text: str, count: int | None) -> Workers:
    if match := _LOCAL.fullmatch(text):
        if count is not None:
            raise ConfigError(f"--workers {text} says how many already; leave out --worker-count.")
        found = Workers("", 0, int(match[1]))
    elif match := _RAY.fullmatch(text):
        found = Workers(match["host"], int(match["port"] or CLIENT_PORT), count)
        if not 0 < found.port < 65536:
            raise ConfigError(f"--workers {text}: {found.port} is no port; 1 to 65535 is allowed.")
    else:
        raise ConfigError(f"--workers {text}: give ray://HOST:{CLIENT_PORT}, or {LOCAL}:2 for two on this machine.")
    if found.count is not None and not 1 <= found.count <= MAX_WORKERS:
        raise ConfigError(f"{found.count} workers are asked for; 1 to {MAX_WORKERS} are allowed.")
    return found


def reach(workers: Workers) -> None:
    """See that something answers where the head should be: Ray's own client takes half a minute to say that none does.

    Raises:
        ConfigError: nothing does.
    """
    try:
        socket.create_connection((workers.host.strip("[]"), workers.port), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"Nothing answers at {workers.name} ({error.strerror or error}). Start the head with `ray start --head`, "
            "or correct --workers."
        ) from error


def named_model(args: argparse.Namespace, workers: Workers | None) -> ModelConfig | None:
    """As `check_model_flags`; the files of a cluster's model are on its nodes, which look for them when they load.

    Raises:
        ConfigError: a flag is wrong.
    """
    if workers is None or workers.local:
        return check_model_flags(args)
    check_values(args)
    return load_model_config(args.model)


def model_spec(
    args: argparse.Namespace, config: ModelConfig, workers: Workers, options: dict[str, Any], *, previews: bool
) -> dict[str, Any]:
    """What a node needs to load a model, as JSON values.

    Args:
        config: the model; on this machine with its files.
        options: of `load_pipeline`.
        previews: it is to make previews.
    """
    flags = None if workers.local else {name: getattr(args, name) for name in FILE_FLAGS if getattr(args, name)}
    return {"config": config.model_dump(mode="json"), "files": flags, "options": options, "previews": previews}


def _given(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Flags that name files, and each path that they name."""
    given = [(flag, getattr(args, flag)) for flag in FILE_FLAGS if getattr(args, flag)]
    return [(flag, path) for flag, paths in given for path in (paths if isinstance(paths, list) else [paths])]
