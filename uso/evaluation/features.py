"""Vectors of pictures, each computed once: kept by the SHA-256 of the picture and the encoder's weights.

What is kept lies in `features/`, in files of a few hundred vectors that appear complete or not at all. A changed
picture has another hash, and another encoder another file name, so nothing stale is ever read. Processes share only
the folder: each takes the pictures whose hash falls to it.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from uso.errors import ConfigError
from uso.evaluation.metrics import Vectors
from uso.evaluation.metrics.encoders import in_batches
from uso.files import write_over
from uso.images.pixels import open_image
from uso.system.launcher import Process

FOLDER = "features"
CHUNK = 256
"""Vectors per file: what a killed run loses at most."""
READERS = 4
"""Threads that decode pictures while the encoder works; a chunk of large ones takes a gigabyte."""
VERSION = 1
"""Of preparation and encoders here; another number lets everything be computed again."""


class Encoder(Protocol):
    def vectors(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Unit vectors [N, width]."""


class Store:
    """The vectors of one encoder in a folder.

    Args:
        name, key: of the encoder and its weights.
    """

    def __init__(self, folder: Path, name: str, key: str) -> None:
        self.folder = folder / FOLDER
        self.stem = f"{name}-{key}-v{VERSION}"
        self.known: dict[str, Vectors] = {}

    def read(self) -> None:
        """Read what there is; files that are damaged are computed again."""
        for path in sorted(self.folder.glob(f"{self.stem}-*.safetensors")):
            try:
                with safe_open(path, "numpy") as file:
                    names = file.metadata()["sha256"].split()
                    self.known |= dict(zip(names, file.get_tensor("vectors"), strict=True))
            except (OSError, SafetensorError, KeyError, TypeError, ValueError):
                path.unlink(missing_ok=True)

    def add(self, names: Sequence[str], vectors: Vectors) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
        data = save({"vectors": np.ascontiguousarray(vectors)}, {"sha256": " ".join(names)})
        write_over(self.folder / f"{self.stem}-{digest}.safetensors", data)
        self.known |= dict(zip(names, vectors, strict=True))


def takes(process: Process, digest: str) -> bool:
    """Whether a picture is this process's own."""
    return int(digest[:15], 16) % process.world == process.rank


def compute(
    store: Store,
    encoder: Encoder,
    files: dict[str, Path],
    batch: int,
    process: Process,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Compute the vectors that are not known; returns how many were.

    Args:
        files: pictures by their SHA-256.

    Raises:
        ConfigError: a picture changed, or is none.
    """
    own = [digest for digest in files if digest not in store.known and takes(process, digest)]
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(own), CHUNK):
            names = own[start : start + CHUNK]
            pictures = readers.map(lambda name: _opened(files[name], name), names)
            store.add(names, np.concatenate([encoder.vectors(each) for each in in_batches(pictures, batch)]))
            progress(start + len(names), len(own))
    return len(own)


def _opened(path: Path, digest: str) -> Image.Image:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ConfigError(f"{path} changed while it was measured. Run the command again.")
    return open_image(data, str(path))


def missing(store: Store, files: Iterable[str]) -> int:
    """How many pictures have no vector yet."""
    return sum(digest not in store.known for digest in files)
