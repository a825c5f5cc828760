"""A component's tensors in files, and a module on the meta device filled with them: streamed, strict, LoRAs folded.

Each parameter is read, folded, cast and placed by itself, so the host never holds more than the final weights and one
tensor. LoRAs are folded a few rows at a time, in memory that is used again: fresh memory for each product costs as much
time as the product. Where they are folded does not depend on the memory plan. Nothing is filled in: a missing, surplus,
misshapen or truncated tensor stops the load.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from uso.config import ComponentName
from uso.errors import CheckpointError
from uso.weights.formats.headers import check_finished, read_headers
from uso.weights.formats.kinds import Content, find
from uso.weights.formats.layouts import Part, gguf_t5_name, source_shapes
from uso.weights.formats.loras import AddedLora
from uso.weights.formats.patches import Patches, RowsInto, total_change
from uso.weights.formats.tensor_files import HOST, TensorFiles, check_shapes

logger = logging.getLogger(__name__)

Device = torch.device | str | Callable[[str], torch.device]
"""Target of a whole component, or a function from a parameter's name to its target."""

AddedLoras = Sequence[AddedLora]

OnTensor = Callable[[int], None]
"""Called with the size in bytes of each parameter after it is placed."""


FOLDED_ROWS = {"cpu": 256}
"""Rows of a matrix that are folded at once: on a processor as many as its caches hold."""

COARSE = ("fp8", "Q2", "Q3", "Q4", "nf4")
"""Kinds that lose what can be seen: said in one line when such a file is loaded."""


@contextmanager
def component_files(
    paths: list[Path], component: ComponentName, work: torch.device = HOST, *, tell: bool = True
) -> Iterator[tuple[TensorFiles, Content]]:
    """A component's tensors, out of files of its own or of files that hold more.

    Args:
        work: where they are dequantised and LoRAs are folded.
        tell: log what is lost where numbers are stored coarsely.

    Raises:
        CheckpointError: it is not in there; says what the files are instead.
    """
    header = read_headers(paths)
    content, reason = find(header, component)
    if content is None:
        raise CheckpointError(f"{paths[0].parent / reason}")
    check_finished(header)
    if tell and content.storage.startswith(COARSE) and "scaled" not in content.storage:
        logger.warning(
            "%s stores its weights as %s: pictures differ visibly from those of bf16.", paths[0].name, content.storage
        )
    prefix = content.prefix + {"text_encoder": "text_model.", "image_encoder": "vision_model."}.get(component, "")
    if content.layout == "bare":
        prefix = content.prefix
    rename = gguf_t5_name if content.layout == "gguf" else None
    with TensorFiles(
        paths, prefix=prefix, only_prefixed=bool(prefix), others=content.others, rename=rename, device=work
    ) as files:
        yield files, content


def fill(
    module: nn.Module,
    files: TensorFiles,
    part_of: Callable[[str], Part],
    *,
    dtype: torch.dtype,
    device: Device,
    patches: Sequence[Patches] = (),
    on_tensor: OnTensor | None = None,
) -> None:
    """Load every parameter of a module that is on the meta device."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    names_of = _tied_names(module)
    parts = {name: part_of(name) for name in shapes}
    scratch = Scratch()
    check_shapes(files, source_shapes(parts, shapes))
    for name, shape in shapes.items():
        part = parts[name]
        start = sum(shapes[other][0] for other in part.fused[: part.index])
        stop = start + shape[0] if part.fused else files.shapes[part.source][0]
        tensor = _read(files, part, start, stop, dtype, total_change(patches, name), scratch)
        where = device(name) if callable(device) else device
        placed = nn.Parameter(tensor.reshape(shape).to(where), requires_grad=False)
        for tied in names_of[name]:
            owner, _, leaf = tied.rpartition(".")
            setattr(module.get_submodule(owner), leaf, placed)
        if on_tensor is not None:
            on_tensor(tensor.numel() * tensor.element_size())
    left = [name for name, tensor in _all_tensors(module) if tensor.is_meta]
    if left:
        raise CheckpointError(f"{files.where('')}: {left[0]} was left without a value.")


def _read(
    files: TensorFiles,
    part: Part,
    start: int,
    stop: int,
    dtype: torch.dtype,
    change: RowsInto | None,
    scratch: "Scratch",
) -> torch.Tensor:
    """One parameter in its final dtype, LoRAs folded in float32, in memory of its own."""
    stored = files.rows(part.source, start, stop) if part.fused else files.whole(part.source)
    if not stored.dtype.is_floating_point:
        raise CheckpointError(f"{files.where(part.source)}: {part.source} holds {stored.dtype}, not floating point.")
    if part.swap_halves:
        stored = torch.cat(stored.chunk(2)[::-1])
    folded = None if change is None else torch.empty(stored.shape, dtype=dtype, device=stored.device)
    if folded is not None and change is not None and fold(stored.flatten(1), change, folded.flatten(1), scratch):
        return folded
    if not _finite(stored):
        raise CheckpointError(
            f"{files.where(part.source)}: {part.source} holds NaN or infinite numbers. The file is damaged: fetch it "
            "again."
        )
    if folded is None:
        return stored.to(dtype, copy=True)
    raise CheckpointError(f"The LoRAs make {part.source} NaN or infinite: a file is damaged, or its strength too high.")


class Scratch:
    """Memory for intermediate results, used again and again; it grows to the largest."""

    def __init__(self) -> None:
        self._numbers = torch.empty(0)

    def matrix(self, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """[rows, columns], float32, with what was left there."""
        if self._numbers.numel() < rows * columns or self._numbers.device != device:
            self._numbers = torch.empty(rows * columns, device=device)
        return self._numbers[: rows * columns].view(rows, columns)


def fold(stored: torch.Tensor, change: RowsInto, into: torch.Tensor, scratch: Scratch) -> bool:
    """Write `stored + change`, summed in float32, over another matrix; False if a sum is not finite."""
    rows, columns = stored.shape
    step = FOLDED_ROWS.get(stored.device.type, rows)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        some = scratch.matrix(stop - start, columns, stored.device)
        change(start, stop, some)
        if not _finite(some.add_(stored[start:stop])):
            return False
        into[start:stop] = some
    return True


def _finite(numbers: torch.Tensor) -> bool:
    """One sum tells, unless it overflows. Asked for in float32, it would first copy the numbers to float32."""
    return bool(torch.isfinite(numbers.sum())) or bool(torch.isfinite(numbers).all())


def _tied_names(module: nn.Module) -> dict[str, list[str]]:
    """For each parameter's first name, all of its names (T5's embedding has two)."""
    first: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(first.setdefault(id(parameter), name), []).append(name)
    return names


def _all_tensors(module: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
