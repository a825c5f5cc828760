"""Several safetensors files read as one, tensor by tensor, and checked strictly against the expected shapes.

Knows nothing of models: the caller says which names and shapes it expects (`uso.weights.layouts`).
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from uso.errors import CheckpointError

_LISTED = 3
"""How many wrong keys a message names; the rest are counted."""

_HEADER_LENGTH_BYTES = 8


@dataclass
class TensorFiles:
    """Several safetensors files read as one: shapes from headers, tensors one at a time. A context manager."""

    paths: list[Path]
    prefix: str = ""
    """Removed from keys that have it; files of larger models nest their parts."""
    only_prefixed: bool = False
    """Skip keys without the prefix, which belong to other parts of a larger model."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _homes: dict[str, tuple[Any, str, Path]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "TensorFiles":
        for path in self.paths:
            check_complete(path)
            try:
                handle = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is not a readable safetensors file ({error}).") from error
            for key in handle.keys():  # noqa: SIM118 - the handle is no mapping
                if self.only_prefixed and not key.startswith(self.prefix):
                    continue
                name = key.removeprefix(self.prefix)
                if name in self._homes:
                    raise CheckpointError(f"{path} holds {key} a second time (first in {self._homes[name][2].name}).")
                self._homes[name] = (handle, key, path)
                self.shapes[name] = tuple(handle.get_slice(key).get_shape())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of a tensor, as stored."""
        handle, key, _ = self._homes[name]
        rows: torch.Tensor = handle.get_slice(key)[start:stop]
        return rows

    def whole(self, name: str) -> torch.Tensor:
        handle, key, _ = self._homes[name]
        tensor: torch.Tensor = handle.get_tensor(key)
        return tensor

    def where(self, name: str) -> str:
        return str(self._homes[name][2]) if name in self._homes else ", ".join(map(str, self.paths))


def check_complete(path: Path) -> None:
    """Refuse a truncated safetensors file, naming the first incomplete tensor.

    Raises:
        CheckpointError: not safetensors, or fewer bytes than its header promises.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a .safetensors file; only that format is loaded (others can run code).")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
            start = _HEADER_LENGTH_BYTES + length
            if size < start:
                raise CheckpointError(f"{path} is truncated: {size} bytes, and its header alone takes {start}.")
            header = json.loads(file.read(length))
        entries = sorted(
            (start + entry["data_offsets"][1], key, entry["shape"])
            for key, entry in header.items()
            if key != "__metadata__"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}).") from error
    for end, key, shape in entries:
        if end > size:
            raise CheckpointError(
                f"{path} is truncated: {key} of shape {shape} ends at byte {end}, and the file has {size} (complete: "
                f"{entries[-1][0]}). Fetch it again."
            )


def check_shapes(files: TensorFiles, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the tensors in files with the expected ones.

    Raises:
        CheckpointError: gives file, key and both shapes of tensors that are missing, surplus or misshapen.
    """
    problems = []
    for name in expected.keys() - files.shapes.keys():
        problems.append(f"{files.where(name)}: {name} is missing (expected shape {list(expected[name])}, found none)")
    for name in files.shapes.keys() - expected.keys():
        problems.append(
            f"{files.where(name)}: {name} is surplus (found shape {list(files.shapes[name])}, expected none)"
        )
    for name in expected.keys() & files.shapes.keys():
        found = files.shapes[name]
        if found != expected[name] and found != (*expected[name], 1, 1):  # a 1 x 1 convolution used as a linear layer
            problems.append(f"{files.where(name)}: {name} has shape {list(found)}, expected {list(expected[name])}")
    if problems:
        problems.sort()
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise CheckpointError(f"{'; '.join(problems[:_LISTED])}{more}. The file does not fit this model.")
