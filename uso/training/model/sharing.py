"""One copy of the loaded model for all processes of a machine.

The machine's first process loads it. Its tensors move into memory that belongs to no file (`memfd_create`), and every
process maps the same pages. A page is copied when a process writes to it. On systems other than Linux each process
loads for itself.
"""

import io
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn

from uso.errors import USOError
from uso.pipeline.pipeline import USOPipeline

ALIGNMENT = 64
"""Bytes; tensors begin at multiples of it, as torch's own do."""


def shares_memory() -> bool:
    """Whether the processes of a machine can share one copy."""
    return hasattr(os, "memfd_create")


def load_once(load: Callable[[], USOPipeline], process: PartialState) -> USOPipeline:
    """The pipeline of every process of a machine, loaded by the first of them.

    All processes must call it.

    Raises:
        USOError: what `load` raised, in every process.
    """
    if process.num_processes == 1 or not shares_memory():
        return load()
    moved: _Moved | USOError | None = None
    if process.is_local_main_process:
        try:
            moved = _move(load())
        except USOError as error:
            moved = error
    offered = gather_object([moved])
    mine = offered[process.process_index - process.local_process_index]  # a machine's processes have numbers in a row
    if isinstance(mine, USOError):
        raise mine
    pipeline = _mapped(mine)
    process.wait_for_everyone()  # the memory is open as long as somebody has it or its mapping
    if isinstance(moved, _Moved):
        os.close(moved.descriptor)
    return pipeline


@dataclass(frozen=True)
class _Moved:
    """A pipeline whose tensors lie in memory that other processes can map."""

    process: int
    descriptor: int
    size: int
    pickled: bytes
    """The pipeline with a `_Place` for each tensor."""


class _Place(NamedTuple):
    """Where a tensor lies in the shared memory, in bytes, and what it is."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    parameter: bool


def _move(pipeline: USOPipeline) -> _Moved:
    """Move a pipeline's tensors into shared memory. Each is emptied as soon as it is written, so that no second copy of
    the model comes to be."""
    descriptor, buffer = os.memfd_create("uso-model"), io.BytesIO()
    mover = _Mover(buffer, descriptor)
    mover.dump(pipeline)
    os.ftruncate(descriptor, mover.size)
    return _Moved(os.getpid(), descriptor, mover.size, buffer.getvalue())


class _Mover(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, descriptor: int) -> None:
        super().__init__(buffer, protocol=pickle.HIGHEST_PROTOCOL)
        self.size = ALIGNMENT
        self._descriptor = descriptor
        self._places: dict[int, _Place] = {}

    def persistent_id(self, value: Any) -> _Place | None:
        if not isinstance(value, torch.Tensor):
            return None
        place = self._places.get(id(value))  # tied weights are one tensor in two places of the model
        if place is None:
            place = _Place(self.size, tuple(value.shape), value.dtype, isinstance(value, nn.Parameter))
            self._places[id(value)] = place
            self._write(memoryview(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
            value.data = torch.empty(0, dtype=value.dtype)
        return place

    def _write(self, rest: memoryview) -> None:
        at = self.size
        while rest:
            written = os.pwrite(self._descriptor, rest, at)  # 2 GiB at most
            rest, at = rest[written:], at + written
        self.size = -(-at // ALIGNMENT) * ALIGNMENT


def _mapped(moved: _Moved) -> USOPipeline:
    pipeline: USOPipeline = _Mapper(moved).load()
    return pipeline


class _Mapper(pickle.Unpickler):
    def __init__(self, moved: _Moved) -> None:
        super().__init__(io.BytesIO(moved.pickled))
        path = f"/proc/{moved.process}/fd/{moved.descriptor}"
        self._storage: Any = torch.UntypedStorage.from_file(
            path, shared=False, nbytes=moved.size
        )  # not shared: own changes
        self._tensors: dict[int, torch.Tensor] = {}

    def persistent_load(self, place: _Place) -> torch.Tensor:
        if place.offset not in self._tensors:
            tensor = torch.empty(0, dtype=place.dtype)
            strides = torch.empty(place.shape, device="meta").stride()
            tensor.set_(self._storage, place.offset // place.dtype.itemsize, place.shape, strides)
            self._tensors[place.offset] = nn.Parameter(tensor, requires_grad=False) if place.parameter else tensor
        return self._tensors[place.offset]
