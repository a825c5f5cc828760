"""The verb `showcase`: write the contact sheet of the README, `assets/demo-sheet.webp`."""

import argparse
from pathlib import Path
from typing import Any

from uso.config import ROOT

FILE = ROOT / "assets" / "demo-sheet.webp"


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "showcase",
        help="write the README's contact sheet",
        description="Write a contact sheet of twelve tasks that the demo model has not seen; nothing is selected.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", type=Path, nargs="?", default=FILE, metavar="FILE")
    parser.add_argument("--model", default="demo", metavar="NAME", help="a model's name or YAML file (demo)")
    return parser


def run(args: argparse.Namespace) -> int:
    from tools.demo.judge.showcase import sheet

    sheet(args.model).save(args.file, quality=90, method=6)
    print(args.file)
    return 0
