"""The verb `info`: print what a picture records."""

import argparse
import json
from typing import Any

from uso import output
from uso.terminal import printable


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "info", help="what a picture records", description="Print what a picture of this program records."
    )
    parser.set_defaults(run=run)
    parser.add_argument("picture", metavar="PICTURE")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    record = output.read(args.picture).record
    print(json.dumps(record, indent=2) if args.json else readable(record))
    return 0


def readable(record: dict[str, Any], indent: str = "") -> str:
    """A record as indented lines of `name: value`, safe to print."""
    lines = []
    for key, value in record.items():
        if isinstance(value, list):
            value = {str(number): item for number, item in enumerate(value, start=1)}
        if isinstance(value, dict) and value:
            lines += [f"{indent}{_line(key)}:", readable(value, indent + "  ")]
        else:
            lines.append(f"{indent}{_line(key)}: {_line('none' if value == {} else value)}")
    return "\n".join(lines)


def _line(value: Any) -> str:
    return printable(str(value)).replace("\n", "\\n")
