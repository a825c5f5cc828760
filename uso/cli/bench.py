"""The verb `bench`: measure this machine, one line of JSON per run."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from uso.bench.modes import check_mode
from uso.cli.pictures.generate import schedule_rule
from uso.config import load_model_config, model_names
from uso.weights.flags import add_machine_flags, add_weights_flag


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "bench",
        help="measure this machine",
        description="Time one request stage by stage, on random weights of full size (reduced on a CPU), and print one "
        "line of JSON per run. --memory and --speed may name several, separated by commas, to be run side by side.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", default="flux-dev", metavar="NAME", help=f"{', '.join(model_names())} (flux-dev)")
    parser.add_argument("--mode", default="content+style", help="text, content, style, content+style, content+styles")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the square picture (1024; on a CPU 256)")
    parser.add_argument("--content-size", type=int, metavar="PIXELS", help="side of the reference (half the picture's)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (25; on a CPU 4)")
    parser.add_argument("--baseline", action="store_true", help="measure the plain way too, and the ratio")
    parser.add_argument(
        "--own-blocks",
        action="store_true",
        help="measure diffusers' own blocks too, step by step in turns (eager only)",
    )
    parser.add_argument(
        "--first-pictures",
        type=int,
        default=0,
        metavar="N",
        help="only time the first N pictures of a page, which compiles behind them (plan full, on CUDA)",
    )
    parser.add_argument(
        "--compare",
        metavar="FOLDER",
        help="only compare the pictures of --add-lora, --speed or --schedule with those of the model as released: same "
        "seeds, distance of the latents, and a sheet in FOLDER (with --real-weights)",
    )
    parser.add_argument("--prompt", help="with --compare: what is drawn (a fox)")
    parser.add_argument("--content", action="append", metavar="FILE", help="with --compare: a content image")
    parser.add_argument("--style", action="append", metavar="FILE", help="with --compare: a style image")
    parser.add_argument(
        "--schedule",
        type=schedule_rule,
        metavar="RULE",
        help="with --compare: uso, flux or a number, for what is compared",
    )
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="with --compare: pictures of each way (4)")
    parser.add_argument("--warm-up", type=int, default=1, metavar="N", help="short runs before the one that counts (1)")
    parser.add_argument("--cap-gib", metavar="GIB", help="let CUDA allocate no more; plan: what each plan says")
    parser.add_argument("--real-weights", action="store_true", help="load the model instead of drawing numbers")
    add_weights_flag(parser)
    parser.add_argument(
        "--add-lora", action="append", metavar="FILE[:STRENGTH]", help="with --real-weights: a LoRA beside USO's"
    )
    add_machine_flags(parser, several=True)
    return parser


def run(args: argparse.Namespace) -> int:
    load_model_config(args.model)
    check_mode(args.mode)
    for line in _lines(args):
        print(json.dumps(line), flush=True)
    return 0


def _lines(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if args.compare:
        from uso.evaluation.compare import compare

        return compare(args)
    if args.first_pictures:
        from uso.bench.first import first_pictures

        return first_pictures(args)
    from uso.bench.measure import measure

    return measure(args)
