"""Which picture belongs to which entry: names of this program and of the released `inference.py`, and what a folder of
results is made of (`run.json`). No torch.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uso.errors import ConfigError, OutputError
from uso.evaluation.bench.entries import Bench, Entry
from uso.files import read_text, write_over

RUN = "run.json"
NAMINGS = ("uso", "upstream")


@dataclass(frozen=True)
class Result:
    """One picture that an entry asks for, whether it is there or not."""

    entry: Entry
    index: int
    path: Path

    @property
    def seed(self) -> int:
        return self.entry.seed + self.index


def results(bench: Bench, folder: Path, naming: str = "uso") -> list[Result]:
    """Every picture that a benchmark asks for.

    Args:
        naming: `uso`: `{save_dir}_seed{seed}.png`. `upstream`: inference.py's `{save_dir}_{j}.png`; without a
            save_dir, `{place in the list}_{j}.png`, as one process of it writes.
    """
    found = []
    for entry in bench.entries:
        for index in range(entry.images):
            end = f"_{index}" if naming == "upstream" else f"_seed{entry.seed + index}"
            found.append(Result(entry, index, folder / f"{entry.id}{end}.png"))
    return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}).") from error


def claim(folder: Path, bench: Bench, made_by: dict[str, Any], reading: dict[str, Any] | None = None) -> None:
    """Record what a folder of results is made of; on later calls, make sure that it is still that.

    Args:
        reading: how the benchmark was read: arguments of `read_bench`.

    Raises:
        ConfigError: the folder holds pictures of another benchmark, model or request; names what differs.
    """
    about = {"bench": str(bench.path.absolute()), "title": bench.title, "digest": bench.digest, "made_by": made_by}
    about["reading"] = reading or {}
    about = json.loads(json.dumps(about, default=str))
    path = folder / RUN
    if not path.is_file() or not any(result.path.is_file() for result in results(bench, folder)):
        folder.mkdir(parents=True, exist_ok=True)
        write_over(path, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
        return
    before = read_run(folder)
    changes = _changes(before["made_by"], about["made_by"])
    if before["digest"] != about["digest"]:
        changes.insert(0, f"its benchmark was another ({before['title']}: prompts, seeds or references differ)")
    if changes:
        raise ConfigError(f"{folder} holds pictures of another run: {'; '.join(changes)}. Choose another --output.")


def _changes(then: dict[str, Any], now: dict[str, Any], of: str = "") -> list[str]:
    """What differs, as words; of nested records only their own differences."""
    found = []
    for key in {**then, **now}:
        before, after = then.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _changes(before, after, f"{of}{key} ")
        elif before != after:
            found.append(f"{of}{key} was {before}, is {after}")
    return found


def read_run(folder: Path) -> dict[str, Any]:
    """What `claim` recorded.

    Raises:
        ConfigError: there is no such record, or it is damaged.
    """
    path = folder / RUN
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no {RUN}, so these pictures were made elsewhere. Say for which benchmark, --bench, and "
            "how they are called, --naming."
        )
    try:
        found: dict[str, Any] = json.loads(read_text(path, "record"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}).") from error
    if not {"bench", "digest", "made_by", "title", "reading"} <= set(found):
        raise ConfigError(f"{path} is damaged: it lacks what evaluate generate writes.")
    return found
