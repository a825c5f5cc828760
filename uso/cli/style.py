"""The verb `style`: save styles under names, and keep them in a folder.

`python -m uso generate --style NAME` uses one. Only saving loads a model.
"""

import argparse
from pathlib import Path
from typing import Any

from uso.config import from_home
from uso.errors import OutputError, RequestError
from uso.request.references import MAX_STYLE_IMAGES, STYLE_SUFFIX, ReferenceImage, SavedStyle, check_style_name
from uso.request.styles import StyleFolder, default_folder
from uso.terminal import print_path, printable, say
from uso.weights.flags import add_model_flags


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "style",
        help="save styles under names",
        description="Save the style of images under a name, and use it in their place: generate --style NAME.",
    )
    what = parser.add_subparsers(title="what to do", metavar="ACTION", required=True)

    def action(name: str, does: Any, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = what.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=does)
        add_styles_flag(made)
        return made

    save = action("save", _save, "Save the style of images. Needs a model, whose style projector makes the tokens.")
    save.add_argument("name", metavar="NAME")
    save.add_argument("images", nargs="+", metavar="IMAGE", help=f"at most {MAX_STYLE_IMAGES}, which count as one")
    save.add_argument("--strength", type=float, default=1.0, metavar="NUMBER", help="used where none is given (1)")
    add_model_flags(save)
    action("list", _list, "Print all saved styles.")
    for name, does, text in (
        ("show", _show, "Print what a saved style's file says."),
        ("delete", _delete, "Remove a saved style."),
    ):
        action(name, does, text).add_argument("name", metavar="NAME")
    rename = action("rename", _rename, "Give a saved style another name.")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("new", metavar="NEW")
    export = action("export", _export, "Copy a saved style to a file.")
    export.add_argument("name", metavar="NAME")
    export.add_argument("file", type=Path, metavar="FILE", help=f"ends in {STYLE_SUFFIX}")
    add = action("import", _import, "Keep a style's file in the folder.")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("--name", help="another name than its own")
    return parser


def add_styles_flag(parser: Any) -> None:
    parser.add_argument("--styles", metavar="FOLDER", help="the folder of saved styles (one among your own data)")


def style_folder(args: argparse.Namespace) -> StyleFolder:
    """The folder that `--styles` names, or else the user's own."""
    return StyleFolder(from_home(args.styles) if args.styles else default_folder())


def _save(args: argparse.Namespace) -> int:
    from uso.cli.pictures.request import chosen_config, load

    folder, title = style_folder(args), check_style_name(args.name)
    folder.check_new(title)
    images = [ReferenceImage.from_path(path) for path in args.images]
    for image in images:
        _ = image.image  # refused before the model loads
    config, why = chosen_config(args)
    style = load(config, args, why).save_style(images, title, strength=args.strength)
    print_path(folder.add(style).path)
    return 0


def _list(args: argparse.Namespace) -> int:
    folder = style_folder(args)
    for entry in folder.entries():
        images = len(entry.head.weights)
        print(f"{printable(entry.head.title)}  (strength {entry.head.strength:g}, {images} image{'s'[: images > 1]})")
    if not folder.entries():
        say(f"There are no saved styles in {folder.path}.")
    return 0


def _show(args: argparse.Namespace) -> int:
    folder = style_folder(args)
    style, entry = folder.get(args.name), folder.entry(args.name)
    _ = style.image  # checks all of it
    head = style.head
    values = {
        "name": head.title,
        "file": entry.path if entry else "",
        "strength": f"{head.strength:g}",
        "weights": ", ".join(f"{weight:g}" for weight in head.weights),
        "tokens": f"{head.shape[0]} x {head.shape[1]} x {head.shape[2]} {head.dtype}",
        "projector": head.projector,
        "sha256": style.sha256,
    }
    print("\n".join(f"{name}: {printable(str(value))}" for name, value in values.items()))
    return 0


def _delete(args: argparse.Namespace) -> int:
    style_folder(args).delete(args.name)
    return 0


def _rename(args: argparse.Namespace) -> int:
    style_folder(args).rename(args.name, args.new)
    return 0


def _export(args: argparse.Namespace) -> int:
    found = style_folder(args).get(args.name)
    if args.file.suffix != STYLE_SUFFIX:
        raise OutputError(f"{args.file} does not end in {STYLE_SUFFIX}.")
    try:
        with open(args.file, "xb") as file:
            file.write(found.data)
    except FileExistsError as error:
        raise OutputError(f"{args.file} exists already, and nothing is overwritten. Choose another name.") from error
    except OSError as error:
        raise OutputError(f"{args.file} cannot be written ({error.strerror}).") from error
    print_path(args.file)
    return 0


def _import(args: argparse.Namespace) -> int:
    style = ReferenceImage.from_path(args.file)
    if not isinstance(style, SavedStyle):
        raise RequestError(f"{args.file} is an image. Save its style: python -m uso style save NAME {args.file}")
    if args.name is not None:
        style = style.renamed(args.name)
    print_path(style_folder(args).add(style).path)
    return 0
