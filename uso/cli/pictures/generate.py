"""The verb `generate`: one request from flags or from a picture's record (`--from`), a batch file, or a server."""

import argparse
from pathlib import Path
from typing import Any

from uso import output
from uso.cli.pictures.batch import generate_batch
from uso.cli.pictures.remote import generate_remotely
from uso.cli.pictures.request import (
    DEFAULT_FOLDER,
    chosen_config,
    load,
    make,
    output_place,
    recorded_flags,
    repeated_values,
    request_values,
    tell_differences,
)
from uso.cli.style import add_styles_flag
from uso.cluster.address import add_workers_flags
from uso.config import ModelConfig
from uso.errors import ConfigError
from uso.request.readable import check_script
from uso.request.request import GenerationRequest
from uso.terminal import on_terminal, say
from uso.weights.flags import AUTO_FLAGS, add_model_flags, with_auto


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "generate", help="make pictures", description="Make pictures and print their paths.", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    request = parser.add_argument_group("request (the model's defaults apply to what is left out)")
    request.add_argument("--prompt", metavar="TEXT", help="a sentence; left out or empty, the layout is kept")
    request.add_argument(
        "--content", action="append", metavar="FILE", help="an image of who or what is shown; may be repeated"
    )
    request.add_argument(
        "--style",
        action="append",
        metavar="FILE",
        help="an image of the look or a saved style's name; may be repeated",
    )
    request.add_argument(
        "--style-strength",
        dest="style_strengths",
        action="append",
        type=float,
        metavar="NUMBER",
        help="how much a style counts, 0 to 2 (default: 1); once for each --style, in the same order",
    )
    add_styles_flag(request)
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
    request.add_argument("--schedule", type=schedule_rule, metavar="RULE", help="uso, flux, or a number for mu")
    request.add_argument("--tiled-decode", action=switch, help="decode in tiles: less memory, faint differences")
    request.add_argument(
        "--translate",
        metavar="MODULE:FUNCTION",
        help="a function of yours that is given --prompt and returns it in English",
    )
    source = parser.add_argument_group("instead of a single request")
    either = source.add_mutually_exclusive_group()
    either.add_argument(
        "--from",
        dest="repeat",
        metavar="PICTURE",
        help="repeat a picture of this program to the bit; other flags change single values",
    )
    either.add_argument(
        "--batch",
        metavar="FILE",
        help='a JSON list of {"prompt", "image_paths": [content or "", style, ...], "seed", "save_dir", and the flags '
        "above by name}; several GPUs: --workers, or accelerate launch -m uso generate --batch FILE",
    )
    parser.add_argument(
        "--output", metavar="PATH", help=f"a folder, or for one picture a .png file (default: {DEFAULT_FOLDER})"
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="let a running server make the pictures; USO_SERVER_LOGIN=name:password in the environment logs in",
    )
    add_workers_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(**dict.fromkeys(AUTO_FLAGS))  # with --from, `auto` differs from no flag
    return parser


def schedule_rule(text: str) -> str | float:
    """A schedule as a flag gives it: a name, or a number for mu."""
    try:
        return float(text)
    except ValueError:
        return text  # a name, or refused by the request


def run(args: argparse.Namespace) -> int:
    """Generate on a server, from a batch file, or one request here, as the flags say."""
    if args.server is not None:
        return generate_remotely(args)
    if args.batch:
        return generate_batch(args)
    if args.workers is not None:
        raise ConfigError(
            "--workers goes with --batch FILE. A single request is made here, or with --server by a page."
        )
    return generate(args)


def generate(args: argparse.Namespace) -> int:
    """Make the pictures of one request; returns the exit status."""
    picture = output.read(args.repeat) if args.repeat else None
    recorded = recorded_flags(args, picture) if picture else {}
    args = with_auto(argparse.Namespace(**(vars(args) | recorded)))
    given = request_values(args)

    def request_for(model: ModelConfig) -> GenerationRequest:
        values = given
        if picture:
            values = repeated_values(picture, given, model, Path(args.output or DEFAULT_FOLDER))
        return GenerationRequest.create(model, **values)

    config, why = chosen_config(args, request_for)
    request = request_for(config)
    check_script(given.get("prompt", ""), config.title)
    folder, stem = output_place(args.output, several=request.num_images > 1)
    if on_terminal() or request.keep_input_size:
        say(f"{config.title}: {request.width} x {request.height}, seed {request.seed}.")
    _check_machine(args, recorded)
    pipe = load(config, args, why)
    if picture:
        tell_differences(picture, pipe.provenance)
    typed = picture.record.get("typed_prompt") if picture else None
    if "prompt" in given:
        typed = args.prompt if given["prompt"] != args.prompt else None
    extra = {"typed_prompt": typed} if typed else None
    make(pipe, request, lambda result: output.save(result, folder, stem, extra))
    return 0


def _check_machine(args: argparse.Namespace, recorded: dict[str, Any]) -> None:
    """Refuse, before the model loads, to repeat a picture in a way that this machine does not support.

    Args:
        recorded: the flags that were taken from the picture's record.

    Raises:
        ConfigError: names the flag that avoids it.
    """
    if "device" not in recorded and recorded.get("compile") != "on":
        return
    from uso.weights.choices import choose_device

    try:
        device = choose_device(args.device)
    except ConfigError as error:
        if "device" not in recorded:
            raise
        raise ConfigError(f"{error} The picture was made there; give --device auto or --device cpu.") from error
    if recorded.get("compile") != "on":
        return
    from uso.transformer.compile import cache_folder, choose_compile

    try:
        choose_compile("on", device, cache_folder())
    except ConfigError as error:
        raise ConfigError(f"{error} The picture was made with compiled blocks; give --compile off.") from error
