"""`generate --server URL`: a running server makes the pictures, which are saved here like local ones.

The server verifies the request. Flags about this machine cannot be sent, so they are refused here. Loads no model and
imports no torch; `remote_server.py` talks to the server.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from uso import output
from uso.cli.pictures.remote_server import OnDetails, RemoteServer
from uso.cli.pictures.request import (
    DEFAULT_FOLDER,
    output_place,
    recorded_values,
    request_values,
    say_once,
    tell_differences,
)
from uso.config import COMPONENT_NAMES, load_model_config
from uso.errors import ConfigError, OutputError, RequestError
from uso.request.checks import check_style_strengths
from uso.request.request import GenerationRequest, Progress, ReferenceImage
from uso.terminal import print_path, say, step_bar
from uso.weights.flags import AUTO

NOT_SENT: dict[str, Any] = {
    "batch": None,
    "schedule": None,
    "tiled_decode": None,
    "model": AUTO,
    "lora_scale": None,
    "weights": None,
    "add_lora": None,
    "offline": False,
    "memory": AUTO,
    "device": AUTO,
    "dtype": AUTO,
    "speed": None,
    "compile": AUTO,
    **dict.fromkeys(COMPONENT_NAMES),
}
"""Flags that cannot be sent to a server, with the value that counts as not given, like None."""

SENT = ("prompt", "width", "height", "keep_input_size", "num_inference_steps", "guidance_scale", "content_size")
"""Values that are sent under the same name."""

STRENGTHS = ("style_strength", "extra_style_strength")

MAX_CONTENTS, MAX_STYLES = 1, 2

MAX_AT_ONCE = 8
"""Pictures that a server makes in one call."""


def generate_remotely(args: argparse.Namespace) -> int:
    """Have a server make the pictures of one request; returns the exit status.

    Raises:
        USOError: the request is refused, here or there, or the server cannot be used.
    """
    refuse_local_flags(args)
    picture = output.read(args.repeat) if args.repeat else None
    values = request_values(args)
    if picture:
        values = recorded_values(picture, values, Path(args.output or DEFAULT_FOLDER))
    request = known_request(values)
    folder, stem = output_place(args.output, several=request.num_images > 1)
    said: set[str] = set()
    with RemoteServer(args.server) as server:
        images = server.upload_all(request.content_images, request.style_images)
        sent = {name: values[name] for name in SENT if values.get(name) is not None} | images
        sent |= {
            name: strength for name, strength in zip(STRENGTHS, request.style_strengths, strict=False) if strength != 1
        }
        with step_bar() as bar:
            for index, data in enumerate(_made(server, sent, request, bar)):
                one = request.single(index)
                path = output.write_somewhere(one, folder, stem, _writing(data), "It is kept on the server.")
                print_path(path)
                say_once(_notes(path), said)
                if picture and index == 0:
                    _print_differences(picture, path)
    return 0


def _made(
    server: RemoteServer, sent: dict[str, Any], request: GenerationRequest, bar: Callable[[Progress], None]
) -> Iterator[bytes]:
    """The pictures, each as soon as it is finished; in as few calls as may be."""
    for first in range(0, request.num_images, MAX_AT_ONCE):
        number = min(MAX_AT_ONCE, request.num_images - first)
        values = sent | {"seed": request.seed + first} | ({"num_images": number} if number > 1 else {})
        yield from server.pictures(values, _show_in(bar, first, request.num_images))


def refuse_local_flags(args: argparse.Namespace) -> None:
    """Refuse flags that only a model on this machine could follow.

    Raises:
        ConfigError: names the flags.
    """
    given = [flag for flag, nothing in NOT_SENT.items() if getattr(args, flag) not in (None, nothing)]
    if given:
        names = ", ".join(f"--{flag.replace('_', '-')}" for flag in given)
        raise ConfigError(
            f"{names} cannot be sent to a server, which has its own model and settings. Leave it out, or leave out "
            "--server."
        )


def known_request(values: dict[str, Any]) -> GenerationRequest:
    """The part of the request that is known here: references, prompt, seed (drawn now if random), number of pictures.

    The server verifies the other values.

    Raises:
        RequestError: too many images, or a strength, prompt, seed or number that no server accepts.
    """
    contents: list[ReferenceImage] = values.get("content_images", [])
    styles: list[ReferenceImage] = values.get("style_images", [])
    if len(contents) > MAX_CONTENTS or len(styles) > MAX_STYLES:
        raise RequestError(
            f"A server takes at most {MAX_CONTENTS} content image and {MAX_STYLES} style images; {len(contents)} and "
            f"{len(styles)} were given."
        )
    known = {name: values[name] for name in ("prompt", "seed", "num_images") if name in values}
    request = GenerationRequest.create(load_model_config("demo"), **known)  # these rules are the same for every model
    strengths = check_style_strengths(values.get("style_strengths"), [style.strength for style in styles])
    return replace(request, content_images=tuple(contents), style_images=tuple(styles), style_strengths=strengths)


def _notes(path: Path) -> list[str]:
    """What the server noted of the request, from the picture's record."""
    try:
        return [str(note) for note in output.read(path).record.get("notes") or ()]
    except OutputError:
        return []


def _writing(data: bytes) -> Callable[[BinaryIO], object]:
    return lambda file: file.write(data)


def _show_in(bar: Callable[[Progress], None], first: int, several: int) -> OnDetails:
    """Shows the state of a call in a bar: the step of its picture, or the server's message.

    Args:
        first: number of its first picture.
    """

    def show(details: dict[str, Any]) -> None:
        stage = "denoise" if details.get("stage") == "denoise" else str(details.get("message", ""))
        step, num_steps = int(details.get("step") or 0), int(details.get("num_steps") or 1)
        index = min(first + len(details.get("pictures") or ()), several - 1)
        bar(Progress(stage=stage, step=step, num_steps=num_steps, image_index=index, num_images=several, seconds=0.0))

    return show


def _print_differences(recorded: output.SavedPicture, path: Path) -> None:
    """Print what differs from the picture that was repeated."""
    try:
        made = output.read(path)
    except OutputError:
        return
    for name in ("schedule", "tiled_decode"):
        then, now = recorded.values().get(name), made.values().get(name)
        if then != now:
            say(f"The same bits are not promised: {name} was {then}, and the server's is {now}.")
    tell_differences(recorded, made.model)
