"""Shared by `generate`, `batch` and `remote`: flags, or a picture's record, become a request; pictures become files.

Whatever can be refused is refused before torch is imported.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uso import output
from uso.cli.style import style_folder
from uso.cluster.address import Workers, named_model
from uso.config import SPEEDS, ModelConfig, from_home, model_names
from uso.errors import ConfigError, OutputError, RequestError
from uso.request.request import GenerationRequest, GenerationResult, ReferenceImage
from uso.request.translation import load_translator
from uso.terminal import loading_bar, print_path, say, step_bar
from uso.weights.automatic import automatic_model
from uso.weights.flags import AUTO, load_options, weights_folders

if TYPE_CHECKING:
    from uso.pipeline.pipeline import USOPipeline

REQUEST_FLAGS = {
    "prompt": "prompt",
    "style_strengths": "style_strengths",
    "width": "width",
    "height": "height",
    "keep_size": "keep_input_size",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "content_size": "content_size",
    "seed": "seed",
    "images": "num_images",
    "schedule": "schedule",
    "tiled_decode": "tiled_decode",
}
"""Flags, and keys of a batch file's jobs -> arguments of `GenerationRequest.create`."""

DEFAULT_FOLDER = Path("outputs")
_PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
"""An `--output` with one of these suffixes means a file; all but .png are refused."""


def make(
    pipe: "USOPipeline", request: GenerationRequest, save: Callable[[GenerationResult], Path], label: str = ""
) -> None:
    """Run a request; each picture is saved, and its path printed, as soon as it is finished."""
    said: set[str] = set()
    with closing(pipe.stream(request)) as events, step_bar(label) as show:
        for event in events:
            if isinstance(event, GenerationResult):
                print_path(save(event))
                say_once(event.notes, said, label)
            else:
                show(event)


def say_once(notes: Iterable[str], said: set[str], label: str = "") -> None:
    """Print notes on how a request was read that were not printed before."""
    for note in notes:
        if note not in said:
            said.add(note)
            say(f"{label.capitalize().rstrip(', ')}: {note}" if label else note)


def chosen_config(
    args: argparse.Namespace,
    check: Callable[[ModelConfig], object] = lambda config: None,
    workers: Workers | None = None,
) -> tuple[ModelConfig, str | None]:
    """The model that the flags name, or that `auto` is here with the reason. Only `auto` may have to check the device.

    Args:
        check: refuses what a model cannot run, before the device is checked.
        workers: what `--workers` says.
    """
    config = named_model(args, workers)
    if config is not None:
        return config, None
    config, why = automatic_model(args, args.device, check)
    say(why)
    return config, why


def load(config: ModelConfig, args: argparse.Namespace, why: str | None = None) -> "USOPipeline":
    """Load the pipeline as the model flags say. A named model is fetched if necessary; `auto` never fetches."""
    from uso.weights.loading import load_pipeline

    with loading_bar() as show:
        return load_pipeline(config, **load_options(args), why=why, on_progress=show)


def request_values(args: argparse.Namespace) -> dict[str, Any]:
    """The request's flags as arguments of `GenerationRequest.create`.

    Raises:
        RequestError: flags that contradict each other.
    """
    if args.keep_size and (args.width is not None or args.height is not None):
        raise RequestError("--keep-size takes the size from the content image: leave out --width and --height.")
    values = {field: value for flag, field in REQUEST_FLAGS.items() if (value := getattr(args, flag)) is not None}
    if "prompt" in values:
        values["prompt"] = load_translator(args.translate).english(values["prompt"])
    if args.content:
        values["content_images"] = [ReferenceImage.from_path(path) for path in args.content]
    if args.style:
        values["style_images"] = [ReferenceImage.from_path(style_file(args, style)) for style in args.style]
    return values


def style_file(args: argparse.Namespace, given: str, base: Path = Path()) -> Path:
    """The file of a style that was given as a path, or by the name that it was saved under.

    Args:
        base: where paths begin.

    Raises:
        RequestError: there is neither.
    """
    path = base / from_home(given)
    if os.path.lexists(path):
        return path
    folder = style_folder(args)
    entry = folder.entry(given)
    if entry is None and not Path(given).suffix:
        raise RequestError(f"There is no file {given}, and no saved style of that name in {folder.path}.")
    return path if entry is None else entry.path


def output_place(text: str | None, several: bool) -> tuple[Path, str | None]:
    """`--output` as (folder, file name without .png or None), checked by writing to it.

    Raises:
        OutputError: it cannot be written to, already exists, or names one file for several pictures.
    """
    path = from_home(text) if text else DEFAULT_FOLDER
    if os.path.isdir(path) or path.suffix.lower() not in _PICTURE_SUFFIXES:
        output.check_folder(path)
        return path, None
    if several:
        raise OutputError(f"--output {path} names one file, which cannot hold several pictures. Name a folder.")
    output.check_file(path)
    return path.parent, path.stem


def recorded_flags(args: argparse.Namespace, picture: output.SavedPicture) -> dict[str, Any]:
    """Flags for the model, and for how it ran, from a picture's record; flags that were given are left out.

    On another device than the recorded one, memory plan and compilation are not taken over.

    Raises:
        ConfigError: the recorded model does not come with the program.
    """
    keys = {"model": "name", "device": "device", "dtype": "dtype", "memory": "plan"}
    known = {flag: str(picture.model[key]) for flag, key in keys.items() if key in picture.model}
    known["device"] = known.get("device", AUTO).split(" ")[0]  # it is recorded as "cuda (NVIDIA ...)"
    if picture.model.get("speed") in SPEEDS:
        known["speed"] = picture.model["speed"]
    if "compiled" in picture.model:
        known["compile"] = "on" if picture.model["compiled"] else "off"
    if args.device and args.device.split(":")[0] != known["device"].split(":")[0]:
        known = {flag: value for flag, value in known.items() if flag not in ("memory", "compile")}
    filled: dict[str, Any] = {flag: value for flag, value in known.items() if getattr(args, flag) is None}
    scale = picture.model.get("lora_scale")
    if args.lora_scale is None and isinstance(scale, int | float):
        filled["lora_scale"] = float(scale)
    if args.add_lora is None and picture.model.get("added_loras"):
        filled["add_lora"] = [_found_lora(record, args) for record in picture.model["added_loras"]]
    if "model" in filled and filled["model"] not in model_names():
        raise ConfigError(
            f"The picture was made with a model called '{filled['model']}', which does not come with the program. Name "
            "its file: --model FILE.yaml."
        )
    return filled


def _found_lora(record: dict[str, Any], args: argparse.Namespace) -> str:
    """A recorded LoRA as `--add-lora` takes it, found in the folders of `--weights` by name and fingerprint.

    Raises:
        ConfigError: it is in none of them.
    """
    from uso.weights.hub.cache import fingerprint

    name, strength = str(record["file"]), record["strength"]
    for folder in weights_folders(args):
        for path in from_home(folder).rglob(name):
            if fingerprint([path]) == record["fingerprint"]:
                return f"{path}:{strength}"
    raise ConfigError(
        f"The picture was made with the LoRA {name} at strength {strength:g}. Give the file, --add-lora "
        f"{name}:{strength:g}, or the folder that holds it, --weights FOLDER."
    )


def repeated_values(
    picture: output.SavedPicture, given: dict[str, Any], config: ModelConfig, folder: Path
) -> dict[str, Any]:
    """`recorded_values`, without a guidance scale if the model `config` takes none."""
    values = recorded_values(picture, given, folder)
    if not config.guidance and "guidance_scale" not in given:  # recorded with another model
        values["guidance_scale"] = None
    return values


def recorded_values(picture: output.SavedPicture, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recorded request and its reference images, with given values in place of recorded ones.

    A given image that was recorded (same SHA-256) replaces a lost file; other images replace the recorded ones.
    """
    values = picture.values()
    if "width" in given or "height" in given:
        values["keep_input_size"] = False
    found: list[ReferenceImage] = []
    for kind in output.KINDS:
        hashes = {entry["sha256"] for entry in picture.record["request"][kind]}
        files = given.get(kind, [])
        new = [file.name for file in files if file.sha256 not in hashes]
        if new:
            say(f"{', '.join(new)}: not among the recorded {kind.replace('_', ' ')}; used in their place.")
        else:
            given = {key: value for key, value in given.items() if key != kind}
            found += files
    if "style_images" in given:
        values.pop("style_strengths", None)  # those of other images
    lost = [kind for kind in output.KINDS if kind not in given]
    references = picture.references([picture.path.parent, folder], found, lost)
    return {**values, **references, **given}


def tell_differences(picture: output.SavedPicture, provenance: dict[str, Any]) -> None:
    """Print what differs from when the picture was made; only without differences is the result bit for bit equal."""
    then, now = _plain(picture.model), _plain(provenance)
    keys = dict.fromkeys([*then, *now])
    changes = [f"{key} was {then.get(key)}, is {now.get(key)}" for key in keys if then.get(key) != now.get(key)]
    before, after = _part(picture.model, "components"), _part(provenance, "components")
    files = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    changes += [f"the files of {name} are others" for name in files]
    if changes:
        say(f"Not all is as it was for {picture.path.name}, so the same bits are not promised: {'; '.join(changes)}.")


def _plain(model: dict[str, Any]) -> dict[str, Any]:
    """The record of a model without its files, flattened."""
    values = {key: value for key, value in model.items() if key not in ("components", "versions", "why", "node")}
    return values | _part(model, "versions")


def _part(model: dict[str, Any], name: str) -> dict[str, Any]:
    part = model.get(name)
    return part if isinstance(part, dict) else {}
