"""The verb `data`: draw training data."""

import argparse
from pathlib import Path
from typing import Any

from uso.cli.train_data import meter
from uso.errors import ConfigError

SPLITS = "train, seen, new-subjects, new-styles, new-both"


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "data",
        help="draw training data",
        description="Draw samples of the miniature data: subjects x places x styles. The same numbers give the same "
        "pictures. An interrupted call continues where it stopped.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="how many samples")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first one (0)")
    parser.add_argument(
        "--form",
        choices=("files", "triplets", "samples"),
        default="files",
        help="files: PNG and rows.jsonl (the default); triplets, samples: shards of raw bytes, which read fastest; "
        "samples are single captioned pictures",
    )
    parser.add_argument("--moved", type=float, default=0.5, metavar="SHARE", help="of triplets in a new layout (0.5)")
    parser.add_argument("--plain", type=float, default=0.2, metavar="SHARE", help="of samples without a style (0.2)")
    parser.add_argument(
        "--plain-triplets", type=float, default=0.0, metavar="SHARE", help="of triplets that are plain throughout (0)"
    )
    parser.add_argument(
        "--strangers",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of triplets, with subjects that a base model is not taught (0)",
    )
    parser.add_argument(
        "--same-pose",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of moved triplets, with the subject's pose and size kept in the new place (0)",
    )
    parser.add_argument(
        "--sizes", metavar="SIZES", help="of files, WIDTHxHEIGHT of the triplets in turn: 128x128,192x128 (--size)"
    )
    parser.add_argument(
        "--every-way", action="store_true", help="of files, rows for every way of use, as runs read shards"
    )
    parser.add_argument("--part", default="1/1", metavar="K/N", help="of shards, make the K-th of N shares (1/1)")
    add_drawing_flags(parser)
    return parser


def add_drawing_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for what is drawn; the contact sheet has them too."""
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="side of the pictures (128)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other pictures (0)")
    parser.add_argument("--split", default="train", metavar="NAME", help=f"{SPLITS} (train)")
    parser.add_argument(
        "--two-styles",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of triplets with a style, with two style images and a target in both their styles (0); runs read them "
        "with data.max_styles=2",
    )
    parser.add_argument(
        "--grammar",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of triplets, with a style of the grammar: no name, almost never the same twice (0)",
    )


def run(args: argparse.Namespace) -> int:
    import cv2

    from tools.demo.shards.files import ROWS, make_files
    from tools.demo.shards.shards import make_shards
    from tools.demo.world.triplets import Miniature

    cv2.setNumThreads(1)  # on pictures this small its threads only get in each other's way
    if args.count < 1 or args.first < 0:
        raise ConfigError("--count must be at least 1, and --first at least 0.")
    data = Miniature(
        seed=args.seed,
        size=args.size,
        split=args.split,
        moved=args.moved,
        plain=args.plain,
        plain_triplets=args.plain_triplets,
        strangers=args.strangers,
        same_pose=args.same_pose,
        two_styles=args.two_styles,
        grammar=args.grammar,
    )
    part, parts = _part(args.part)
    if args.form == "files":
        if parts > 1:
            raise ConfigError("--part is for shards: choose --form triplets or --form samples.")
        sizes = [parse_size(size, "--sizes") for size in args.sizes.split(",")] if args.sizes else []
        work = make_files(args.folder, data, args.count, args.first, sizes=sizes, every_way=args.every_way)
    else:
        if args.sizes or args.every_way:
            raise ConfigError("--sizes and --every-way are for files: choose --form files.")
        work = make_shards(args.folder, data, args.form, args.count, args.first, part, parts)
    show = meter("drawn")
    for done in work:
        show(done, args.count // parts)
    print(args.folder / ROWS if args.form == "files" else args.folder)
    return 0


def parse_size(text: str, flag: str) -> tuple[int, int]:
    """(width, height) from "192x128".

    Raises:
        ConfigError: it is no size.
    """
    width, _, height = text.strip().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) % 16 == 0 == int(height) % 16):
        raise ConfigError(f"{flag}: '{text}' is no size. Write WIDTHxHEIGHT, multiples of 16, such as 192x128.")
    return int(width), int(height)


def _part(text: str) -> tuple[int, int]:
    """(which from 0, of how many) from "1/2"."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise ConfigError(f"--part is {text!r}; K/N with K from 1 to N is needed, for example 1/2.")
    return int(first) - 1, int(second)
