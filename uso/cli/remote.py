"""`generate --server URL`: the same request, made by a running server; its pictures are kept here as local ones are.

What is allowed, and how it is refused, is the server's business; flags about this machine are refused here, because
they cannot be sent. Loads no model and imports no torch. How the server is spoken to is in `remote_server.py`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from uso import output
from uso.cli.remote_server import OnDetails, RemoteServer
from uso.cli.request import (
    DEFAULT_FOLDER,
    output_place,
    recorded_values,
    request_values,
    tell_differences,
)
from uso.config import COMPONENT_NAMES, load_model_config
from uso.errors import ConfigError, OutputError, RequestError
from uso.request import GenerationRequest, Progress, ReferenceImage
from uso.terminal import print_path, say, step_bar
from uso.weights.flags import AUTO

NOT_SENT: dict[str, Any] = {
    "batch": None,
    "schedule": None,
    "tiled_decode": None,
    "model": AUTO,
    "lora_scale": None,
    "offline": False,
    "memory": AUTO,
    "device": AUTO,
    "dtype": AUTO,
    "speed": None,
    "compile": AUTO,
    **dict.fromkeys(COMPONENT_NAMES),
}
"""Flags that a server does not take from its callers, with the value that says as little as None."""

SENT = ("prompt", "width", "height", "keep_input_size", "num_inference_steps", "guidance_scale", "content_size")
"""Values that go to the server under the same name."""

MAX_CONTENTS, MAX_STYLES = 1, 2


def generate_remotely(args: argparse.Namespace) -> int:
    """Let a server make the pictures of one request; returns the exit status.

    Raises:
        USOError: it is refused, here or there, or the server cannot be used.
    """
    refuse_local_flags(args)
    picture = output.read(args.repeat) if args.repeat else None
    values = request_values(args)
    if picture:
        values = recorded_values(picture, values, Path(args.output or DEFAULT_FOLDER))
    asked = asked_for(values)
    folder, stem = output_place(args.output, several=asked.num_images > 1)
    with RemoteServer(args.server) as server:
        images = server.upload_all(asked.content_images, asked.style_images)
        sent = {name: values[name] for name in SENT if values.get(name) is not None} | images
        with step_bar() as bar:
            for index in range(asked.num_images):
                one = asked.single(index)
                data = server.picture(sent | {"seed": one.seed}, _shown(bar, index, asked.num_images))
                write = partial(output.write_bytes, data)
                path = output.write_somewhere(one, folder, stem, write, "It is kept on the server.")
                print_path(path)
                if picture and index == 0:
                    _tell(picture, path)
    return 0


def refuse_local_flags(args: argparse.Namespace) -> None:
    """Refuse what only a model on this machine could follow.

    Raises:
        ConfigError: with the flags.
    """
    given = [flag for flag, nothing in NOT_SENT.items() if getattr(args, flag) not in (None, nothing)]
    if given:
        names = ", ".join(f"--{flag.replace('_', '-')}" for flag in given)
        raise ConfigError(
            f"{names} cannot be sent to a server, which has its own model and settings. Leave it out, or leave out "
            "--server."
        )


def asked_for(values: dict[str, Any]) -> GenerationRequest:
    """What is known of the request here: its references, prompt and seed (drawn now), and how many pictures; the other
    values are the server's to verify.

    Raises:
        RequestError: too many images, or a prompt, seed or number that no server would take.
    """
    contents: list[ReferenceImage] = values.get("content_images", [])
    styles: list[ReferenceImage] = values.get("style_images", [])
    if len(contents) > MAX_CONTENTS or len(styles) > MAX_STYLES:
        raise RequestError(
            f"A server takes at most {MAX_CONTENTS} content image and {MAX_STYLES} style images; {len(contents)} and "
            f"{len(styles)} were given."
        )
    known = {name: values[name] for name in ("prompt", "seed", "num_images") if name in values}
    asked = GenerationRequest.create(load_model_config("demo"), **known)  # these rules are the same for every model
    return replace(asked, content_images=tuple(contents), style_images=tuple(styles))


def _shown(bar: Callable[[Progress], None], index: int, several: int) -> OnDetails:
    """Shows what the server tells of picture `index` in a bar: the step it is at, or its sentence."""

    def show(details: dict[str, Any]) -> None:
        stage = "denoise" if details.get("stage") == "denoise" else str(details.get("message", ""))
        step, num_steps = int(details.get("step") or 0), int(details.get("num_steps") or 1)
        bar(Progress(stage=stage, step=step, num_steps=num_steps, image_index=index, num_images=several, seconds=0.0))

    return show


def _tell(recorded: output.SavedPicture, path: Path) -> None:
    """Say what is not as it was for a picture that was to be repeated."""
    try:
        made = output.read(path)
    except OutputError:
        return
    for name in ("schedule", "tiled_decode"):
        then, now = recorded.values().get(name), made.values().get(name)
        if then != now:
            say(f"The same bits are not promised: {name} was {then}, and the server's is {now}.")
    tell_differences(recorded, made.model)
