"""What folders of weights hold: `scan`. Components are recognised by their tensors, whatever the file names and the
folder layout (ComfyUI, Forge, diffusers folders, the Hub's cache). Only headers of files are read. No torch.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from uso.config import ComponentName
from uso.errors import CheckpointError, ConfigError
from uso.weights.formats.headers import PICKLES, SHARD, SUFFIXES, read_headers
from uso.weights.formats.kinds import Content, guidance, identify
from uso.weights.formats.relatives import TITLES, other, other_autoencoder

INDEX = ".index.json"
MAX_FILES = 20_000
"""More files than this under one folder: it is no folder of weights, and the search ends."""

_UNFINISHED = (".incomplete", ".part", ".aria2", ".crdownload", ".download", ".tmp")
_SKIPPED_FOLDERS = {"blobs", "__pycache__", "node_modules", "venv", "site-packages"}

_SMALLEST_PICKLE = 1_000_000
"""Bytes; smaller ones are settings of other programs."""

BESIDE: tuple[tuple[str, ...], ...] = (
    ("comfy", "sd1_tokenizer"),
    ("comfy", "text_encoders", "t5_tokenizer"),
    ("backend", "huggingface", "black-forest-labs", "FLUX.1-dev"),
)
"""Where ComfyUI and Forge have tokenizers, beside their folder `models`."""


@dataclass(frozen=True)
class Candidate:
    """One component that was found, or a file that cannot be used."""

    component: ComponentName | None
    path: Path
    """The file, the index of its parts, or a tokenizer's folder."""
    kind: str
    """`bf16`, `fp8 scaled`, `Q8_0` ...; `tokenizer`."""
    title: str
    bytes: int
    refused: str = ""
    """Why it cannot be used."""
    chosen: bool = False
    reason: str = ""
    """Why it was chosen, or was not."""
    guidance: bool | None = None

    @property
    def name(self) -> str:
        return self.path.name


def scan(folders: Iterable[Path]) -> list[Candidate]:
    """Everything in folders, and in the folders below them, that is a component or looks like one.

    Raises:
        ConfigError: a folder that is not there, or one with too many files.
    """
    found: list[Candidate] = []
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--weights {folder}: there is no such folder.")
        for root in (folder, *(place for parts in BESIDE if (place := folder.parent.joinpath(*parts)).is_dir())):
            for candidate in _in_folder(root):
                key = Path(os.path.realpath(candidate.path))
                if candidate.component is None or (key, candidate.component) not in seen:
                    seen.add((key, candidate.component))  # type: ignore[arg-type]
                    found.append(candidate)
    return found


def _in_folder(root: Path) -> Iterator[Candidate]:
    count = 0
    been: set[str] = set()
    closed: list[OSError] = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=closed.append):
        real = os.path.realpath(folder)
        if real in been:  # a link that leads back
            folders.clear()
            continue
        been.add(real)
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith("."))
        count += len(names)
        if count > MAX_FILES:
            raise ConfigError(f"--weights {root} holds more than {MAX_FILES} files. Name the folder of the weights.")
        here = Path(folder)
        yield from _tokenizers(here, names)
        yield from _weights(here, sorted(names))
    for error in closed:
        yield _unusable(Path(error.filename), "a folder that cannot be read", f"{error.strerror}.")


def _weights(folder: Path, names: list[str]) -> Iterator[Candidate]:
    shards: dict[str, list[str]] = {}
    for name in names:
        path, lower = folder / name, name.lower()
        if lower.endswith(_UNFINISHED):
            yield _unusable(path, "an unfinished download", "Finish it, or fetch the file again.")
        elif lower.endswith(PICKLES) and lower.startswith(
            ("pytorch_model", "model", "diffusion", "flux", "t5", "clip")
        ):
            yield _unusable(path, "a PyTorch pickle", "It is not loaded, for it can run code. Use a safetensors file.")
        elif not lower.endswith(SUFFIXES):
            continue
        elif not os.path.exists(path):
            yield _unusable(path, "a link to a file that is gone", "Fetch the file again.")
        elif any(f"{name}{ending}" in names for ending in _UNFINISHED):
            yield _unusable(path, "an unfinished download", "Finish it, or fetch the file again.")
        elif (match := SHARD.fullmatch(name)) is not None:
            shards.setdefault(f"{match['stem']}{match['ending']}", []).append(name)
        else:
            yield from _candidates(path, [path])
    for stem, parts in shards.items():
        index = folder / f"{stem}{INDEX}"
        count = int(SHARD.fullmatch(parts[0])["count"])  # type: ignore[index]
        if len(parts) != count or not all(os.path.exists(folder / part) for part in parts):
            yield _unusable(folder / parts[0], f"{len(parts)} of {count} parts of a file", "Fetch the others.")
        else:  # a part stands for all, where their index has another name
            yield from _candidates(index if index.is_file() else folder / parts[0], [folder / part for part in parts])


def _unusable(path: Path, title: str, refused: str) -> Candidate:
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    return Candidate(None, path, "", title, size, refused)


def _candidates(path: Path, files: list[Path]) -> Iterator[Candidate]:
    try:
        header = read_headers(files)
    except CheckpointError as error:
        yield _unusable(path, "unreadable", str(error).replace(f"{path} is ", "It is ").replace(f"{path}", path.name))
        return
    contents = identify(header)
    if not contents:
        title, remedy = other(header)
        yield _unusable(path, title, remedy)
    for content in contents:
        yield Candidate(
            content.component,
            path,
            content.storage,
            content.title,
            sum(entry.end - entry.begin for entry in content.tensors(header).values()),
            content.refused or _config_beside(path, content),
            guidance=guidance(content),
        )


def _config_beside(path: Path, content: Content) -> str:
    """Why the config beside an autoencoder says that it is another one; empty where it does not."""
    file = path.parent / "config.json"
    if content.component != "vae" or content.layout != "diffusers" or not file.is_file():
        return ""
    try:
        return other_autoencoder(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ""


def _tokenizers(folder: Path, names: list[str]) -> Iterator[Candidate]:
    have = set(names)
    if not have & {"tokenizer.json", "vocab.json", "spiece.model"}:
        return
    component = tokenizer_kind(folder)
    if component is None:
        return
    size = sum(os.path.getsize(folder / name) for name in names if os.path.isfile(folder / name))
    refused = ""
    if component == "tokenizer_2" and "tokenizer.json" not in have:
        refused = "spiece.model alone is no T5 tokenizer here: tokenizer.json is needed beside it."
    yield Candidate(component, folder, "tokenizer", TITLES[component], min(size, 50_000_000), refused)


def tokenizer_kind(folder: Path) -> ComponentName | None:
    """`tokenizer` for CLIP's, `tokenizer_2` for T5's; None for others."""
    try:
        return _tokenizer_kind(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _tokenizer_kind(folder: Path) -> ComponentName | None:
    file = folder / "tokenizer.json"
    if file.is_file():
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        kind, suffix = model.get("type"), model.get("end_of_word_suffix")
        if kind == "Unigram":
            return "tokenizer_2"
        return "tokenizer" if suffix == "</w>" else None
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        with (folder / "vocab.json").open(encoding="utf-8", errors="replace") as vocabulary:
            return "tokenizer" if "</w>" in vocabulary.read(200_000) else None
    return "tokenizer_2" if (folder / "spiece.model").is_file() else None
