"""The server's options: each is named once, as a field of `ServerSettings` with its type, default, help and check.

The flags of `app.py` follow from the fields. Everything that can be refused is refused here, before anything heavy is
imported.
"""

import argparse
import ipaddress
import math
import os
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from uso.errors import ConfigError
from uso.weights.flags import AUTO, DEVICE

Check = Callable[[str, Any], Any]
"""Takes a flag and its value; returns the setting, or raises ConfigError."""

Orphans = Literal["cancel", "finish"]

ADDRESS, PEOPLE, UPKEEP = "server", "who may use it, and how much", "upkeep"
"""The groups of flags in the help."""

MAX_MEGAPIXELS = 89.0
"""The largest image that is opened safely, 10^6 pixels."""

HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]", re.ASCII)
"""As a browser writes it into the `Host` header, in lower case and without a port."""


_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
ORIGIN = re.compile(rf"https?://({_LABEL}|(\*\.)?{_LABEL}(\.{_LABEL})+)(:(?P<port>[0-9]{{1,5}}))?")
"""As the policy `frame-ancestors` takes it: scheme, host, port; no IPv6 address; `*.` for all names below a domain."""


# Checks


def _unchecked(flag: str, value: Any) -> Any:
    return value


def at_least(least: float) -> Check:
    """Accepts finite numbers from `least` on, and None."""

    def check(flag: str, value: float | None) -> float | None:
        if value is not None and not least <= value < math.inf:
            raise ConfigError(f"{flag} is {value:g}; {least:g} or more is allowed.")
        return value

    return check


def _megapixels(flag: str, value: float) -> float:
    at_least(0.1)(flag, value)
    if value > MAX_MEGAPIXELS:
        raise ConfigError(f"{flag} is {value:g}; at most {MAX_MEGAPIXELS:g} is opened safely.")
    return value


def _resolved(flag: str, path: Path) -> Path:
    return path.resolve()


def _root_path(flag: str, path: str) -> str:
    if path in ("", "/"):
        return ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", path):
        raise ConfigError(f"{flag} is '{path}'; a path such as /uso is allowed.")
    return path.rstrip("/")


def _proxies(flag: str, text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if part != "*":
            try:
                ipaddress.ip_network(part, strict=False)
            except ValueError as error:
                raise ConfigError(
                    f"{flag}: '{part}' is no address. Give addresses and networks such as 10.0.0.0/8, or *."
                ) from error
    return found


def _hosts(flag: str, text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for part in found:
        if not HOST.fullmatch(part):
            raise ConfigError(
                f"{flag}: '{part[:80]}' is no host. Give names and addresses such as uso.example.org, "
                "192.0.2.7 or [2001:db8::7], without http:// and without a port."
            )
    return found


def _origins(flag: str, text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for part in found:
        match = ORIGIN.fullmatch(part.removesuffix("/"))
        if not match or not 0 < int(match["port"] or 443) < 65536:
            raise ConfigError(
                f"{flag}: '{part[:80]}' is no site. Give sites such as https://hub.example.org, "
                "https://*.example.org or http://localhost:8080, without a path."
            )
    return tuple(part.removesuffix("/") for part in found)


# The options


def flag(
    group: str,
    help: str | None = None,
    *,
    name: str = "",
    env: str = "",
    metavar: str | None = None,
    check: Check = _unchecked,
) -> dict[str, Any]:
    """The flag of a field.

    Args:
        name: where it is not `--` and the field's name.
        env: an environment variable that replaces the field's default.
        check: turns what was given into the setting; of a field that is a tuple it is given the text.
    """
    return {"group": group, "help": help, "name": name, "env": env, "metavar": metavar, "check": check}


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How the server was configured. Units are in the names, or in the help."""

    host: str = field(
        default="127.0.0.1", metadata=flag(ADDRESS, "address to listen on; 0.0.0.0 accepts other machines")
    )
    port: int = field(default=7860, metadata=flag(ADDRESS))
    root_path: str = field(
        default="",
        metadata=flag(ADDRESS, "where a proxy shows it: /uso", env="ROOT_PATH", metavar="PATH", check=_root_path),
    )
    trusted_proxies: tuple[str, ...] = field(
        default=("127.0.0.1", "::1"),
        metadata=flag(
            ADDRESS,
            "comma-separated addresses and networks whose headers on a caller's address and name are trusted; "
            "* is everybody (%(default)s)",
            metavar="LIST",
            check=_proxies,
        ),
    )
    allowed_hosts: tuple[str, ...] = field(
        default=(),
        metadata=flag(
            ADDRESS,
            "comma-separated host names of the page, beside localhost: uso.example.org; "
            "without it any, but only localhost where --host is this machine and no proxy stands before it",
            metavar="LIST",
            check=_hosts,
        ),
    )
    frame_ancestors: tuple[str, ...] = field(
        default=(),
        metadata=flag(
            ADDRESS,
            "comma-separated sites that may show the page in a frame: https://hub.example.org; without it none may",
            metavar="LIST",
            check=_origins,
        ),
    )
    bind_when_ready: bool = field(
        default=False,
        metadata=flag(ADDRESS, "refuse connections until the model is loaded, instead of showing how far it is"),
    )
    mcp: bool = field(default=False, metadata=flag(ADDRESS, "offer /generate, /status and /cancel as MCP tools too"))

    accounts: Path | None = field(
        default=None,
        metadata=flag(
            PEOPLE,
            "require a login: a file of names and hashed passwords; `python -m uso account FILE NAME` adds one",
            name="--auth",
            metavar="FILE",
        ),
    )
    user_header: str | None = field(
        default=None,
        metadata=flag(
            PEOPLE,
            "require the name that a trusted proxy gives in this header: X-Forwarded-User",
            name="--auth-header",
            metavar="NAME",
        ),
    )
    styles: Path | None = field(
        default=None,
        metadata=flag(
            PEOPLE, "saved styles that everybody may use, as `python -m uso style` makes them", metavar="FOLDER"
        ),
    )
    safety: str | None = field(
        default=None,
        metadata=flag(
            PEOPLE,
            "a filter of your own, called with every prompt and every finished picture",
            metavar="MODULE:FUNCTION",
        ),
    )
    translate: str | None = field(
        default=None,
        metadata=flag(
            PEOPLE,
            "a translator of your own, called with every prompt, which returns it in English",
            metavar="MODULE:FUNCTION",
        ),
    )
    rate: int = field(
        default=60,
        metadata=flag(
            PEOPLE, "pictures one person may request in a minute; 0: any number (%(default)s)", check=at_least(0)
        ),
    )
    max_waiting: int = field(
        default=100, metadata=flag(PEOPLE, "queued requests in all (%(default)s)", check=at_least(1))
    )
    max_waiting_per_person: int = field(
        default=8, metadata=flag(PEOPLE, "queued requests of one person (%(default)s)", check=at_least(1))
    )
    max_upload_mb: int = field(default=64, metadata=flag(PEOPLE, "of one image file (%(default)s)", check=at_least(1)))
    max_megapixels: float = field(
        default=MAX_MEGAPIXELS, metadata=flag(PEOPLE, "of one image (%(default)s)", check=_megapixels)
    )
    orphans: Orphans = field(default="cancel", metadata=flag(PEOPLE, "jobs whose page was closed (%(default)s)"))
    orphan_grace: float = field(
        default=15.0,
        metadata=flag(
            PEOPLE, "until then a closed page may come back (%(default)s)", metavar="SECONDS", check=at_least(0)
        ),
    )

    output: Path = field(
        default=Path("outputs"),
        metadata=flag(UPKEEP, "for finished pictures", metavar="FOLDER", check=_resolved),
    )
    prune_days: float | None = field(
        default=None, metadata=flag(UPKEEP, "remove pictures that are older (never)", check=at_least(0))
    )
    prune_gb: float | None = field(
        default=None, metadata=flag(UPKEEP, "remove the oldest pictures beyond this size (never)", check=at_least(0))
    )
    min_free_gb: float = field(
        default=0.5,
        metadata=flag(UPKEEP, "free disk space below which no request is taken (%(default)s)", check=at_least(0)),
    )
    grace: float = field(
        default=45.0,
        metadata=flag(
            UPKEEP, "for the running picture after SIGTERM (%(default)s)", metavar="SECONDS", check=at_least(0)
        ),
    )
    log_prompts: bool = field(default=False, metadata=flag(UPKEEP, "write prompts into the log; without it none is"))


# The flags


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add every flag that is about the server and the people who use it."""
    groups = {title: parser.add_argument_group(title) for title in (ADDRESS, PEOPLE, UPKEEP)}
    hints = get_type_hints(ServerSettings)
    for option in fields(ServerSettings):
        about, hint = option.metadata, hints[option.name]
        given: dict[str, Any] = {"dest": option.name, "help": about["help"]}
        if hint is bool:
            given["action"] = "store_true"
        else:
            default = ",".join(option.default) if isinstance(option.default, tuple) else option.default
            given |= {"default": os.environ.get(about["env"], default), "metavar": about["metavar"]}
        if get_origin(hint) is Literal:
            given["choices"] = get_args(hint)
        elif hint is not bool and get_origin(hint) is not tuple:
            given["type"] = next(kind for kind in (*get_args(hint), hint) if kind is not NoneType)
        groups[about["group"]].add_argument(_flag(option), **given)
    groups[ADDRESS].add_argument(
        "--devices",
        metavar="LIST",
        help="one worker for each, behind the same queue: 0,1 for two GPUs; each loads a model of its own",
    )


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """The flags as settings.

    Raises:
        ConfigError: a value that is not allowed, with what is.
    """
    options = fields(ServerSettings)
    settings = ServerSettings(
        **{option.name: option.metadata["check"](_flag(option), getattr(args, option.name)) for option in options}
    )
    if settings.accounts and settings.user_header:
        raise ConfigError("--auth and --auth-header are two ways to let people in; choose one.")
    if settings.user_header and not settings.allowed_hosts:
        raise ConfigError(
            "--auth-header needs --allowed-hosts. Without it a web page elsewhere can reach this server under "
            "a name of its own, through the browser of somebody nearby, and send any name in that header. Give the "
            "page's host names, such as --allowed-hosts uso.example.org."
        )
    return settings


def _flag(option: Field[Any]) -> str:
    return option.metadata["name"] or "--" + option.name.replace("_", "-")


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
