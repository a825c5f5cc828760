"""The verb `strengths`: how the judge's score depends on the style strength, `docs/style-strength.svg`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.demo.verbs.evaluate import add_judged, check_judged
from uso.config import ROOT, load_model_config
from uso.request.request import GenerationRequest
from uso.terminal import say

COUNT = 50
FILE = ROOT / "docs" / "style-strength.svg"


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "strengths",
        help="measure the style strength",
        description="Draw the same tasks at every style strength, have the judge decide whether style and subject are "
        "right, print the shares and plot them.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", type=Path, nargs="?", default=FILE, metavar="FILE", help="the plot, an SVG")
    add_judged(parser, COUNT, "tasks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure, print, plot; returns the exit status.

    Raises:
        USOError: with the remedy.
    """
    judge_file = check_judged(args)
    config = load_model_config(args.model)

    from tools.demo.judge.judge import Judge
    from tools.demo.judge.material import FIRST, SIZE
    from tools.demo.judge.strengths import Point, measure, plot
    from uso.evaluation.metrics.csd import load_csd
    from uso.evaluation.report import Figure, table
    from uso.weights.loading import load_pipeline

    request = GenerationRequest.create(config, width=SIZE, height=SIZE, content_size=SIZE, seed=FIRST)
    pipeline = load_pipeline(config)
    say("Drawing examples of every style and subject for the judge.")
    judge = Judge(load_csd(judge_file))
    points: list[Point] = []
    for point in measure(pipeline, judge, request, count=args.count, batch=args.batch):
        points.append(point)
        say(f"Strength {point.strength:g}: style {point.style.value:.0%}.")

    def shown(figure: Figure, form: str) -> list[str]:
        return [f"{figure.value:{form}}", f"{figure.low:{form}} to {figure.high:{form}}"]

    rows = [["strength", "style", "95 %", "likeness", "95 %", "subject", "95 %"]]
    for point in points:
        shares = [*shown(point.style, ".0%"), *shown(point.likeness, ".3f"), *shown(point.subject, ".0%")]
        rows.append([f"{point.strength:g}", *shares])
    sys.stdout.write(table(rows, 1) + "\n")
    args.file.write_text(plot(points, f"{config.title}, {args.count} tasks"), encoding="utf-8")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(point) for point in points], indent=2) + "\n", encoding="utf-8")
    return 0
