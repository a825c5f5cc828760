"""The encoders' files: where they are published, how they are fetched, and that a network takes all of them.

Weights are safetensors; a `.bin` is read, as tensors only, where a repository has nothing else. A revision is a full
commit where one is known for certain; otherwise the commit that was found is recorded with the scores.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging as their_logging

from uso.config import from_home
from uso.errors import CheckpointError
from uso.evaluation.metrics import Vectors
from uso.weights.hub.cache import Hub, fingerprint
from uso.weights.hub.errors import plain_errors
from uso.weights.hub.listing import list_files
from uso.weights.hub.transfer import Meter, fetch, publish

logger = logging.getLogger(__name__)

SAFE, BIN = "model.safetensors", "pytorch_model.bin"
_KINDS = (SAFE, BIN)
"""Weights; the first one that is there counts."""
_CONFIGS = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
_BESIDE = (*_CONFIGS, "merges.txt")
"""What is read beside the weights, where it is there."""
_COMMAND = "python -m uso evaluate score"
_LISTED = 3
"""How many wrong tensors a message names."""


@dataclass(frozen=True)
class Published:
    """A repository of the Hub, at a full commit or at a branch."""

    repo: str
    revision: str = "main"
    needs: tuple[str, ...] = ("config.json",)
    """What must lie beside the weights."""


@dataclass(frozen=True)
class Files:
    """An encoder's files on this disk."""

    folder: Path
    weights: Path
    origin: dict[str, str]
    """For the record: repository, revision and commit, or the file's name; and the fingerprint of the weights."""

    @property
    def key(self) -> str:
        """Tells weights apart."""
        return self.origin["fingerprint"][:16]


def find_files(given: str | None, published: Published, hub: Hub | None = None) -> Files:
    """An encoder's files: of a folder or file on this disk, or of a repository, fetched if necessary.

    Args:
        given: a folder, a file of weights, or a repository; None: the published one.

    Raises:
        CheckpointError, MissingWeightsError: no such files, or they cannot be fetched.
    """
    path = from_home(given) if given else None
    if path is not None and path.exists():
        weights = path if path.is_file() else _weights_in(path)
        return Files(weights.parent, weights, {"file": weights.name, "fingerprint": fingerprint([weights])})
    source = replace(published, repo=given, revision="main") if given else published
    if source.repo.count("/") != 1 or source.repo.startswith((".", "/")):
        raise CheckpointError(f"{given} is not there. Name a folder, or a repository of the Hub (OWNER/NAME).")
    folder = _fetched(source, hub or Hub())
    weights = _weights_in(folder)
    commit = folder.name
    origin = {"repo": source.repo, "revision": source.revision, "commit": commit, "file": weights.name}
    return Files(folder, weights, origin | {"fingerprint": fingerprint([weights])})


def _fetched(source: Published, hub: Hub) -> Path:
    """The folder of a repository in the cache; what is there already is used without the network."""
    commit = hub.known_commit(source.repo, source.revision)
    here = hub.snapshot(source.repo, commit) if commit else None
    if (
        here
        and all((here / name).is_file() for name in source.needs)
        and any((here / name).is_file() for name in _KINDS)
    ):
        return here
    with plain_errors(source.repo, source.revision, hub, _COMMAND):
        listing = {file.path: file for file in list_files(source.repo, source.revision, hub)}
        weights = next((name for name in _KINDS if name in listing), None)
        if weights is None:
            raise CheckpointError(f"{source.repo} holds neither {SAFE} nor {BIN}. Name another repository.")
        wanted = [listing[name] for name in (*_BESIDE, weights) if name in listing]
        absent = [file for file in wanted if file.whole(hub) is None]
        logger.info("Fetching %s, %.2f GB ...", source.repo, sum(file.size for file in absent) / 1e9)
        with Meter(sum(file.size for file in absent), 0, None) as meter:
            for file in absent:
                fetch(file, hub, meter)
        publish(wanted, hub)
    return hub.snapshot(source.repo, listing[weights].commit)


def _weights_in(folder: Path) -> Path:
    for name in _KINDS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} holds neither {SAFE} nor {BIN}. Name the folder that holds an encoder.")


def load_whole(kind: Any, files: Files, **options: Any) -> Any:
    """A network of transformers with every tensor of its files and no other, frozen, in float32, on the CPU.

    Raises:
        CheckpointError: the files lack tensors, hold others, or cannot be read.
    """
    try:
        with _quietly():
            model, report = kind.from_pretrained(
                files.folder,
                local_files_only=True,
                use_safetensors=files.weights.name == SAFE,
                output_loading_info=True,
                dtype=torch.float32,
                **options,
            )
    except (OSError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{files.folder} could not be loaded as {kind.__name__}: {said[0]}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(each) for each in report.get(what, ()))
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise CheckpointError(
                f"{files.weights} is no {kind.__name__}: {what.replace('_', ' ')}: {', '.join(names[:_LISTED])}{more}."
            )
    return model.eval().requires_grad_(False)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' bars and reports of keys: what is wrong becomes an error here."""
    level, bars = their_logging.get_verbosity(), their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity_error()
    their_logging.disable_progress_bar()
    try:
        yield
    finally:
        their_logging.set_verbosity(level)
        if bars:
            their_logging.enable_progress_bar()


def unit(vectors: torch.Tensor) -> Vectors:
    """[B, width] -> unit vectors on the CPU, in float32."""
    return np.asarray(torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy(), np.float32)


def in_batches(pictures: Iterable[Image.Image], size: int) -> Iterable[list[Image.Image]]:
    """Lists of at most `size` pictures."""
    batch: list[Image.Image] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
