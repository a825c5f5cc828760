"""The command line, `python -m uso VERB`: flags in, exit status out.

Paths of pictures and what was asked for go to stdout, everything else to stderr. The verbs' work is done elsewhere;
torch is imported by what needs it, when it needs it, so that `--help` and every refusal come at once.
"""

import argparse
import getpass
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uso import output
from uso.cli.batch import generate_batch
from uso.cli.generate import DEFAULT_FOLDER, generate
from uso.cli.remote import generate_remotely
from uso.config import load_model_config, memory_names, model_names
from uso.errors import ConfigError, USOError
from uso.terminal import log_to_terminal, on_terminal, printable, say
from uso.training.make.command import add_train_data
from uso.version import __version__
from uso.weights.flags import AUTO, AUTO_FLAGS, DTYPES, add_machine_flags, add_model_flags

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: some jobs failed; nothing was done, and why was said; Ctrl-C, as shells count it (128 + SIGINT)."""


def main(argv: Sequence[str] | None = None, parser: argparse.ArgumentParser | None = None) -> int:
    """Run one verb; returns the exit status.

    Args:
        parser: of another list of verbs than this program's; each sets `run` and has `--debug`.
    """
    args = (parser or _parser()).parse_args(argv)
    log_to_terminal(logging.DEBUG if args.debug else logging.INFO if on_terminal() else logging.WARNING)
    try:
        status: int = args.run(args)
        return status
    except BrokenPipeError:  # `python -m uso info ... | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, USOError) as error:
        if args.debug:
            traceback.print_exc()
        if isinstance(error, USOError):
            say(str(error))
            return REFUSED
        say("Stopped. Pictures that were finished are kept.")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m uso",
        description="Pictures from a sentence, a content image and style images.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"uso {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add in (
        _add_generate,
        _add_info,
        _add_models,
        _add_download,
        _add_memory,
        _add_bench,
        _add_train,
        add_train_data,
        _add_account,
    ):
        verb = add(verbs)
        verb.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    return parser


def _add_generate(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "generate", help="make pictures", description="Make pictures and print their paths.", allow_abbrev=False
    )
    parser.set_defaults(run=_generate)
    request = parser.add_argument_group("request (what is left out has the model's default)")
    request.add_argument("--prompt", metavar="TEXT", help="a sentence; left out or empty, the layout is kept")
    request.add_argument(
        "--content", action="append", metavar="FILE", help="an image of who or what is shown; may be repeated"
    )
    request.add_argument("--style", action="append", metavar="FILE", help="an image of the look; may be repeated")
    request.add_argument("--width", type=int, metavar="PIXELS", help="a multiple of 16")
    request.add_argument("--height", type=int, metavar="PIXELS", help="a multiple of 16")
    switch = argparse.BooleanOptionalAction
    request.add_argument("--keep-size", action=switch, help="take the size from the content image")
    request.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    request.add_argument("--guidance", type=float, metavar="NUMBER", help="how strictly the prompt is followed")
    request.add_argument("--content-size", type=int, metavar="PIXELS", help="long side the content image is read at")
    request.add_argument(
        "--seed", type=int, metavar="N", help="of the first picture; -1, the default, for a random one"
    )
    request.add_argument("--images", type=int, metavar="N", help="number of pictures, with the seeds that follow")
    request.add_argument("--schedule", type=_schedule, metavar="RULE", help="uso, flux, or a number for mu")
    request.add_argument("--tiled-decode", action=switch, help="decode in tiles: less memory, faint differences")
    source = parser.add_argument_group("instead of a single request")
    either = source.add_mutually_exclusive_group()
    either.add_argument(
        "--from",
        dest="repeat",
        metavar="PICTURE",
        help="repeat a picture of this program to the bit; flags given beside it change single values",
    )
    either.add_argument(
        "--batch",
        metavar="FILE",
        help='a JSON list of {"prompt", "image_paths": [content or "", style, ...], "seed", "save_dir", and the flags '
        "above by name}; several GPUs: accelerate launch -m uso generate --batch FILE",
    )
    parser.add_argument(
        "--output", metavar="PATH", help=f"a folder, or for one picture a .png file (default: {DEFAULT_FOLDER})"
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="let a running server make the pictures; USO_SERVER_LOGIN=name:password in the environment logs in",
    )
    add_model_flags(parser)
    parser.set_defaults(**dict.fromkeys(AUTO_FLAGS))  # beside --from, `auto` is another answer than none
    return parser


def _schedule(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text  # a name, or for the request to refuse


def _generate(args: argparse.Namespace) -> int:
    if args.server is not None:
        return generate_remotely(args)
    return generate_batch(args) if args.batch else generate(args)


def _add_info(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "info", help="what a picture records", description="Print what a picture of this program records."
    )
    parser.set_defaults(run=_info)
    parser.add_argument("picture", metavar="PICTURE")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def _info(args: argparse.Namespace) -> int:
    record = output.read(args.picture).record
    print(json.dumps(record, indent=2) if args.json else readable(record))
    return 0


def readable(record: dict[str, Any], indent: str = "") -> str:
    """A record as indented lines of `name: value`, safe to print."""
    lines = []
    for key, value in record.items():
        if isinstance(value, list):
            value = {str(number): item for number, item in enumerate(value, start=1)}
        if isinstance(value, dict) and value:
            lines += [f"{indent}{_line(key)}:", readable(value, indent + "  ")]
        else:
            lines.append(f"{indent}{_line(key)}: {_line('none' if value == {} else value)}")
    return "\n".join(lines)


def _line(value: Any) -> str:
    return printable(str(value)).replace("\n", "\\n")


def _add_models(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "models", help="which models there are", description="List the models, and whether they are on this disk."
    )
    parser.set_defaults(run=_models)
    return parser


def _models(args: argparse.Namespace) -> int:
    from uso.weights.hub.files import missing

    for name in model_names():
        config = load_model_config(name)
        absent = missing(config)
        size = sum(config.components[component].size_gb or 0 for component in absent)
        state = f"not on this disk: {', '.join(absent)} (about {size:.1f} GB)" if absent else "on this disk"
        experimental = " (experimental)" if config.experimental else ""
        print(f"{name}: {config.title}{experimental}. {config.description}\n  {state}")
        if config.licence_notice:
            print(f"  {config.licence_notice}")
    return 0


def _add_download(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "download",
        help="fetch a model's weights",
        description="Say what a model's files take, then fetch what is not here yet. Goes on where it was interrupted.",
    )
    parser.set_defaults(run=_download)
    parser.add_argument("--model", required=True, metavar="NAME", help=", ".join(model_names()))
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to fetch")
    return parser


def _download(args: argparse.Namespace) -> int:
    from uso.cli.download import run_download

    config = load_model_config(args.model)
    if all(source.repo is None for source in config.components.values()):
        print(f"{config.title} needs nothing from the network: its files are named as local paths.")
        return 0
    return run_download(config, print, dry_run=args.dry_run)


def _add_memory(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "memory",
        help="what memory a request will need",
        description="Forecast a request's memory, stage by stage, from shapes alone: nothing is loaded or fetched.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_memory)
    parser.add_argument("--model", default="flux-dev", metavar="NAME", help=f"{', '.join(model_names())} (flux-dev)")
    parser.add_argument(
        "--memory", default=AUTO, metavar="PLAN", help=f"auto (asks the GPU), {', '.join(memory_names())}"
    )
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES[1:], help="of all but the autoencoder (bfloat16)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="of the picture; left out, the model's default")
    parser.add_argument("--height", type=int, metavar="PIXELS", help="likewise")
    parser.add_argument("--content", type=_count, default=0, metavar="N", help="how many content images (0)")
    parser.add_argument("--content-size", type=int, metavar="PIXELS", help="side they are read at; they are square")
    parser.add_argument("--styles", type=_count, default=0, metavar="N", help="how many style images (0)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    parser.add_argument("--tiled-decode", action="store_true", help="decode in tiles")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of images")
    return int(text)


def _memory(args: argparse.Namespace) -> int:
    from uso.cli.memory import run_memory

    return run_memory(args, print)


def _add_bench(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "bench",
        help="measure this machine",
        description="Time one request stage by stage, on random weights of full size (reduced on a CPU), and print one "
        "line of JSON per run. --memory and --speed may name several, separated by commas, to be run side by side.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_bench)
    parser.add_argument("--model", default="flux-dev", metavar="NAME", help=f"{', '.join(model_names())} (flux-dev)")
    parser.add_argument("--mode", default="content+style", help="text, content, style, content+style, content+styles")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the square picture (1024; on a CPU 256)")
    parser.add_argument("--content-size", type=int, metavar="PIXELS", help="side of the reference (half the picture's)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (25; on a CPU 4)")
    parser.add_argument("--baseline", action="store_true", help="measure the plain way too, and the ratio")
    parser.add_argument("--warm-up", type=int, default=1, metavar="N", help="short runs before the one that counts (1)")
    parser.add_argument("--cap-gib", metavar="GIB", help="let CUDA allocate no more; plan: what each plan says")
    parser.add_argument("--real-weights", action="store_true", help="load the model instead of drawing numbers")
    add_machine_flags(parser, several=True)
    return parser


def _bench(args: argparse.Namespace) -> int:
    from uso.bench.measure import measure

    for line in measure(args):
        print(json.dumps(line), flush=True)
    return 0


def _add_train(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "train",
        help="train projector and LoRA",
        description="Run a training stage of configs/training/ or a YAML file of your own; several GPUs: accelerate "
        "launch -m uso train CONFIG. The result is written in the released layout, with every checkpoint.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_train)
    parser.add_argument("config", metavar="CONFIG", help="a name (see configs/training/) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as optimizer.lr=1e-4 data.rows=FILE")
    parser.add_argument("--dry-run", action="store_true", help="forecast memory and time, load nothing")
    parser.add_argument("--bench", type=int, metavar="N", help="time N steps on random weights (on a CPU reduced)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint, or begin")
    parser.add_argument("--offline", action="store_true", help="use the weights on the disk, fetch none")
    return parser


def _train(args: argparse.Namespace) -> int:
    from uso.training.command import run_train
    from uso.training.config import load_training_config

    return run_train(load_training_config(args.config, args.overrides), args, print)


def _add_account(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "account",
        help="who may use the server",
        description="Add an account to the file that `app.py --auth FILE` reads, or replace its password. It is asked "
        "for twice on a terminal; otherwise one line is read. A running server takes the change up by itself.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_account)
    parser.add_argument("file", type=Path, metavar="FILE", help="htpasswd format with bcrypt; made if it is not there")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--remove", action="store_true", help="take the account away")
    return parser


def _account(args: argparse.Namespace) -> int:
    from uso.web.access.accounts import put_account

    if args.remove:
        if not put_account(args.file, args.name, None):
            raise ConfigError(f"There is no account {args.name} in {args.file}.")
        say(f"{args.name} is no longer in {args.file}.")
        return 0
    replaced = put_account(args.file, args.name, _new_password())
    say(f"{args.name} has a new password in {args.file}." if replaced else f"{args.name} was added to {args.file}.")
    return 0


def _new_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same once more: ") != password:
        raise ConfigError("The two passwords differ. Nothing was changed.")
    return password
