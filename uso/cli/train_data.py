"""The verb `train.data`: make and check training data."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uso.cli import FAILED
from uso.errors import ConfigError
from uso.terminal import on_terminal, say


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "train.data",
        help="make and check training data",
        description="Training data: triplets of a content image, a style image and a target picture.",
    )
    kinds = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_make(kinds)
    caption = kinds.add_parser(
        "caption",
        help="write captions where there are none",
        description="Ask a vision-language model for a caption of every picture that has none: a.txt beside a.png.",
    )
    caption.add_argument("pictures", type=Path, metavar="PICTURES", help="a folder")
    caption.add_argument("--captioner", default="llava", metavar="NAME", help="of configs/captioners/, or a YAML file")
    caption.add_argument("--device", default="auto", metavar="NAME", help="auto, cuda, cuda:1, mps, cpu")
    caption.set_defaults(run=_caption)
    check = kinds.add_parser("check", help="name every row that cannot be used")
    check.add_argument("file", type=Path, metavar="DATA", help="JSON lines, UNO's JSON, or a folder of pictures")
    check.add_argument("--min-side", type=int, default=0, metavar="PIXELS", help="also name pictures that are smaller")
    check.set_defaults(run=_check)
    return parser


def _add_make(kinds: Any) -> None:
    made = kinds.add_parser(
        "make",
        help="make triplets from stylised pictures",
        description="Let a stylization and a de-stylization expert make references for every picture, and drop pairs "
        "that CSD or DINO find unlike. An interrupted call continues.",
    )
    made.add_argument("pictures", type=Path, metavar="PICTURES", help="a folder; a.txt beside a.png is its caption")
    made.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    made.add_argument("--experts", default="flux-kontext", metavar="NAME", help="of configs/experts/, or a YAML file")
    made.add_argument(
        "--csd", type=Path, required=True, metavar="FILE", help="pytorch_model.bin of tomg-group-umd/CSD-ViT-L"
    )
    made.add_argument("--device", default="auto", metavar="NAME", help="auto, cuda, cuda:1, mps, cpu")
    made.add_argument(
        "--part",
        metavar="K/N",
        help="make the references of the K-th of N shares alone; when all are made, a call without it scores them",
    )
    made.set_defaults(run=_make)


def meter(what: str) -> Callable[[int, int], None]:
    """Progress on a terminal; nothing elsewhere."""
    shown = [""]

    def show(done: int, total: int) -> None:
        text = f"{what}: {100 * done // max(1, total)} %"
        if on_terminal() and text != shown[0]:
            shown[0] = text
            say(text)

    return show


def _part(text: str | None) -> tuple[int, int] | None:
    """(K, N) of `K/N`."""
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"--part takes K/N, such as 1/4 for the first of four shares, not '{text}'.")
    return int(part), int(parts)


def _make(args: argparse.Namespace) -> int:
    from uso.evaluation.metrics import CSD_HOME
    from uso.training.make.config import load_experts_config

    config = load_experts_config(args.experts)
    part = _part(args.part)
    if not args.pictures.is_dir():
        raise ConfigError(f"There is no folder {args.pictures}. Name the one that holds the pictures.")
    if not args.csd.is_file():
        raise ConfigError(f"{args.csd} is not there. CSD's weights: {CSD_HOME}.")
    from uso.training.make.experts import REPORT_TEXT, ROWS, make_references, make_triplets
    from uso.training.make.models import experts_from
    from uso.weights.choices import choose_device

    experts = experts_from(config, args.csd, str(choose_device(args.device)))
    meters: dict[str, Callable[[int, int], None]] = {}

    def progress(what: str, done: int, total: int) -> None:
        meters.setdefault(what, meter(what))(done, total)

    if part is not None:
        jobs, _ = make_references(args.pictures, args.output, config, experts, progress, part)
        say(f"Part {args.part}: the references of {len(jobs)} pictures are made.")
        return 0
    report = make_triplets(args.pictures, args.output, config, experts, progress)
    say(f"{report['kept']} triplets kept, {report['dropped']} pictures dropped: {args.output / REPORT_TEXT}")
    print(args.output / ROWS)
    return 0


def _caption(args: argparse.Namespace) -> int:
    from uso.training.make.captions import load_captioner, load_captioner_config, write_captions

    config = load_captioner_config(args.captioner)
    if not args.pictures.is_dir():
        raise ConfigError(f"There is no folder {args.pictures}. Name the one that holds the pictures.")
    from uso.weights.choices import choose_device

    device = str(choose_device(args.device))
    count = write_captions(args.pictures, config, lambda: load_captioner(config, device), meter("captions"))
    say(f"{count} captions are written.")
    return 0


def _check(args: argparse.Namespace) -> int:
    from uso.training.data.check import check_rows

    report = check_rows(args.file, args.min_side, meter("pictures looked at"), os.cpu_count() or 1)
    print(report.text())
    return FAILED if report.problems else 0
