"""Drawn samples on disk: raw bytes in .npy shards that are mapped, not read, and their labels as JSON lines.

Why raw: a run reads every picture many times, in random order, on few cores. Decoding a PNG or WebP of 128 x 128 pixels
costs about a millisecond each time, mapping costs nothing; 100,000 pictures take 4.9 GB. Whoever keeps encoded latents
needs the shards once and may delete them. Single files for people are written by `files`.

Several processes may fill one folder: each makes its own share of the shards, and a shard is there whole or not at all.
"""

import json
import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tools.demo.world.triplets import Labels, Miniature, Sample, Triplet
from uso.errors import ConfigError

Kind = Literal["triplets", "samples"]
SHARD = 512
"""Samples per shard: 75 MB of triplets at 128 pixels."""

_DEFINITION = "definition.json"


def _pictures(data: Miniature, kind: Kind) -> int:
    """How many a sample has: content, style, target and, where some have one, second style; or the one picture."""
    if kind == "samples":
        return 1
    return 4 if data.two_styles > 0 else 3


def _shard_files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"shard-{number:05d}.npy", folder / f"shard-{number:05d}.jsonl"


def make_shards(
    folder: Path, data: Miniature, kind: Kind, count: int, first: int = 0, part: int = 0, parts: int = 1
) -> Generator[int, None, None]:
    """Write samples `first` to `first + count`; yields how many this call has made after every shard.

    Existing shards are kept, so an interrupted run continues; a folder of whole shards may grow by a
    later call with a larger `count`. `part` of `parts` processes makes every `parts`-th shard.

    Raises:
        ConfigError: the folder holds other data, or the numbers make no sense.
    """
    if count < 1 or first < 0 or not 0 <= part < parts:
        raise ConfigError(f"Cannot make {count} samples from number {first} as part {part} of {parts}.")
    folder.mkdir(parents=True, exist_ok=True)
    definition = {"kind": kind, "first": first, "shard": SHARD, "data": asdict(data), "count": count}
    _define(folder, definition)
    made = 0
    for number in range(part, -(-count // SHARD), parts):
        pixels_file, labels_file = _shard_files(folder, number)
        if pixels_file.exists() and labels_file.exists():
            continue
        indices = range(first + number * SHARD, first + min(count, (number + 1) * SHARD))
        shape = (len(indices), _pictures(data, kind), data.size, data.size, 3)
        pixels, lines = np.zeros(shape, np.uint8), []
        for place, index in enumerate(indices):
            pictures, words = _numbered(data, kind, index)
            pixels[place, : len(pictures)] = pictures
            lines.append(json.dumps(words, ensure_ascii=False) + "\n")
        _write(labels_file, "".join(lines).encode())
        draft = pixels_file.with_suffix(f".{os.getpid()}.part")
        with draft.open("wb") as file:
            np.save(file, pixels)
        draft.replace(pixels_file)
        made += len(indices)
        yield made


def _numbered(data: Miniature, kind: Kind, index: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    if kind == "samples":
        sample = data.sample(index)
        return sample.picture[None], {"caption": sample.caption, "labels": sample.labels.as_json()}
    triplet = data.triplet(index)
    words = {"prompt": triplet.prompt, "sentence": triplet.sentence, "caption": triplet.caption}
    pictures = [triplet.content, triplet.style, triplet.target, *([] if triplet.style_2 is None else [triplet.style_2])]
    return np.stack(pictures), words | {"labels": triplet.labels.as_json()}


def _define(folder: Path, definition: dict[str, Any]) -> None:
    """Leave a note of what the folder holds, or compare with the one that is there."""
    path = folder / _DEFINITION
    if not path.exists():
        _write(path, json.dumps(definition, indent=2).encode())
        return
    written = _read_definition(folder)
    # Numbers of `Miniature` that are newer than the folder have their defaults there. They are not added to it: what
    # was encoded of its pictures is known by what is written.
    found = written | {"data": asdict(Miniature()) | written["data"]}
    whole = found.get("count", 0) % SHARD == 0
    if whole and found | {"count": definition["count"]} == definition and found["count"] < definition["count"]:
        _write(path, json.dumps(written | {"count": definition["count"]}, indent=2).encode())  # grows by whole shards
        return
    different = [key for key in definition if found.get(key) != definition[key]]
    if different:
        key = different[0]
        raise ConfigError(
            f"{folder} holds other data: its {key} is {found.get(key)}, asked for is {definition[key]}. "
            "Name an empty folder, or repeat the first call's values."
        )


def _read_definition(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / _DEFINITION).read_text(encoding="utf-8")))


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    draft.write_bytes(content)
    draft.replace(path)


@dataclass(frozen=True)
class Shards:
    """A folder of shards: `shards[index]` is a `Triplet` or a `Sample`, its pixels mapped from disk.

    Raises:
        ConfigError: (from `open`) the folder holds no shards, or some are missing.
    """

    folder: Path
    kind: Kind
    count: int
    shard: int

    @classmethod
    def open(cls, folder: Path) -> "Shards":
        path = folder / _DEFINITION
        if not path.is_file():
            raise ConfigError(f"{folder} holds no shards of drawn data. Make some: python -m tools.demo data")
        found = _read_definition(folder)
        shards = cls(folder, found["kind"], found["count"], found["shard"])
        missing = [
            n for n in range(-(-shards.count // shards.shard)) if not all(f.exists() for f in _shard_files(folder, n))
        ]
        if missing:
            raise ConfigError(f"{folder} lacks {len(missing)} shards. Run the call that made it again: it will go on.")
        return shards

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Triplet | Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        pixels, words = self.pixels(index), self.words[index]
        labels = Labels(**words["labels"])
        if self.kind == "samples":
            return Sample(pixels[0], words["caption"], labels)
        content, style, target, *more = pixels
        style_2 = None if labels.style_2 is None else more[0]
        return Triplet(content, style, target, words["prompt"], words["sentence"], words["caption"], labels, style_2)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """[3, 4 or 1, size, size, 3]: content, style, target and, where some triplets have one, second style, which is
        black in the others; or the one picture."""
        return mapped(_shard_files(self.folder, index // self.shard)[0])[index % self.shard]

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The numbers that define the shards: drawn again with them, they are the same bytes."""
        return _read_definition(self.folder)

    @cached_property
    def words(self) -> list[dict[str, Any]]:
        """What is written of each sample: caption, labels and, of triplets, prompt and sentence."""
        words: list[dict[str, Any]] = []
        for number in range(-(-self.count // self.shard)):
            with _shard_files(self.folder, number)[1].open(encoding="utf-8") as file:
                words += [json.loads(line) for line in file]
        return words


@lru_cache(maxsize=4096)
def mapped(path: Path) -> NDArray[Any]:
    """An array's file, mapped and not read; opened once per process."""
    return np.asarray(np.load(path, mmap_mode="r"))
