"""Measures a folder of pictures: vectors of what has none yet, then `scores.json` for all of it.

Several processes share the vectors; whichever finds all of them there writes the scores.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uso.errors import ConfigError
from uso.evaluation import features
from uso.evaluation.bench.entries import Bench
from uso.evaluation.features import Encoder, Store
from uso.evaluation.metrics import clip, dino
from uso.evaluation.metrics.csd import PUBLISHED as CSD_PUBLISHED
from uso.evaluation.metrics.csd import load_csd
from uso.evaluation.metrics.encoders import Files, find_files
from uso.evaluation.pictures import Result, file_hash
from uso.evaluation.records import FORMAT, SCORES
from uso.evaluation.scores import score
from uso.files import write_over
from uso.system.launcher import Process
from uso.weights.hub.cache import Hub

ENCODERS = ("clip", "dino", "csd")


@dataclass(frozen=True)
class Settings:
    """How to measure; `encoders` holds what was given instead of the published ones."""

    encoders: dict[str, str | None]
    device: str
    batch: int
    partial: bool
    offline: bool
    process: Process


def encoder_files(settings: Settings) -> dict[str, Files]:
    """The files of all encoders, fetched if necessary.

    Raises:
        CheckpointError, MissingWeightsError: one is not there.
    """
    published = {"clip": clip.PUBLISHED, "dino": dino.PUBLISHED, "csd": CSD_PUBLISHED}
    hub = Hub(offline=True) if settings.offline else Hub()
    return {name: find_files(settings.encoders[name], published[name], hub) for name in ENCODERS}


def loaded(name: str, files: Files, device: str) -> Encoder:
    """An encoder on its device."""
    if name == "csd":
        return load_csd(files.weights).to(device)
    return clip.ClipEncoder(files, device) if name == "clip" else dino.DinoEncoder(files, device)


def present(found: Sequence[Result], partial: bool) -> list[Result]:
    """The pictures that are there.

    Raises:
        ConfigError: none is there, or some are missing and `partial` is not set.
    """
    there = [result for result in found if result.path.is_file()]
    if len(there) < len(found) and (not there or not partial):
        first = next(result.path for result in found if not result.path.is_file())
        remedy = "add --partial to measure what is there" if there else "check the folder and --naming"
        raise ConfigError(f"{len(found) - len(there)} of {len(found)} pictures are missing, such as {first}: {remedy}.")
    return there


def measure(
    bench: Bench,
    found: Sequence[Result],
    folder: Path,
    about: dict[str, Any],
    settings: Settings,
    progress: Callable[[str], Callable[[int, int], object]],
) -> Path | None:
    """Measure pictures; returns `scores.json`, or None if other processes have not finished.

    Args:
        folder: for vectors and scores.
        about: what the record says beside, such as the model.

    Raises:
        USOError: pictures or encoders are missing or unreadable.
    """
    there = present(found, settings.partial)
    sources = encoder_files(settings)
    with ThreadPoolExecutor(features.READERS) as readers:
        hashed = list(zip(there, readers.map(lambda result: file_hash(result.path), there), strict=True))
    files = {digest: result.path for result, digest in hashed}
    for reference in bench.references.values():
        files |= dict(zip(reference.hashes, reference.files, strict=True))
    stores = {name: Store(folder, name, source.key) for name, source in sources.items()}
    for name, store in stores.items():
        store.read()
        if any(features.takes(settings.process, digest) and digest not in store.known for digest in files):
            encoder = loaded(name, sources[name], settings.device)
            features.compute(store, encoder, files, settings.batch, settings.process, progress(name))
            store.read()
    if any(features.missing(store, files) for store in stores.values()):
        return None
    prompts = sorted({result.entry.prompt for result in there if result.entry.prompt.strip()})
    texts = _texts(folder, prompts, sources["clip"], settings.device)
    known = (stores["clip"].known, stores["dino"].known, stores["csd"].known)
    record = {
        "format": FORMAT,
        "title": bench.title,
        "bench": str(bench.path.absolute()),
        "digest": bench.digest,
        **about,
        "encoders": {name: source.origin for name, source in sources.items()},
        "asked": len(found),
        "cut_prompts": clip.count_cut(sources["clip"], prompts),
        "scores": [each.plain() for each in score(bench, hashed, *known, texts)],
    }
    write_over(folder / SCORES, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return folder / SCORES


def _texts(folder: Path, prompts: Sequence[str], files: Files, device: str) -> dict[str, features.Vectors]:
    """Vectors of prompts, by prompt; each is computed once, too."""
    store = Store(folder, "clip-text", files.key)
    store.read()
    keys = {prompt: hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts}
    new = [prompt for prompt in prompts if keys[prompt] not in store.known]
    if new:
        encoder = clip.ClipEncoder(files, device)
        for start in range(0, len(new), features.CHUNK):
            part = new[start : start + features.CHUNK]
            store.add([keys[prompt] for prompt in part], encoder.text_vectors(part))
    return {prompt: store.known[keys[prompt]] for prompt in prompts}
