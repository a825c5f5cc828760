"""The verb `sheet`: a contact sheet of the drawn data."""

import argparse
from pathlib import Path
from typing import Any

from tools.demo.verbs.data import add_drawing_flags
from uso.errors import ConfigError


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "sheet", help="a contact sheet of the drawn data", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", type=Path, metavar="FILE", help="a .png file to write")
    parser.add_argument("--of", choices=("styles", "triplets"), default="styles", help="what is shown (styles)")
    parser.add_argument("--count", type=int, default=12, metavar="N", help="columns of styles, rows of triplets (12)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first triplet (0)")
    add_drawing_flags(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from tools.demo.world.pictures import style_sheet, triplet_sheet
    from tools.demo.world.triplets import Miniature

    if args.file.suffix.lower() != ".png":
        raise ConfigError(f"{args.file} must end in .png.")
    if not 1 <= args.count <= 100:
        raise ConfigError(f"--count is {args.count}; 1 to 100 fit on a sheet.")
    data = Miniature(args.seed, args.size, args.split, two_styles=args.two_styles, grammar=args.grammar)
    if args.of == "triplets":
        sheet = triplet_sheet(data, args.first, args.count)
    else:
        sheet = style_sheet(args.size, args.seed, args.count)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.file)
    print(args.file)
    return 0
