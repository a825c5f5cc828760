"""Makes a benchmark's folder: every reference as PNG, the list of entries, and the licences."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from uso.config import ROOT
from uso.errors import ConfigError, ImageError
from uso.evaluation.bench.config import BenchConfig, Kind, Picture, prompts, references, worded
from uso.evaluation.bench.entries import ABOUT, LIST, Bench, read_bench
from uso.evaluation.bench.packages import Opened
from uso.evaluation.bench.rcc import resource
from uso.files import write_over
from uso.images.pixels import open_image

PICTURES, LICENCES = "references", "LICENCES.md"
LONGEST = 1024
"""Longer pictures are brought down to this long side, in pixels: models read no more."""


@dataclass(frozen=True)
class Made:
    """A reference as it will lie in the folder."""

    name: str
    kind: Kind
    word: str
    pictures: tuple[bytes, ...]
    about: dict[str, str]

    @property
    def files(self) -> list[str]:
        if len(self.pictures) == 1:
            return [f"{PICTURES}/{self.name}.png"]
        return [f"{PICTURES}/{self.name}/{number:02d}.png" for number in range(len(self.pictures))]


def prepare(
    config: BenchConfig, folder: Path, own: Path | None, packages: Path, fetch: bool, say: Callable[[str], object]
) -> Bench:
    """Write a benchmark into `folder`; what is there of an earlier one is replaced.

    Args:
        own: a folder with `person`, `object` and `style` inside, whose pictures take the place of the benchmark's.
        packages: where wheels and .deb files lie, or are fetched to.

    Raises:
        ConfigError, ImageError: a reference cannot be had or is not the one that is listed.
    """
    contents, styles = own_references(own) if own else ([], [])
    opened: dict[str, Opened] = {}

    def from_package(name: str) -> Made:
        return _listed(name, opened, packages, fetch, say)

    contents = contents or [from_package(name) for name in config.contents]
    styles = styles or [from_package(name) for name in config.styles]
    names = [each.name for each in (*contents, *styles)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"Two references are called '{twice}'. Rename one.")
    rows = entries_of(config, contents, styles)
    used = {path for row in rows for path in row["image_paths"]}
    made = [each for each in (*contents, *styles) if each.files[0] in used]
    for each in made:
        for file, data in zip(each.files, each.pictures, strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            write_over(folder / file, data)
    about = {each.name: {"kind": each.kind, "files": each.files} | each.about for each in made}
    for name, value in ((ABOUT, {"title": config.title, "references": about}), (LIST, rows)):
        write_over(folder / name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
    write_over(folder / LICENCES, _licences(config.title, made).encode())
    return read_bench(folder)


def entries_of(config: BenchConfig, contents: list[Made], styles: list[Made]) -> list[dict[str, Any]]:
    """The rows of `bench.json`.

    Raises:
        ConfigError: nothing is asked for, or a task lacks references.
    """
    rows: list[dict[str, Any]] = []

    def row(task: str, name: str, prompt: str, content: Made | None, style: Made | None, images: int) -> None:
        paths = [content.files[0] if content else "", *([style.files[0]] if style else [])]
        named = {key: made.name for key, made in (("content", content), ("style", style)) if made}
        rows.append(
            {"prompt": prompt, "image_paths": paths, "save_dir": f"{task}/{name}", "task": task}
            | named
            | {"seed": config.seed, "images": images}
        )

    if ((config.subject or config.joint) and not contents) or ((config.style or config.joint) and not styles):
        raise ConfigError(f"{config.title} needs contents and styles. Name some, or leave the tasks out.")
    for content in contents if config.subject else []:
        assert config.subject
        for number, text in enumerate(prompts().for_content(content.kind, config.subject.prompts_per_type)):
            prompt = worded(text, content.word)
            row("subject", f"{content.name}_{number:02d}", prompt, content, None, config.subject.images)
    for style in styles if config.style else []:
        assert config.style
        for number, prompt in enumerate(prompts().style.first(config.style.prompts, "style")):
            row("style", f"{style.name}_{number:02d}", prompt, None, style, config.style.images)
    for place, content in enumerate(contents if config.joint else []):
        assert config.joint
        texts = getattr(prompts(), content.kind).descriptive
        for step in range(min(config.joint.styles_per_content, len(styles))):
            style = styles[(place + step) % len(styles)]  # each is taken as often as another
            name = f"{content.name}+{style.name}"
            row("joint-kept", name, "", content, style, 1)
            every = (*texts.paper, *texts.ours)
            row("joint-moved", name, worded(every[(place + step) % len(every)], content.word), content, style, 1)
    if not rows:
        raise ConfigError(f"{config.title} asks for nothing. Give it a task: subject, style or joint.")
    return sorted(rows, key=lambda each: each["task"])


def own_references(folder: Path) -> tuple[list[Made], list[Made]]:
    """(contents, styles) of a folder: `person/`, `object/` and `style/` hold pictures, or folders of pictures of one
    subject; a name is the word of prompts.

    Raises:
        ConfigError, ImageError: it holds none, or one that is no picture.
    """
    contents: list[Made] = []
    styles: list[Made] = []
    kinds: tuple[tuple[Kind, list[Made]], ...] = (("person", contents), ("object", contents), ("style", styles))
    for kind, into in kinds:
        for path in sorted((folder / kind).iterdir()) if (folder / kind).is_dir() else ():
            files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
            pictures = tuple(as_reference(file.read_bytes(), str(file)) for file in files)
            word = path.stem.replace("-", " ").replace("_", " ")
            about = {"author": "not stated", "licence": "not stated (your own pictures)", "source": path.name}
            into.append(Made(path.stem, kind, word, pictures, about))
    if not contents and not styles:
        raise ConfigError(f"{folder} holds no pictures in person/, object/ or style/. Put some there.")
    return contents, styles


def as_reference(data: bytes, name: str) -> bytes:
    """A picture's file as PNG: upright, on white, RGB, at most `LONGEST` long.

    Raises:
        ImageError: it is no picture.
    """
    picture = open_image(data, name)
    if max(picture.size) > LONGEST:
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _listed(name: str, opened: dict[str, Opened], folder: Path, fetch: bool, say: Callable[[str], object]) -> Made:
    """A reference of `configs/bench/data/references.yaml`, verified."""
    picture = references().pictures.get(name)
    if picture is None:
        raise ConfigError(f"There is no reference '{name}' in configs/bench/data/references.yaml.")
    data = _content(picture, opened, folder, fetch, say)
    about = {key: str(getattr(picture, key)) for key in ("package", "file", "sha256", "author", "licence", "source")}
    about["package"] = picture.package or "this repository"
    return Made(name, picture.kind, picture.word, (as_reference(data, name),), about)


def _content(
    picture: Picture, opened: dict[str, Opened], folder: Path, fetch: bool, say: Callable[[str], object]
) -> bytes:
    """A picture's bytes, from the installed package if it holds just these, else from the packed one."""
    path, _, inner = picture.file.partition("!")

    def unpacked(data: bytes) -> bytes:
        return resource(data, inner, path) if inner else data

    if picture.package is None:
        found = (ROOT / path).read_bytes() if (ROOT / path).is_file() else b""
        return _checked(picture, found, "this repository")
    if picture.package not in opened:
        known = references().packages[picture.package]
        opened[picture.package] = Opened(picture.package, known, folder, fetch, say)
    package = opened[picture.package]
    installed = package.installed(path)
    if installed.is_file():
        try:
            return _checked(picture, unpacked(installed.read_bytes()), str(installed))
        except ImageError:
            pass  # of another version: the pinned one is read instead
    return _checked(picture, unpacked(package.packed(path)), f"{picture.package} {package.package.version}")


def _checked(picture: Picture, data: bytes, where: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise ImageError(f"{picture.file} of {where} is not the picture that is listed (its SHA-256 differs).")
    return data


def _licences(title: str, made: list[Made]) -> str:
    lines = [f"# {title}: where the references come from", "", "| reference | author | licence | source | package |"]
    lines.append("|---|---|---|---|---|")
    for each in made:
        about = each.about
        cells = (each.name, about["author"], about["licence"], about["source"], about.get("package", "-"))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"
