"""`python -m uso train.data`: make, check and look at training data. Flags and words; the work is done beside.

Nothing heavy is imported here before a verb runs.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uso.errors import ConfigError
from uso.terminal import on_terminal, say

Say = Callable[[str], None]

FAILED = 1
"""Exit status of a check that found bad rows."""

_SPLITS = "train, seen, new-subjects, new-styles, new-both"


def add_train_data(verbs: Any) -> argparse.ArgumentParser:
    """The verb and its own verbs."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "train.data",
        help="make and check training data",
        description="Training data: triplets of a content image, a style image and a target picture.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_miniature(kinds)
    _add_make(kinds)
    check = kinds.add_parser("check", help="name every row that cannot be used", allow_abbrev=False)
    check.add_argument("file", type=Path, metavar="FILE", help="JSON lines")
    check.add_argument("--min-side", type=int, default=64, metavar="PIXELS", help="least short side (64)")
    check.set_defaults(run=_check)
    _add_sheet(kinds)
    return parser


def _add_miniature(kinds: Any) -> None:
    made = kinds.add_parser(
        "make-miniature",
        help="draw triplets",
        description="Draw samples of the miniature data: subjects x places x styles. The same numbers give the same "
        "pictures. Goes on where it was stopped.",
        allow_abbrev=False,
    )
    made.add_argument("folder", type=Path, metavar="FOLDER")
    made.add_argument("--count", type=int, required=True, metavar="N", help="how many samples")
    made.add_argument("--first", type=int, default=0, metavar="N", help="number of the first one (0)")
    made.add_argument(
        "--form",
        choices=("files", "triplets", "samples"),
        default="files",
        help="files: PNG and rows.jsonl (the default); triplets, samples: shards of raw bytes, which read fastest; "
        "samples are single captioned pictures",
    )
    made.add_argument("--moved", type=float, default=0.5, metavar="SHARE", help="of triplets in a new layout (0.5)")
    made.add_argument("--plain", type=float, default=0.2, metavar="SHARE", help="of samples without a style (0.2)")
    made.add_argument(
        "--plain-triplets", type=float, default=0.0, metavar="SHARE", help="of triplets that are plain throughout (0)"
    )
    made.add_argument(
        "--strangers",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of triplets, with subjects that a base model is not taught (0)",
    )
    made.add_argument(
        "--same-pose",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of moved triplets, with the subject's pose and size kept in the new place (0)",
    )
    _add_two_styles(made)
    made.add_argument("--part", default="1/1", metavar="K/N", help="of shards, make the K-th of N shares (1/1)")
    _add_drawing(made, "train")
    made.set_defaults(run=_make_miniature)


def _add_two_styles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--two-styles",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of triplets with a style, with two style images and a target in both their styles (0); runs read them "
        "with data.max_styles=2",
    )


def _add_drawing(parser: argparse.ArgumentParser, split: str) -> None:
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="side of the pictures (128)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other pictures (0)")
    parser.add_argument("--split", default=split, metavar="NAME", help=f"{_SPLITS} ({split})")


def _add_make(kinds: Any) -> None:
    made = kinds.add_parser(
        "make",
        help="make triplets from stylised pictures",
        description="Let a stylization and a de-stylization expert make references for every picture, and drop pairs "
        "that CSD or DINO find unlike. Goes on where it was stopped.",
        allow_abbrev=False,
    )
    made.add_argument("pictures", type=Path, metavar="PICTURES", help="a folder; a.txt beside a.png is its caption")
    made.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    made.add_argument("--experts", default="flux-kontext", metavar="NAME", help="of configs/experts/, or a YAML file")
    made.add_argument(
        "--csd", type=Path, required=True, metavar="FILE", help="pytorch_model.bin of tomg-group-umd/CSD-ViT-L"
    )
    made.add_argument("--device", default="auto", metavar="NAME", help="auto, cuda, cuda:1, mps, cpu")
    made.set_defaults(run=_make)


def _add_sheet(kinds: Any) -> None:
    sheet = kinds.add_parser("sheet", help="a contact sheet of the miniature data", allow_abbrev=False)
    sheet.add_argument("file", type=Path, metavar="FILE", help="a .png file to write")
    sheet.add_argument("--of", choices=("styles", "triplets"), default="styles", help="what is shown (styles)")
    sheet.add_argument("--count", type=int, default=12, metavar="N", help="columns of styles, rows of triplets (12)")
    sheet.add_argument("--first", type=int, default=0, metavar="N", help="number of the first triplet (0)")
    _add_two_styles(sheet)
    _add_drawing(sheet, "train")
    sheet.set_defaults(run=_sheet)


def _meter(what: str) -> Callable[[int, int], None]:
    """Progress on a terminal; nothing elsewhere."""
    shown = [""]

    def show(done: int, total: int) -> None:
        text = f"{what}: {100 * done // max(1, total)} %"
        if on_terminal() and text != shown[0]:
            shown[0] = text
            say(text)

    return show


def _make_miniature(args: argparse.Namespace) -> int:
    from tools.demo.shards.files import ROWS, make_files
    from tools.demo.shards.shards import make_shards
    from tools.demo.world.triplets import Miniature

    _one_thread()
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
    )
    part, parts = _part(args.part)
    if args.form == "files":
        if parts > 1:
            raise ConfigError("--part is for shards: choose --form triplets or --form samples.")
        work = make_files(args.folder, data, args.count, args.first)
    else:
        work = make_shards(args.folder, data, args.form, args.count, args.first, part, parts)
    show = _meter("drawn")
    for done in work:
        show(done, args.count // parts)
    print(args.folder / ROWS if args.form == "files" else args.folder)
    return 0


def _one_thread() -> None:
    """OpenCV's threads only get in each other's way on pictures this small."""
    import cv2

    cv2.setNumThreads(1)


def _part(text: str) -> tuple[int, int]:
    """(which from 0, of how many) from "1/2"."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise ConfigError(f"--part is {text!r}; K/N with K from 1 to N is needed, for example 1/2.")
    return int(first) - 1, int(second)


def _make(args: argparse.Namespace) -> int:
    from uso.evaluation.metrics import CSD_HOME
    from uso.training.make.config import load_experts_config

    config = load_experts_config(args.experts)
    if not args.csd.is_file():
        raise ConfigError(f"{args.csd} is not there. CSD's weights: {CSD_HOME}.")
    from uso.training.make.experts import REPORT_TEXT, ROWS, make_triplets
    from uso.training.make.models import experts_from
    from uso.weights.choices import choose_device

    experts = experts_from(config, args.csd, str(choose_device(args.device)))
    meters: dict[str, Callable[[int, int], None]] = {}

    def progress(what: str, done: int, total: int) -> None:
        meters.setdefault(what, _meter(what))(done, total)

    report = make_triplets(args.pictures, args.output, config, experts, progress)
    say(f"{report['kept']} triplets kept, {report['dropped']} pictures dropped: {args.output / REPORT_TEXT}")
    print(args.output / ROWS)
    return 0


def _check(args: argparse.Namespace) -> int:
    from uso.training.data.check import check_rows

    report = check_rows(args.file, args.min_side, _meter("pictures looked at"), os.cpu_count() or 1)
    print(report.text())
    return FAILED if report.problems else 0


def _sheet(args: argparse.Namespace) -> int:
    from tools.demo.world.sheet import style_sheet, triplet_sheet
    from tools.demo.world.triplets import Miniature

    if args.file.suffix.lower() != ".png":
        raise ConfigError(f"{args.file} must end in .png.")
    if not 1 <= args.count <= 100:
        raise ConfigError(f"--count is {args.count}; 1 to 100 fit on a sheet.")
    data = Miniature(args.seed, args.size, args.split, two_styles=args.two_styles)
    if args.of == "triplets":
        sheet = triplet_sheet(data, args.first, args.count)
    else:
        sheet = style_sheet(args.size, args.seed, args.count)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.file)
    print(args.file)
    return 0
