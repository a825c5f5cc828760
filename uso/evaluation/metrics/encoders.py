"""The encoders' files: where they are published, how they are fetched, and that a network takes all of them.

Weights are safetensors; a `.bin` is read, as tensors only, where a repository has nothing else. A revision is a full
commit where one is known for certain; otherwise the commit that was found is recorded with the scores.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, snapshot_download
from numpy.typing import NDArray
from PIL import Image
from transformers import logging

from uso.config import from_home
from uso.errors import CheckpointError
from uso.weights.hub.cache import Hub, fingerprint
from uso.weights.hub.errors import plain_errors

SAFE, BIN = "model.safetensors", "pytorch_model.bin"
_CONFIGS = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
_BESIDE = (*_CONFIGS, "merges.txt")
"""What is read beside the weights, where it is there."""
_COMMAND = "python -m uso evaluate score"
_LISTED = 3
"""How many wrong tensors a message names."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Published:
    """A repository of the Hub, at a full commit or at a branch."""

    repo: str
    revision: str = "main"


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


def find_files(given: str | None, published: Published, offline: bool = False) -> Files:
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
    source = Published(given) if given else published
    if source.repo.count("/") != 1 or source.repo.startswith((".", "/")):
        raise CheckpointError(f"{given} is not there. Name a folder, or a repository of the Hub (OWNER/NAME).")
    folder = _fetched(source, offline)
    weights = _weights_in(folder)
    commit = folder.name
    origin = {"repo": source.repo, "revision": source.revision, "commit": commit, "file": weights.name}
    return Files(folder, weights, origin | {"fingerprint": fingerprint([weights])})


def _fetched(source: Published, offline: bool) -> Path:
    hub = Hub()
    options: dict[str, Any] = {"revision": source.revision, "cache_dir": hub.cache, "endpoint": hub.endpoint}
    with plain_errors(source.repo, source.revision, hub, _COMMAND):
        if offline or hub.offline:
            return Path(snapshot_download(source.repo, local_files_only=True, **options))
        found = HfApi(endpoint=hub.endpoint).list_repo_files(source.repo, revision=source.revision)
        wanted = [name for name in (*_BESIDE, SAFE if SAFE in found else BIN) if name in found]
        return Path(snapshot_download(source.repo, allow_patterns=wanted, **options))


def _weights_in(folder: Path) -> Path:
    for name in (SAFE, BIN):
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
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


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
