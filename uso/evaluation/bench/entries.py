"""A prepared benchmark: its entries and references. `bench.json` is the list that the released `inference.py` reads
(`--eval_json_path`), with keys of this program beside; any such list is a benchmark, whatever else it holds.

    [{"prompt": "...", "image_paths": ["content.png" or "", "style.png", ...], "save_dir": "name"}, ...]
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from uso.errors import ConfigError
from uso.files import read_text
from uso.request.request import MAX_IMAGES

LIST, ABOUT = "bench.json", "references.json"
TASKS = ("subject", "style", "joint-kept", "joint-moved", "text")
"""What is asked for: a subject, a style, both with the layout kept, both with it moved, or a prompt alone."""
SEED = 3407
"""inference.py's default; its picture j has SEED + j."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Reference:
    """A subject or a style: its pictures, and what is known about them."""

    name: str
    files: tuple[Path, ...]
    about: dict[str, str]

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each picture's file.

        Raises:
            ConfigError: one cannot be read.
        """
        try:
            return tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files)
        except OSError as error:
            raise ConfigError(f"The reference {error.filename} cannot be read ({error.strerror}).") from error


@dataclass(frozen=True)
class Entry:
    """One prompt with its references; the names of both are keys of `Bench.references`."""

    id: str
    """Begins the names of its pictures; may hold folders."""
    task: str
    prompt: str
    content: str | None
    styles: tuple[str, ...]
    seed: int
    """Of its first picture; the next has the next seed."""
    images: int
    paths: tuple[str, ...]
    """What a model is given, relative to the list: the content image or "", then the style images."""

    @property
    def style(self) -> str | None:
        """The style that scores are about."""
        return self.styles[0] if self.styles else None


@dataclass(frozen=True)
class Bench:
    """A list of entries, and the references that they name."""

    title: str
    path: Path
    entries: tuple[Entry, ...]
    references: dict[str, Reference]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that is asked for: prompts, seeds and the references' contents; not where they lie."""
        content = [[vars(entry) for entry in self.entries], {key: ref.hashes for key, ref in self.references.items()}]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def count(self) -> int:
        """How many pictures it asks for."""
        return sum(entry.images for entry in self.entries)


def read_bench(place: str | Path, images: int | None = None, siblings: bool = False) -> Bench:
    """A prepared folder, or a list as `inference.py` reads it.

    Args:
        images: pictures per entry, where the list does not say.
        siblings: all pictures in a content image's folder show its subject, as in DreamBench.

    Raises:
        ConfigError: it cannot be read, or entries are wrong; the first is named.
    """
    path = Path(place) / LIST if Path(place).is_dir() else Path(place)
    if not path.is_file():
        raise ConfigError(f"{path} is not there. Make a benchmark with: python -m uso evaluate prepare --bench mini")
    rows = _json(path)
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f'{path} must hold a list of entries: [{{"prompt": "...", "image_paths": [...]}}, ...].')
    about = _json(path.with_name(ABOUT)) if path.name == LIST and path.with_name(ABOUT).is_file() else {}
    known = {key: _described(key, value, path.parent) for key, value in about.get("references", {}).items()}
    found: dict[str, Reference] = {}
    entries = []
    for number, row in enumerate(rows):
        try:
            entry, used = _entry(number, row, path.parent, known, images, siblings)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: entry {number + 1}: {error.args[0] if error.args else error}") from error
        entries.append(entry)
        found |= used
    ids = [entry.id for entry in entries]
    twice = next((each for each in ids if ids.count(each) > 1), None) if len(set(ids)) < len(ids) else None
    if twice:
        raise ConfigError(f"{path}: two entries have the save_dir '{twice}', so their pictures would have one name.")
    return Bench(str(about.get("title", path.stem)), path, tuple(entries), found)


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "benchmark"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from error


def _described(name: str, value: dict[str, Any], base: Path) -> Reference:
    about = {key: str(each) for key, each in value.items() if key != "files"}
    return Reference(name, tuple(base / file for file in value["files"]), about)


def _entry(
    number: int, row: Any, base: Path, known: dict[str, Reference], images: int | None, siblings: bool
) -> tuple[Entry, dict[str, Reference]]:
    """An entry and its references; errors hold a sentence."""
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise ValueError('it has no "prompt".')
    paths = row.get("image_paths") or []
    if not isinstance(paths, list) or not all(isinstance(each, str) for each in paths) or "" in paths[1:]:
        raise ValueError('"image_paths" is a list of paths: the content image (or ""), then style images.')
    name = row.get("save_dir", str(number))
    if not isinstance(name, str) or not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError('"save_dir" is no name inside the folder of results.')
    content = _reference(paths[0], row.get("content"), base, known, siblings) if paths and paths[0] else None
    own = row.get("style") if len(paths) == 2 else None
    styles = [_reference(each, own, base, known) for each in paths[1:]]
    count, seed = row.get("images", images or 1), row.get("seed", SEED)
    if not isinstance(count, int) or not 1 <= count <= MAX_IMAGES:
        raise ValueError(f'"images" is {count}; 1 to {MAX_IMAGES} is allowed.')
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f'"seed" is {seed}; a whole number from 0 is allowed.')
    task = row.get("task") or _task(row["prompt"], content is not None, bool(styles))
    if task not in TASKS:
        raise ValueError(f"\"task\" is '{task}'; it is one of {', '.join(TASKS)}.")
    entry = Entry(
        id=name,
        task=task,
        prompt=row["prompt"],
        content=content.name if content else None,
        styles=tuple(each.name for each in styles),
        seed=seed,
        images=count,
        paths=tuple(paths),
    )
    return entry, {each.name: each for each in (content, *styles) if each}


def _task(prompt: str, content: bool, style: bool) -> str:
    if content and style:
        return "joint-moved" if prompt.strip() else "joint-kept"
    return "subject" if content else "style" if style else "text"


def _reference(path: str, name: object, base: Path, known: dict[str, Reference], siblings: bool = False) -> Reference:
    if isinstance(name, str) and name in known:
        return known[name]
    file = base / path
    if not file.is_file():
        raise ValueError(f"there is no picture {file}.")
    if not siblings:
        return Reference(path, (file,), {})
    every = sorted(each for each in file.parent.iterdir() if each.suffix.lower() in _PICTURES)
    return Reference(str(Path(path).parent), tuple(every), {})
