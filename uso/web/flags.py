"""The server's flags: `add_server_flags` puts them into `app.py`'s parser, `server_settings` verifies what was given.

Everything that can be refused is refused here, before anything heavy is imported.
"""

import argparse
import ipaddress
import os
import re
from pathlib import Path

from uso.errors import ConfigError
from uso.web.settings import ORPHANS, ServerSettings
from uso.weights.flags import AUTO, DEVICE

HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]", re.ASCII)
"""As a browser writes it into the `Host` header, in lower case and without a port."""

DEFAULTS = ServerSettings(output=Path("outputs"))


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add every flag that is about the server and the people who use it."""
    _add_address(parser.add_argument_group("server"))
    _add_people(parser.add_argument_group("who may use it, and how much"))
    _add_upkeep(parser.add_argument_group("upkeep"))


def _add_address(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default=DEFAULTS.host, help="address to listen on; 0.0.0.0 lets other machines in")
    group.add_argument("--port", type=int, default=DEFAULTS.port)
    group.add_argument(
        "--root-path", default=os.environ.get("ROOT_PATH", ""), metavar="PATH", help="where a proxy shows it: /uso"
    )
    group.add_argument(
        "--trusted-proxies",
        default=",".join(DEFAULTS.trusted_proxies),
        metavar="LIST",
        help="addresses and networks, with commas between, whose word on a caller's address and name is taken; "
        "* is everybody (%(default)s)",
    )
    group.add_argument(
        "--allowed-hosts",
        default="",
        metavar="LIST",
        help="names, with commas between, under which the page may be asked for, beside localhost: uso.example.org; "
        "without it any, but only localhost where --host is this machine and no proxy stands before it",
    )
    group.add_argument(
        "--bind-when-ready",
        action="store_true",
        help="refuse connections until the model is loaded, instead of showing how far it is",
    )
    group.add_argument(
        "--devices",
        metavar="LIST",
        help="one worker for each, behind the same line: 0,1 for two GPUs; each loads a model of its own",
    )
    group.add_argument("--mcp", action="store_true", help="offer /generate, /status and /cancel as MCP tools too")


def _add_people(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--auth",
        type=Path,
        metavar="FILE",
        help="let in only whom this file names, with hashed passwords; `python -m uso account FILE NAME` adds one",
    )
    group.add_argument(
        "--auth-header", metavar="NAME", help="let in whom a trusted proxy names in this header: X-Forwarded-User"
    )
    group.add_argument(
        "--safety",
        metavar="MODULE:FUNCTION",
        help="a filter of your own, asked about every prompt and every finished picture",
    )
    group.add_argument(
        "--rate", type=int, default=DEFAULTS.rate, help="requests a person may make in a minute; 0: any (%(default)s)"
    )
    group.add_argument(
        "--max-waiting", type=int, default=DEFAULTS.max_waiting, help="requests that may wait in all (%(default)s)"
    )
    group.add_argument(
        "--max-waiting-per-person", type=int, default=DEFAULTS.max_waiting_per_person, help="(%(default)s)"
    )
    group.add_argument(
        "--max-upload-mb", type=int, default=DEFAULTS.max_upload_mb, help="of one image file (%(default)s)"
    )
    group.add_argument(
        "--max-megapixels", type=float, default=DEFAULTS.max_megapixels, help="of one image (%(default)s)"
    )
    group.add_argument(
        "--orphans", choices=ORPHANS, default=DEFAULTS.orphans, help="jobs whose page was closed (%(default)s)"
    )
    group.add_argument(
        "--orphan-grace", type=float, default=DEFAULTS.orphan_grace, metavar="SECONDS", help="(%(default)s)"
    )


def _add_upkeep(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output", type=Path, default=DEFAULTS.output, metavar="FOLDER", help="for finished pictures")
    group.add_argument("--prune-days", type=float, help="remove pictures that are older (never)")
    group.add_argument("--prune-gb", type=float, help="remove the oldest pictures beyond this size (never)")
    group.add_argument(
        "--min-free-gb",
        type=float,
        default=DEFAULTS.min_free_gb,
        help="free disk space below which no request is taken (%(default)s)",
    )
    group.add_argument(
        "--grace",
        type=float,
        default=DEFAULTS.grace,
        metavar="SECONDS",
        help="for the running picture after SIGTERM (%(default)s)",
    )
    group.add_argument("--log-prompts", action="store_true", help="write prompts into the log; without it none is")


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """The flags as settings.

    Raises:
        ConfigError: a value that is not allowed, with what is.
    """
    for flag, least in (
        ("rate", 0),
        ("max_waiting", 1),
        ("max_waiting_per_person", 1),
        ("max_upload_mb", 1),
        ("max_megapixels", 0.1),
        ("orphan_grace", 0),
        ("grace", 0),
        ("min_free_gb", 0),
        ("prune_days", 0),
        ("prune_gb", 0),
    ):
        value = getattr(args, flag)
        if value is not None and not (least <= value < float("inf")):
            raise ConfigError(f"--{flag.replace('_', '-')} is {value:g}; {least:g} or more is allowed.")
    if args.max_megapixels > DEFAULTS.max_megapixels:
        raise ConfigError(
            f"--max-megapixels is {args.max_megapixels:g}; at most {DEFAULTS.max_megapixels:g} is opened safely."
        )
    if args.auth and args.auth_header:
        raise ConfigError("--auth and --auth-header are two ways to let people in; choose one.")
    return ServerSettings(
        output=args.output.resolve(),
        host=args.host,
        port=args.port,
        root_path=_root_path(args.root_path),
        bind_when_ready=args.bind_when_ready,
        trusted_proxies=_proxies(args.trusted_proxies),
        allowed_hosts=_hosts(args.allowed_hosts),
        accounts=args.auth,
        user_header=args.auth_header,
        safety=args.safety,
        mcp=args.mcp,
        max_upload_mb=args.max_upload_mb,
        max_megapixels=args.max_megapixels,
        rate=args.rate,
        max_waiting=args.max_waiting,
        max_waiting_per_person=args.max_waiting_per_person,
        orphans=args.orphans,
        orphan_grace=args.orphan_grace,
        grace=args.grace,
        prune_days=args.prune_days,
        prune_gb=args.prune_gb,
        min_free_gb=args.min_free_gb,
        log_prompts=args.log_prompts,
    )


def worker_devices(args: argparse.Namespace) -> list[str]:
    """The device of each worker; one worker on `--device` where `--devices` does not name several.

    Raises:
        ConfigError: a name that is no device, or both flags.
    """
    if args.devices is None:
        return [args.device]
    if args.device != AUTO:
        raise ConfigError("--device and --devices both say where to run; choose one.")
    names = [name.strip() for name in args.devices.split(",")]
    devices = [f"cuda:{int(name)}" if name.isdecimal() else name for name in names]
    for device in devices:
        if device == AUTO or not DEVICE.fullmatch(device):
            raise ConfigError(
                f"--devices {args.devices}: '{device}' is no device. Give numbers of GPUs with commas between, or cpu, "
                "mps and cuda:N."
            )
    devices = [_numbered(device) for device in devices]
    repeated = {device for device in devices if devices.count(device) > 1 and device != "cpu"}
    if repeated:
        raise ConfigError(f"--devices {args.devices}: {', '.join(sorted(repeated))} is named twice.")
    return devices


def _numbered(device: str) -> str:
    """One name for one GPU: `cuda` is the first."""
    kind, _, number = device.partition(":")
    return f"cuda:{int(number or 0)}" if kind == "cuda" else device


def _root_path(path: str) -> str:
    if path in ("", "/"):
        return ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", path):
        raise ConfigError(f"--root-path is '{path}'; a path such as /uso is allowed.")
    return path.rstrip("/")


def _proxies(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if part != "*":
            try:
                ipaddress.ip_network(part, strict=False)
            except ValueError as error:
                raise ConfigError(
                    f"--trusted-proxies: '{part}' is no address. Give addresses and networks such as 10.0.0.0/8, or *."
                ) from error
    return found


def _hosts(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for part in found:
        if not HOST.fullmatch(part):
            raise ConfigError(
                f"--allowed-hosts: '{part[:80]}' is no host. Give names and addresses such as uso.example.org, "
                "192.0.2.7 or [2001:db8::7], without http:// and without a port."
            )
    return found
