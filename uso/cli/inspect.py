"""The verb `inspect`: what any one weights file is, told by its tensors."""

import argparse
import json
from pathlib import Path
from typing import Any

from uso.config import from_home
from uso.errors import CheckpointError
from uso.weights.finder import tokenizer_kind
from uso.weights.formats.headers import SUFFIXES, check_finished, parts_of, read_headers
from uso.weights.formats.kinds import identify
from uso.weights.formats.relatives import TITLES, other


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "inspect",
        help="what a weights file is",
        description="Say which components a weights file holds, how its numbers are stored, and whether this program "
        "can use it. Reads the head of the file alone.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", type=Path, metavar="FILE", help="a file, or a folder with the parts of one")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    path = from_home(args.file)
    from uso.weights.hub.files import size_text

    found = inspected(path)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for entry in found:
        print(f"{entry['title']}" + (f" ({entry['kind']}, {size_text(entry['bytes'])})" if entry["kind"] else ""))
        print(f"  {entry['use']}")
    return 0


def inspected(path: Path) -> list[dict[str, Any]]:
    """What a file or folder holds, a dict for each part: component, title, kind, bytes, use.

    Raises:
        CheckpointError: it is no weights file, or is incomplete; says what it is.
    """
    if path.is_dir() and (component := tokenizer_kind(path)) is not None:
        use = f"Use it with --{component.replace('_', '-')} {path}."
        return [{"component": component, "title": TITLES[component], "kind": "", "bytes": 0, "use": use}]
    files = (
        sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES) if path.is_dir() else parts_of(path)
    )
    if not files:
        raise CheckpointError(f"{path} holds no weights ({', '.join(SUFFIXES)}).")
    header = read_headers(files)
    contents = identify(header)
    if not contents:
        title, remedy = other(header)
        return [{"component": None, "title": title, "kind": "", "bytes": header.bytes, "use": remedy}]
    check_finished(header)
    return [
        {
            "component": content.component,
            "title": content.title,
            "kind": content.storage,
            "bytes": sum(entry.end - entry.begin for entry in content.tensors(header).values()),
            "use": content.refused or f"Use it with --{content.component.replace('_', '-')} {path}.",
        }
        for content in contents
    ]
