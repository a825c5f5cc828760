"""How the demo model is made, `python -m tools.demo VERB`: one file of `verbs/` for each verb."""

import argparse
import sys

from tools.demo.verbs import data, evaluate, mean, part, reader, sheet, showcase, stage, strengths
from uso.arguments import Parser
from uso.cli import main as command_line
from uso.terminal import run_program

VERBS = (data, sheet, part, stage, reader, mean, evaluate, showcase, strengths)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.demo",
        description="Make the demo model: draw its data, train its parts, measure the result.",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in VERBS:
        verb = module.add_parser(verbs)
        verb.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    return command_line.main(argv, parser())


if __name__ == "__main__":
    sys.exit(run_program(main))
