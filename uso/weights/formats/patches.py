"""Changes of weights: what LoRAs add to matrices, in float32, a few rows at a time. Nothing is rounded here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from uso.weights.formats.layouts import flux_part, lora_modules, lora_target, source_shapes
from uso.weights.formats.tensor_files import TensorFiles, check_shapes

Shapes = Mapping[str, tuple[int, ...]]


RowsInto = Callable[[int, int, torch.Tensor], None]
"""Writes rows [start, stop) of a change over a float32 matrix of so many rows."""


class Change(Protocol):
    """What is added to a matrix."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def rows(self) -> RowsInto:
        """Reads the files; gives what writes its rows."""
        ...


class Patches(Protocol):
    """Gives the change of a component's parameters."""

    def rows(self, name: str) -> RowsInto | None:
        """What is added to a parameter, in the parameter's own order; None where nothing is."""
        ...


@dataclass(frozen=True)
class LowRank:
    """`scale * up @ down`."""

    files: TensorFiles
    up: str
    down: str
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return _rows(self.files.shapes[self.up]), _columns(self.files.shapes[self.down])

    def rows(self) -> RowsInto:
        down = self.files.whole(self.down).float().flatten(1)

        def write(start: int, stop: int, into: torch.Tensor) -> None:
            up = self.files.rows(self.up, start, stop).float().flatten(1)
            torch.mm(up, down, out=into)
            if self.scale != 1:
                into.mul_(self.scale)

        return write


@dataclass(frozen=True)
class Kronecker:
    """`scale * kron(w1, w2)`, each a matrix or a product of two."""

    files: TensorFiles
    first: tuple[str, ...]
    second: tuple[str, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        one, other = self._shape(self.first), self._shape(self.second)
        return one[0] * other[0], one[1] * other[1]

    def rows(self) -> RowsInto:
        first, second = self._matrix(self.first), self._matrix(self.second)

        def write(start: int, stop: int, into: torch.Tensor) -> None:
            upper, lower = start // len(second), -(-stop // len(second))  # the rows of the first that reach in here
            product = torch.kron(first[upper:lower], second)
            torch.mul(product[start - upper * len(second) :][: stop - start], self.scale, out=into)

        return write

    def _shape(self, names: tuple[str, ...]) -> tuple[int, int]:
        return _rows(self.files.shapes[names[0]]), _columns(self.files.shapes[names[-1]])

    def _matrix(self, names: tuple[str, ...]) -> torch.Tensor:
        parts = [self.files.whole(name).float().flatten(1) for name in names]
        return parts[0] if len(parts) == 1 else parts[0] @ parts[1]


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0]


def _columns(shape: tuple[int, ...]) -> int:
    columns = 1
    for side in shape[1:]:
        columns *= side
    return columns


class FluxPatches:
    """Changes of FLUX's transformer, by the released files' names and by diffusers'."""

    def __init__(self, shapes: Shapes, by_source: Mapping[str, Change], by_name: Mapping[str, Change]) -> None:
        self._shapes = shapes
        self._by_source = by_source
        self._by_name = by_name

    def rows(self, name: str) -> RowsInto | None:
        part = flux_part(name)
        count = self._shapes[name][0]
        start = sum(self._shapes[other][0] for other in part.fused[: part.index])
        found: list[RowsInto] = []
        fused = self._by_source.get(part.source)
        if fused is not None and start < fused.shape[0]:
            found.append(_swapped(fused.rows(), count) if part.swap_halves else _moved(fused.rows(), start))
        if (own := self._by_name.get(name)) is not None:
            found.append(own.rows())
        return _summed(found)


@dataclass(frozen=True)
class NamedPatches:
    """Changes of a module, by the names of its parameters."""

    by_name: Mapping[str, Change]

    def rows(self, name: str) -> RowsInto | None:
        found = self.by_name.get(name)
        return None if found is None else found.rows()


def total_change(patches: Iterable[Patches], name: str) -> RowsInto | None:
    """The sum of what several files add to a parameter; None where none of them adds anything."""
    return _summed([found for each in patches if (found := each.rows(name)) is not None])


def _summed(parts: list[RowsInto]) -> RowsInto | None:
    if len(parts) < 2:
        return parts[0] if parts else None

    def write(start: int, stop: int, into: torch.Tensor) -> None:
        parts[0](start, stop, into)
        for part in parts[1:]:
            part(start, stop, other := torch.empty_like(into))
            into.add_(other)

    return write


def _moved(rows: RowsInto, offset: int) -> RowsInto:
    """Those that begin at row `offset`."""
    return lambda start, stop, into: rows(start + offset, stop + offset, into)


def _swapped(rows: RowsInto, count: int) -> RowsInto:
    """`count` rows, the second half before the first."""
    half = count // 2

    def write(start: int, stop: int, into: torch.Tensor) -> None:
        for first, last, offset in ((start, min(stop, half), half), (max(start, half), stop, -half)):
            if first < last:
                rows(first + offset, last + offset, into[first - start : last - start])

    return write


def parameter_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def flux_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Of the released files' tensors."""
    return source_shapes({name: flux_part(name) for name in shapes}, shapes)


def uso_patches(files: TensorFiles, transformer: Any, scale: float) -> FluxPatches:
    """USO's LoRA: every module that its layout has, no more.

    Raises:
        CheckpointError: a tensor is missing, surplus or misshapen.
    """
    shapes = parameter_shapes(transformer)
    weights = flux_shapes(shapes)
    expected: dict[str, tuple[int, ...]] = {}
    changes: dict[str, Change] = {}
    for module in lora_modules(len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)):
        target = lora_target(module)
        rows, columns = weights[target]
        if target.endswith("linear1.weight"):
            rows = 3 * columns  # only query, key and value of the fused matrix
        rank = files.shapes.get(f"{module}.down.weight", (0,))[0]
        expected[f"{module}.down.weight"] = (rank, columns)
        expected[f"{module}.up.weight"] = (rows, rank)
        changes[target] = LowRank(files, f"{module}.up.weight", f"{module}.down.weight", scale)
    check_shapes(files, expected)
    return FluxPatches(shapes, changes, {})
