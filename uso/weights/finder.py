"""Find a model's components in folders of weights, by content: `scan`, then `choose`.

Whatever the names and trees are (ComfyUI, Forge, diffusers folders, the Hub's cache), a component is known by its
tensors. Only heads of files are read. Nothing is guessed between models that have the same shapes. No torch.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from uso.config import ComponentName, ModelConfig, Source, from_home
from uso.errors import CheckpointError, ConfigError
from uso.weights.formats.headers import PICKLES, SUFFIXES, read_headers
from uso.weights.formats.kinds import TITLES, Content, guidance, identify, other, other_autoencoder

INDEX = ".index.json"
MAX_FILES = 20_000
"""More files than this under one folder: it is no folder of weights, and the search ends."""

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.\w+)", re.IGNORECASE)
_UNFINISHED = (".incomplete", ".part", ".aria2", ".crdownload", ".download", ".tmp")
_SKIPPED_FOLDERS = {"blobs", "__pycache__", "node_modules", "venv", "site-packages"}

_SMALLEST_PICKLE = 1_000_000
"""Bytes; smaller ones are settings of other programs."""

_ORDER = (
    "bf16",
    "fp32",
    "fp16",
    "fp64",
    "fp8 e4m3 scaled",
    "fp8 e5m2 scaled",
    "fp8 e4m3",
    "fp8 e5m2",
    "Q8",
    "Q6",
    "Q5",
)
"""Kinds by how exact they are; all others come after them."""

_KIND_WORDS = re.compile(
    r"[-_. ]?(fp8|fp16|fp32|bf16|f16|e4m3fn|e4m3|e5m2|scaled|fast|hybrid|q\d(_k|_0|_1)?(_[sml])?|gguf|nf4|v\d+|unet|"
    r"only|all[-_]?in[-_]?one|aio|checkpoint|pruned)(?=$|[-_. ])",
    re.IGNORECASE,
)
_GENERIC = {"diffusionpytorchmodel", "model", "transformer", "unet", "pytorchmodel"}

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
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith("."))
        count += len(names)
        if count > MAX_FILES:
            raise ConfigError(f"--weights {root} holds more than {MAX_FILES} files. Name the folder of the weights.")
        here = Path(folder)
        yield from _tokenizers(here, names)
        yield from _weights(here, sorted(names))


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
        elif not path.exists():
            yield _unusable(path, "a link to a file that is gone", "Fetch the file again.")
        elif any(f"{name}{ending}" in names for ending in _UNFINISHED):
            yield _unusable(path, "an unfinished download", "Finish it, or fetch the file again.")
        elif (match := _SHARD.fullmatch(name)) is not None:
            shards.setdefault(f"{match['stem']}{match['ending']}", []).append(name)
        else:
            yield from _candidates(path, [path])
    for stem, parts in shards.items():
        index = folder / f"{stem}{INDEX}"
        count = int(_SHARD.fullmatch(parts[0])["count"])  # type: ignore[index]
        if len(parts) < count or not all((folder / part).exists() for part in parts):
            yield _unusable(folder / parts[0], f"{len(parts)} of {count} parts of a file", "Fetch the others.")
        elif not index.is_file():
            yield _unusable(folder / parts[0], "parts of a file without their index", f"Fetch {index.name} too.")
        else:
            yield from _candidates(index, [folder / part for part in parts])


def _unusable(path: Path, title: str, refused: str) -> Candidate:
    size = path.stat().st_size if path.exists() else 0
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
            _bytes(header.tensors, content),
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


def _bytes(tensors: Mapping[str, object], content: Content) -> int:
    return sum(
        entry.end - entry.begin  # type: ignore[attr-defined]
        for name, entry in tensors.items()
        if name.startswith(content.prefix)
    )


def _tokenizers(folder: Path, names: list[str]) -> Iterator[Candidate]:
    have = set(names)
    if not have & {"tokenizer.json", "vocab.json", "spiece.model"}:
        return
    component = tokenizer_kind(folder)
    if component is None:
        return
    size = sum((folder / name).stat().st_size for name in names if (folder / name).exists())
    refused = ""
    if component == "tokenizer_2" and "tokenizer.json" not in have:
        refused = "spiece.model alone is no T5 tokenizer here: tokenizer.json is needed beside it."
    yield Candidate(component, folder, "tokenizer", TITLES[component], min(size, 50_000_000), refused)


def tokenizer_kind(folder: Path) -> ComponentName | None:
    """`tokenizer` for CLIP's, `tokenizer_2` for T5's; None for others."""
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            model = json.loads(file.read_text(encoding="utf-8"))["model"]
            kind, suffix = model.get("type"), model.get("end_of_word_suffix")
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        if kind == "Unigram":
            return "tokenizer_2"
        return "tokenizer" if suffix == "</w>" else None
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        with (folder / "vocab.json").open(encoding="utf-8", errors="replace") as vocabulary:
            return "tokenizer" if "</w>" in vocabulary.read(200_000) else None
    return "tokenizer_2" if (folder / "spiece.model").is_file() else None


# Choosing.


def choose(config: ModelConfig, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates, with one of each component chosen where one can be, and the reason for each.

    A file under the configured name comes first, then the most exact kind. Transformers of other names are other
    models, whatever their shapes say: several are never guessed between.
    """
    judged: list[Candidate] = []
    groups: dict[ComponentName, list[Candidate]] = {}
    for each in candidates:
        if each.component is None or each.refused:
            judged.append(replace(each, reason=each.refused))
        elif each.component == "transformer" and each.guidance is not None and each.guidance != config.guidance:
            judged.append(replace(each, reason=f"{config.title} is of the other kind (guidance)"))
        else:
            groups.setdefault(each.component, []).append(each)
    for component, group in groups.items():
        source = config.components.get(component)
        judged += _choose_one(component, group, Path(source.path).name if source else "", config)
    return judged


def _choose_one(
    component: ComponentName, group: list[Candidate], configured: str, config: ModelConfig
) -> list[Candidate]:
    group = sorted(group, key=lambda each: (each.name != configured, _rank(each.kind), str(each.path)))
    if component == "transformer":
        wanted = {model_stem(Path(configured)), _plain(config.name), _plain(config.title)}
        stems = {model_stem(each.path) for each in group}
        if len(stems) > 1:
            own = [each for each in group if model_stem(each.path) in wanted]
            if not own:
                return [replace(each, reason="one of several models: name it with --transformer") for each in group]
            strangers = [
                replace(each, reason="another model: name it with --transformer") for each in group if each not in own
            ]
            return _first(own, configured) + strangers
    return _first(group, configured)


def _first(group: list[Candidate], configured: str) -> list[Candidate]:
    best, *rest = group
    why = "the configured name" if best.name == configured else "the only one" if not rest else f"{best.kind} first"
    return [replace(best, chosen=True, reason=why)] + [
        replace(each, reason=f"{best.name} comes first ({best.kind})") for each in rest
    ]


def _rank(kind: str) -> int:
    return next((place for place, known in enumerate(_ORDER) if kind == known or kind.startswith(known + "_")), 99)


def model_stem(path: Path) -> str:
    """A model's name without what says how its numbers are stored: `flux1-dev-Q8_0.gguf` is `flux1dev`."""
    name = path.name.removesuffix(INDEX)
    for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
        name = name.removesuffix(suffix)
    previous = ""
    while previous != name:
        previous, name = name, _KIND_WORDS.sub("", name)
    plain = _plain(name)
    if plain not in _GENERIC:
        return plain
    for parent in path.parents:  # a diffusers folder: the repository's name
        cached = re.fullmatch(r"models--.+--(.+)", parent.name)
        if cached:
            return _plain(cached[1])
        if _plain(parent.name) not in {*_GENERIC, "snapshots"} and not re.fullmatch(r"[0-9a-f]{40}", parent.name):
            return _plain(parent.name)
    return plain


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def with_weights(
    config: ModelConfig,
    folders: Iterable[str],
    cache: Path | None = None,
    named: Iterable[str] = (),
    undecided: bool = False,
) -> tuple[ModelConfig, list[Candidate]]:
    """A model with its components taken from folders, as far as they have them.

    Args:
        cache: the Hub's cache, where the rest is looked for in other revisions and layouts.
        named: components that were given as files of their own, which stay.
        undecided: do not refuse where several transformers are found: none is chosen.

    Returns:
        The model, and everything that was found with the reasons.

    Raises:
        ConfigError: a folder is not there, or several transformers are and none is named.
    """
    given = set(named)
    judged = choose(config, scan(from_home(folder).absolute() for folder in folders))
    components = dict(config.components)
    for each in judged:
        if each.chosen and each.component is not None and each.component not in given:
            components[each.component] = Source(path=str(each.path))
    torn = [each for each in judged if each.reason.startswith("one of several models")]
    if torn and "transformer" not in given and not undecided:
        listed = "; ".join(f"{each.path} ({each.kind})" for each in torn)
        raise ConfigError(
            f"--weights holds several transformers, and nothing says which is meant: {listed}. Name one with "
            "--transformer FILE."
        )
    found = {each.component for each in judged if each.chosen}
    if cache is not None:
        judged += _from_cache(config, components, cache, found | given)
    return config.model_copy(update={"components": components}), judged


def _from_cache(
    config: ModelConfig, components: dict[ComponentName, Source], cache: Path, have: set[str | None]
) -> list[Candidate]:
    """Take what is still missing from other revisions and layouts of the same repositories in the Hub's cache."""
    from huggingface_hub.file_download import repo_folder_name

    judged: list[Candidate] = []
    missing = [name for name, source in config.components.items() if name not in have and source.repo is not None]
    repositories = {source.repo for name in missing if (source := config.components[name]).repo}
    folders = [cache / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots" for repo in sorted(repositories)]
    for each in choose(config, scan(folder for folder in folders if folder.is_dir())):
        if each.component in missing:
            judged.append(each)
            if each.chosen and each.component is not None:
                components[each.component] = Source(path=str(each.path))
    return judged
