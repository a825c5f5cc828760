"""Changes of weights: what LoRAs add to matrices, in float32. Nothing is rounded here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from uso.weights.formats.layouts import flux_part, lora_modules, lora_target, source_shapes
from uso.weights.formats.tensor_files import TensorFiles, check_shapes

Shapes = Mapping[str, tuple[int, ...]]


class Change(Protocol):
    """What is added to a matrix."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of it, float32."""
        ...


class Patches(Protocol):
    """Gives the change of a component's parameters."""

    def change(self, name: str) -> torch.Tensor | None:
        """What is added to a parameter: float32 in the parameter's own order, None where nothing is."""
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

    def rows(self, start: int, stop: int) -> torch.Tensor:
        up = self.files.rows(self.up, start, stop).float().flatten(1)
        return self.scale * (up @ self.files.whole(self.down).float().flatten(1))


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

    def rows(self, start: int, stop: int) -> torch.Tensor:
        return self.scale * torch.kron(self._matrix(self.first), self._matrix(self.second))[start:stop]

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

    def change(self, name: str) -> torch.Tensor | None:
        part = flux_part(name)
        rows = self._shapes[name][0]
        start = sum(self._shapes[other][0] for other in part.fused[: part.index])
        found: torch.Tensor | None = None
        fused = self._by_source.get(part.source)
        if fused is not None and start < fused.shape[0]:
            found = fused.rows(start, start + rows)
            if part.swap_halves:
                found = torch.cat(found.chunk(2)[::-1])
        if (own := self._by_name.get(name)) is not None:
            found = own.rows(0, rows) if found is None else found + own.rows(0, rows)
        return found


@dataclass(frozen=True)
class NamedPatches:
    """Changes of a module, by the names of its parameters."""

    by_name: Mapping[str, Change]

    def change(self, name: str) -> torch.Tensor | None:
        found = self.by_name.get(name)
        return None if found is None else found.rows(*(0, found.shape[0]))


def total_change(patches: Iterable[Patches], name: str) -> torch.Tensor | None:
    """The sum of what several files add to a parameter; None where none of them adds anything."""
    total: torch.Tensor | None = None
    for each in patches:
        found = each.change(name)
        if found is not None:
            total = found if total is None else total.add_(found)
    return total


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
