"""Reads several weights files as one, tensor by tensor: dequantises, and refuses shapes other than the needed ones.

Safetensors in bf16, fp16, fp32 and fp8 (plain, or with scales beside the weights), bitsandbytes' nf4, and GGUF. Knows
nothing of models: which names and shapes are needed is the caller's business (`layouts.py`).
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.quantizers.gguf.utils import dequantize_functions
from gguf import GGML_QUANT_SIZES, GGUFReader
from gguf.quants import dequantize
from safetensors import SafetensorError, safe_open

from uso.errors import CheckpointError
from uso.weights.formats.headers import Header, read_headers
from uso.weights.formats.kinds import comfy_quant_format

_LISTED = 3
"""How many wrong keys a message names; the rest are counted."""

_SCALES = (".scale_weight", ".weight_scale")
"""Beside `X.weight`: ComfyUI's older and newer name for what its numbers are multiplied by."""

_BESIDE = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant")
_NF4 = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_NF4_STATE = ".quant_state.bitsandbytes__nf4"
_ALONE = ("scaled_fp8", "logit_scale", "spiece_model")
"""Marks of whole files, that are no weights."""

HOST = torch.device("cpu")

_NESTED_BLOCK = 256
"""bitsandbytes' blocks of scales that are themselves quantised."""


@dataclass(frozen=True)
class _Nf4:
    """How bitsandbytes packs a matrix: two numbers to a byte, a scale to a block."""

    shape: tuple[int, ...]
    block: int
    offset: float | None
    """Of nested scales; None where scales are plain."""
    nested: int
    """Numbers in a block of nested scales."""


@dataclass
class TensorFiles:
    """Weights files read as one: shapes from their heads, tensors one at a time. Use as a context manager."""

    paths: list[Path]
    prefix: str = ""
    """Taken off the names that have it (files of larger models nest their parts)."""
    only_prefixed: bool = False
    """Leave out names without the prefix: they belong to other parts of the larger model."""
    others: tuple[str, ...] = ()
    """Beginnings of names that belong to other parts of the larger model."""
    rename: Callable[[str], str] | None = None
    """From a name without the prefix to the one under which it is asked for."""
    device: torch.device = HOST
    """Where numbers are dequantised, and where they are handed out."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of the dequantised tensors."""
    _keys: dict[str, str] = field(default_factory=dict)
    _beside: dict[str, str] = field(default_factory=dict)
    _nf4: dict[str, _Nf4] = field(default_factory=dict)
    _readers: dict[Path, Any] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "TensorFiles":
        self.header: Header = read_headers(self.paths)
        for path in self.header.paths:
            self._readers[path] = self._open(path)
        for key in self.header.tensors:
            if (self.only_prefixed and not key.startswith(self.prefix)) or key.startswith(self.others):
                continue
            name = key.removeprefix(self.prefix)
            if name.endswith((*_BESIDE, _NF4_STATE)) or name in _ALONE or _is_nf4_part(name):
                self._beside[name] = key
                continue
            name = self.rename(name) if self.rename else name
            if name in self._keys:
                raise CheckpointError(f"{self.header.homes[key]} holds {name} twice, under two prefixes.")
            self._keys[name] = key
            self.shapes[name] = self._shape(name, key)
        self._check_beside()
        return self

    def _check_beside(self) -> None:
        """Refuse scales of weights that are not there."""
        for name, key in self._beside.items():
            base = next((name.removesuffix(ending) for ending in _SCALES if name.endswith(ending)), None)
            weight = f"{base}.weight"
            if base is not None and (self.rename(weight) if self.rename else weight) not in self._keys:
                raise CheckpointError(f"{self.header.homes[key]} holds {name} and no {weight}.")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of a tensor: as the file has them, or float32 where they were quantised."""
        return self._read(name, start, stop)

    def whole(self, name: str) -> torch.Tensor:
        shape = self.shapes[name]
        return self._read(name, 0, shape[0]) if shape else self._raw(self._keys[name])

    def drop(self, unwanted: Callable[[str], bool]) -> None:
        """Leave out tensors that the module makes itself, or has no use for."""
        for name in [name for name in self.shapes if unwanted(name)]:
            del self.shapes[name]

    def call(self, name: str, other: str) -> None:
        """Give a tensor another name."""
        self._keys[other], self.shapes[other] = self._keys[name], self.shapes.pop(name)
        for ending in _BESIDE:  # scales go by their weight's name
            if (key := self._beside.get(name.removesuffix(".weight") + ending)) is not None:
                self._beside[other.removesuffix(".weight") + ending] = key

    def where(self, name: str) -> str:
        return str(self.header.homes[self._keys[name]]) if name in self._keys else ", ".join(map(str, self.paths))

    # Inside.

    def _open(self, path: Path) -> Any:
        if self.header.gguf:
            return {tensor.name: tensor for tensor in GGUFReader(str(path)).tensors}
        try:
            return self._stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is no safetensors file that can be read ({error}).") from error

    def _raw(self, key: str, start: int | None = None, stop: int | None = None) -> torch.Tensor:
        """A tensor as it is stored."""
        reader = self._readers[self.header.homes[key]]
        tensor: torch.Tensor = reader.get_tensor(key) if start is None else reader.get_slice(key)[start:stop]
        return tensor.to(self.device)

    def _shape(self, name: str, key: str) -> tuple[int, ...]:
        if f"{key}{_NF4_STATE}" in self.header.tensors:
            values = json.loads(bytes(self._raw(f"{key}{_NF4_STATE}").tolist()))
            nested = values.get("nested_offset") if f"{key}.nested_absmax" in self.header.tensors else None
            blocks = int(values.get("nested_blocksize") or _NESTED_BLOCK)
            self._nf4[name] = _Nf4(tuple(values["shape"]), int(values["blocksize"]), nested, blocks)
            return self._nf4[name].shape
        return self.header.tensors[key].shape

    def _beside_of(self, name: str, *endings: str) -> torch.Tensor | None:
        """What a file keeps beside `X.weight`, as `X.scale_weight` or the like."""
        base = name.removesuffix(".weight")
        key = next((self._beside[base + ending] for ending in endings if base + ending in self._beside), None)
        return None if key is None else self._raw(key)

    def _read(self, name: str, start: int, stop: int) -> torch.Tensor:
        key = self._keys[name]
        if self.header.gguf:
            return self._gguf(name, key, start, stop)
        if name in self._nf4:
            return self._unpacked(self._nf4[name], key, start, stop)
        whole = (start, stop) == (0, self.shapes[name][0])
        stored = self._raw(key) if whole else self._raw(key, start, stop)
        scale = self._beside_of(name, *_SCALES)
        if stored.dtype.is_floating_point and (stored.dtype.itemsize == 1 or scale is not None):
            stored = stored.float() if stored.dtype != torch.float32 else stored.clone()
            if scale is not None:
                stored = stored.mul_(self._scale_of(name, scale, start, stop))
        return stored

    def _scale_of(self, name: str, scale: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """The factor of rows [start, stop): one number, or one for each row."""
        quant = self._beside_of(name, ".comfy_quant")
        if quant is not None:
            kind = comfy_quant_format(bytes(quant.tolist()).decode(errors="replace"))
            if not kind.startswith("float8"):
                raise CheckpointError(
                    f"{self.where(name)}: {name} is stored as {kind}, which is not read. Use the bf16, fp8 or GGUF "
                    "file."
                )
        rows = self.shapes[name][0]
        if scale.numel() == 1:
            return scale.float().reshape(())
        if scale.numel() == rows:
            return scale.float().reshape(rows, *[1] * (len(self.shapes[name]) - 1))[start:stop]
        raise CheckpointError(
            f"{self.where(name)}: {name} has scales of shape {list(scale.shape)} by blocks, which are not read. Use "
            "the bf16, fp8 or GGUF file."
        )

    def _unpacked(self, packing: _Nf4, key: str, start: int, stop: int) -> torch.Tensor:
        """Rows of a matrix in nf4, float32."""
        columns = 1
        for side in packing.shape[1:]:
            columns *= side
        first, last = start * columns, stop * columns
        packed = self._raw(key, first // 2, -(-last // 2)).flatten().long()
        indices = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[first % 2 :][: last - first]
        table = self._raw(f"{key}.quant_map").float()
        absmax = self._raw(f"{key}.absmax")
        if packing.offset is not None:
            nested = self._raw(f"{key}.nested_quant_map").float()[absmax.long()]
            factors = self._raw(f"{key}.nested_absmax").float().repeat_interleave(packing.nested)[: nested.numel()]
            absmax = nested * factors + packing.offset
        blocks = torch.arange(first, last, device=self.device) // packing.block
        return (table[indices] * absmax.float()[blocks]).reshape(stop - start, *packing.shape[1:])

    def _gguf(self, name: str, key: str, start: int, stop: int) -> torch.Tensor:
        tensor = self._readers[self.header.homes[key]][key]
        shape = self.shapes[name]
        by_rows = tensor.data.shape[0] == shape[0]
        data = torch.from_numpy(np.array(tensor.data[start:stop] if by_rows else tensor.data)).to(self.device)
        kind = tensor.tensor_type
        if not data.dtype.is_floating_point:
            block, size = GGML_QUANT_SIZES[kind]
            if kind in dequantize_functions:
                data = dequantize_functions[kind](data.view(torch.uint8).reshape(-1, size), block, size, torch.float32)
            else:
                data = self._by_package(name, data, kind)
        return data.float().reshape(stop - start, *shape[1:]) if by_rows else data.float().reshape(shape)[start:stop]

    def _by_package(self, name: str, data: torch.Tensor, kind: Any) -> torch.Tensor:
        """Kinds that diffusers does not know (IQ4_NL ...), as the gguf package reads them."""
        try:
            return torch.from_numpy(np.array(dequantize(data.cpu().numpy(), kind))).to(self.device)
        except (NotImplementedError, ValueError) as error:
            raise CheckpointError(
                f"{self.where(name)}: {name} is quantised as {kind.name}, which is not read. Use Q8_0, fp8 or bf16."
            ) from error


def _is_nf4_part(name: str) -> bool:
    return name.endswith(tuple(f".weight{ending}" for ending in _NF4))


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
