"""The command line, `python -m uso VERB`: flags in, exit status out.

Each verb's module has `add_parser`, which sets what the verb runs. Paths of pictures and requested values go to stdout,
everything else to stderr. Only what needs torch imports it, so `--help` and every refusal come at once.
"""

import argparse
import logging
import traceback
from collections.abc import Sequence

from uso.arguments import Parser
from uso.cli import (
    INTERRUPTED,
    REFUSED,
    account,
    bench,
    download,
    evaluate,
    info,
    inspect,
    memory,
    models,
    style,
    train,
    train_data,
)
from uso.cli.pictures import generate
from uso.errors import USOError
from uso.system.garbage import collect_seldom
from uso.system.packages import import_problem
from uso.system.threads import share_processors
from uso.terminal import log_to_terminal, on_terminal, say
from uso.version import __version__


def main(argv: Sequence[str] | None = None, parser: argparse.ArgumentParser | None = None) -> int:
    """Run one verb; returns the exit status.

    Args:
        parser: of another list of verbs than this program's; each sets `run` and has `--debug`.
    """
    args = (parser or _parser()).parse_args(argv)
    collect_seldom()
    share_processors()
    log_to_terminal(logging.DEBUG if args.debug else logging.INFO if on_terminal() else logging.WARNING)
    try:
        status: int = args.run(args)
        return status
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            say("Stopped. Pictures that were finished are kept.")
            return INTERRUPTED
        sentence = str(error) if isinstance(error, USOError) else import_problem(error)
        if sentence is None:
            raise
        say(sentence)
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m uso", description="Pictures from a sentence, a content image and style images.")
    parser.add_argument("--version", action="version", version=f"uso {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add_parser in (
        generate.add_parser,
        info.add_parser,
        style.add_parser,
        models.add_parser,
        inspect.add_parser,
        download.add_parser,
        memory.add_parser,
        bench.add_parser,
        evaluate.add_parser,
        train.add_parser,
        train_data.add_parser,
        account.add_parser,
    ):
        verb = add_parser(verbs)
        verb.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    return parser
