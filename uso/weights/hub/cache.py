"""The files of a component, and where they are on this disk: in folders or in the Hub's cache.

Reads names, sizes and index files; fetches nothing and loads no weights. The cache has huggingface_hub's documented
layout (`blobs`, `refs`, `snapshots`) and is shared with its other users.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError
from huggingface_hub.file_download import repo_folder_name

from uso.config import ComponentName, Source, from_home
from uso.errors import CheckpointError, ConfigError
from uso.weights.formats.headers import SHARD, SUFFIXES, parts_of, read_header

WEIGHTS = ".safetensors"
INDEX = ".safetensors.index.json"
TOKENIZERS: frozenset[ComponentName] = frozenset({"tokenizer", "tokenizer_2"})
TOKENIZER_SUFFIXES = (".json", ".txt", ".model")
STANDARD_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""What transformers and diffusers call a component's weights; these win if a folder holds several files."""

SAMPLES = 64
SAMPLE_BYTES = 64 * 1024
"""A fingerprint reads 4 MiB of a file, which is much faster than all 24 GB; a retrained file differs everywhere."""

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Hub:
    """A Hub and its cache folder. Defaults come from HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE;
    huggingface_hub reads all of them but the token when it is imported."""

    endpoint: str = field(default_factory=lambda: constants.ENDPOINT)
    cache: Path = field(default_factory=lambda: from_home(constants.HF_HUB_CACHE).resolve())
    token: str | bool | None = field(default=None, repr=False)
    """None: HF_TOKEN or the token stored by `hf auth login`; False: no token."""
    offline: bool = field(default_factory=lambda: constants.HF_HUB_OFFLINE)

    def folder(self, repo: str) -> Path:
        """The cache folder of a repository.

        Raises:
            ConfigError: `repo` is not a repository's name.
        """
        try:
            return self.cache / repo_folder_name(repo_id=repo, repo_type="model")
        except HFValidationError as error:
            raise ConfigError(
                f"'{repo}' is not a repository name (OWNER/NAME). Correct `repo` in the model's configuration."
            ) from error

    def snapshot(self, repo: str, commit: str) -> Path:
        return self.folder(repo) / "snapshots" / commit

    def known_commit(self, repo: str, revision: str) -> str | None:
        """The commit that `revision` pointed to when it was last fetched; None if it never was."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.folder(repo) / "refs" / revision).read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return commit if COMMIT.fullmatch(commit) else None


@dataclass(frozen=True)
class Found:
    """A component's files on this disk, and the names of missing ones."""

    path: Path
    files: tuple[Path, ...]
    absent: tuple[str, ...] = ()


def find(name: ComponentName, source: Source, hub: Hub) -> Found:
    """Look for a component on this disk.

    Raises:
        CheckpointError: the files are not safetensors, are ambiguous, or have a damaged index.
    """
    if source.repo is None:
        return _find_local(name, source)
    folder, file = split_path(name, source)
    commit = hub.known_commit(source.repo, source.revision)
    if commit is None:
        return Found(Path(source.path), (), (source.path,))
    snapshot = hub.snapshot(source.repo, commit)
    sizes = _listed_sizes(source.repo, commit, folder, hub)
    if file:
        found = _present(snapshot / folder, [file], sizes or {})
    else:
        here = _names_in(snapshot / folder)
        found = _find_in_folder(name, snapshot / folder, dict.fromkeys(here) if sizes is None else sizes)
    absent = tuple(f"{folder}/{name}" if folder else name for name in found.absent)
    return Found(snapshot / folder / file, found.files, absent)


def split_path(name: ComponentName, source: Source) -> tuple[str, str]:
    """Folder and file name of a Hub source; "" is the root folder, and no file if the source is the folder itself."""
    if name not in TOKENIZERS and source.path.endswith(WEIGHTS):
        folder, _, file = source.path.rpartition("/")
        return folder, file
    return "" if source.path == "." else source.path.strip("/"), ""


def _find_local(name: ComponentName, source: Source) -> Found:
    path = source.local_path
    if path.is_dir():
        return _find_in_folder(name, path, dict.fromkeys(_names_in(path)))
    if not path.is_file():
        return Found(path, (), (source.path,))
    if name in TOKENIZERS:
        raise CheckpointError(f"{name}: {source.path} is a file; name the folder that holds the tokenizer's files.")
    if path.name.endswith(INDEX):
        return _present(path.parent, _indexed(path), {})
    if path.name.lower().endswith(".json") or SHARD.fullmatch(path.name):
        return Found(path, tuple(parts_of(path)))
    if path.suffix.lower() not in SUFFIXES:
        read_header(path)  # whatever its name is, its content decides
    return Found(path, (path,))


def _find_in_folder(name: ComponentName, folder: Path, sizes: Mapping[str, int | None]) -> Found:
    """`sizes`: the names that belong in the folder, with their sizes if known from the Hub."""
    if name in TOKENIZERS:
        names = tokenizer_names(sizes)
        if not _is_tokenizer(names):
            return Found(folder, (), ("tokenizer.json",))
        return _present(folder, names, sizes)
    names, index = choose_weights(sizes, folder.name)
    if not names:  # a folder of one's own may hold one file of another ending
        others = [each for each in sizes if Path(each).suffix.lower() in SUFFIXES]
        stems = {(match["stem"], match["count"]) for each in others if (match := SHARD.fullmatch(each))}
        split = len(stems) == 1 and all(SHARD.fullmatch(each) for each in others)  # its index has another name
        names = [each.name for each in parts_of(folder / others[0])] if split else others if len(others) == 1 else []
    if index is not None:
        if not (folder / index).is_file():
            return Found(folder, (), (index,))
        names = _indexed(folder / index)
    if not names:
        return Found(folder, (), (f"*{WEIGHTS}",))
    return _present(folder, names, sizes)


def _present(folder: Path, names: Iterable[str], sizes: Mapping[str, int | None]) -> Found:
    """Which of `names` are in `folder`, and complete if their size is known."""
    here = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    absent = [name for name in names if name not in here or sizes.get(name) not in (None, here[name])]
    return Found(folder, tuple(folder / name for name in here if name not in absent), tuple(absent))


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _listed_sizes(repo: str, commit: str, folder: str, hub: Hub) -> dict[str, int | None] | None:
    """Name and size of every file in a repository's `folder`, from the cache's stored listing; None if there is none.

    With it, an interrupted download is recognised as incomplete without the network.
    """
    try:
        tree = get_cached_repo_tree(repo, revision=commit, cache_dir=hub.cache)
    except CachedRepoTreeNotFoundError:
        return None
    return {name: file.size for file in tree if (name := name_in(folder, file.path)) is not None}


def name_in(folder: str, path: str) -> str | None:
    """The name of a repository's file if it is directly in `folder` ("" is the root), else None."""
    parent, _, name = path.rpartition("/")
    return name if parent == folder else None


def tokenizer_names(names: Iterable[str]) -> list[str]:
    """The names in a folder that belong to a tokenizer."""
    return sorted(name for name in names if name.endswith(TOKENIZER_SUFFIXES) and not name.endswith(INDEX))


def _is_tokenizer(names: list[str]) -> bool:
    """Whether the files include a vocabulary."""
    if "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= set(names):
        return True
    return any(name.endswith(".model") for name in names)


def choose_weights(names: Collection[str], where: str) -> tuple[list[str], str | None]:
    """The names of the weights in a folder, and of their index file if they are split.

    Variants (`model.fp16.safetensors`) give way to the plain file.

    Args:
        where: the folder's name in messages.

    Raises:
        CheckpointError: there are several files, and nothing says which one to use.
    """
    whole = [name for name in names if name.endswith(WEIGHTS) and not _SHARD.fullmatch(name)]
    indexes = _plain([name for name in names if name.endswith(INDEX)], INDEX)
    standard = [name for name in STANDARD_NAMES if name in whole]
    if standard:
        return standard[:1], None
    if len(indexes) == 1:
        stem = indexes[0].removesuffix(INDEX)
        shards = [name for name in names if (match := _SHARD.fullmatch(name)) and match[1] == stem]
        return sorted(shards), indexes[0]
    whole = _plain(whole, WEIGHTS)
    if len(whole) + len(indexes) > 1:
        raise CheckpointError(
            f"{where} holds several weights ({', '.join(sorted([*whole, *indexes]))}). Name the file that counts."
        )
    return whole, None


def _plain(names: list[str], suffix: str) -> list[str]:
    """The names without a variant's dot before the suffix; all names if every one has it."""
    return [name for name in names if "." not in name.removesuffix(suffix)] or names


def _indexed(index: Path) -> list[str]:
    """The files named in an index, sorted.

    Raises:
        CheckpointError: the index cannot be read, or names files outside its folder.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index.name} in {index.parent.name} is damaged: it holds no weight_map.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(WEIGHTS):
            raise CheckpointError(f"{index.name} in {index.parent.name} names {name!r}, no safetensors file beside it.")
    return names


def local_origin(found: Found) -> dict[str, Any]:
    """What a picture records of local files: base name, size and fingerprint, never their folder."""
    return {
        "file": found.path.name,
        "bytes": sum(path.stat().st_size for path in found.files),
        "fingerprint": fingerprint(found.files),
    }


def fingerprint(files: Iterable[Path]) -> str:
    """A SHA-256 that tells weights apart without reading them whole.

    For each file, sorted by name, it covers the name (if there are several), the size, the safetensors header (every
    key, type and shape), and 64 slices of 64 KiB spread evenly over the file; files up to 4 MiB are read whole. It
    detects another training, another conversion or a truncated file, but not deliberate deception.
    """
    digest = hashlib.sha256()
    paths = sorted(files, key=lambda path: path.name)
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name if len(paths) > 1 else ''}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= SAMPLES * SAMPLE_BYTES:
                digest.update(file.read())
                continue
            if path.name.endswith(WEIGHTS):
                length = int.from_bytes(file.read(8), "little")
                digest.update(file.read(min(length, constants.SAFETENSORS_MAX_HEADER_LENGTH)))
            for number in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
