"""The verb `account`: who may use the server."""

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from uso.errors import ConfigError
from uso.terminal import say


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "account",
        help="who may use the server",
        description="Add an account to the file that `app.py --auth FILE` reads, or replace its password. A terminal "
        "prompts for it twice; otherwise it is one line of stdin. A running server picks the change up by itself.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", type=Path, metavar="FILE", help="htpasswd format with bcrypt; created if missing")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--remove", action="store_true", help="remove the account")
    return parser


def run(args: argparse.Namespace) -> int:
    from uso.web.access.accounts import put_account

    if args.remove:
        if not put_account(args.file, args.name, None):
            raise ConfigError(f"There is no account {args.name} in {args.file}.")
        say(f"{args.name} is no longer in {args.file}.")
        return 0
    replaced = put_account(args.file, args.name, _new_password())
    say(f"{args.name} has a new password in {args.file}." if replaced else f"{args.name} was added to {args.file}.")
    return 0


def _new_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Repeat the password: ") != password:
        raise ConfigError("The two passwords differ. Nothing was changed.")
    return password
