"""Weights files of many kinds, written from the golden transformer, and what each kind's numbers are worth.

The values are computed here with numpy and plain formulas, apart from the code that reads them.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file

from uso.config import ROOT
from uso.weights.formats.layouts import flux_part

GOLDEN = ROOT / "tests" / "golden" / "case-a"
FLUX = GOLDEN / "flux1.safetensors"

Tensors = dict[str, torch.Tensor]
Written = tuple[Path, Tensors]
"""A file, and its numbers by FLUX's names in float32."""

FP8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def flux_tensors() -> Tensors:
    return load_file(FLUX)


def matrices(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if tensor.dim() == 2]


def plain(
    folder: Path, dtype: torch.dtype = torch.bfloat16, name: str = "flux.safetensors", prefix: str = ""
) -> Written:
    stored = {key: value.to(dtype) for key, value in flux_tensors().items()}
    save_file({prefix + key: value for key, value in stored.items()}, folder / name)
    return folder / name, {key: value.float() for key, value in stored.items()}


def fp8(folder: Path, kind: str) -> Written:
    return plain(folder, FP8[kind], f"fp8-{kind}.safetensors")


def fp8_scaled(folder: Path, marks: str, rows: bool = False) -> Written:
    """ComfyUI's scaled fp8: `old` (scale_weight, a mark for the file) or `new` (weight_scale and comfy_quant)."""
    stored: Tensors = {}
    worth: Tensors = {}
    for key, value in flux_tensors().items():
        stored[key], worth[key] = value, value.float()
        if value.dim() != 2:
            continue
        amax = value.float().abs().amax(dim=1 if rows else (0, 1), keepdim=rows).clamp(min=1e-6)
        scale = amax / 448
        packed = (value.float() / scale).to(torch.float8_e4m3fn)
        base = key.removesuffix(".weight")
        stored[key], worth[key] = packed, packed.float() * scale
        flat = scale.squeeze(-1) if rows else scale.reshape(())
        if marks == "old":
            stored[f"{base}.scale_weight"] = flat
            stored[f"{base}.scale_input"] = torch.ones(())
        else:
            stored[f"{base}.weight_scale"] = flat
            text = json.dumps({"format": "float8_e4m3fn"}).encode()
            stored[f"{base}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    if marks == "old":
        stored["scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
    path = folder / f"scaled-{marks}{'-rows' if rows else ''}.safetensors"
    save_file({key: value.contiguous() for key, value in stored.items()}, path)
    return path, worth


def gguf_file(folder: Path, kind: str) -> Written:
    """FLUX in GGUF: matrices of `kind` where their width allows, the rest in float32."""
    number = gguf.GGMLQuantizationType[kind]
    block, _ = gguf.GGML_QUANT_SIZES[number]
    path = folder / f"flux1-dev-{kind}.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    worth: Tensors = {}
    for key, value in flux_tensors().items():
        numbers = value.float().numpy()
        if value.dim() == 2 and value.shape[1] % block == 0:
            packed = _quantised(numbers, number)
            writer.add_tensor(key, packed, raw_dtype=number)
            worth[key] = torch.from_numpy(np.array(dequantize(packed, number))).reshape(value.shape)
        else:
            writer.add_tensor(key, numbers)
            worth[key] = value.float()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, worth


def _quantised(numbers: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    try:
        return np.asarray(quantize(numbers, kind))
    except NotImplementedError:  # K-quants are only read by the package: any bytes with small scales will do
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows, columns = numbers.shape
        packed = np.random.default_rng(0).integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
        half = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
        at = {"Q6_K": [size - 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q3_K": [size - 2], "Q2_K": [size - 4, size - 2]}
        for start in at[kind.name]:
            packed[..., start : start + 2] = half
        return packed.reshape(rows, -1)


NF4 = torch.tensor(
    [
        -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
    ]
)  # fmt: skip


def nf4(folder: Path) -> Written:
    """bitsandbytes' nf4 with plain scales, blocks of 64."""
    stored: Tensors = {}
    worth: Tensors = {}
    for key, value in flux_tensors().items():
        stored[key], worth[key] = value, value.float()
        if value.dim() != 2 or value.numel() % 64:
            continue
        blocks = value.float().reshape(-1, 64)
        absmax = blocks.abs().amax(dim=1).clamp(min=1e-6)
        codes = ((blocks / absmax[:, None])[..., None] - NF4).abs().argmin(dim=-1)
        flat = codes.flatten()
        stored[key] = (flat[0::2] << 4 | flat[1::2]).to(torch.uint8)[:, None]
        stored[f"{key}.absmax"], stored[f"{key}.quant_map"] = absmax, NF4.clone()
        state = json.dumps({"shape": list(value.shape), "blocksize": 64, "dtype": "bfloat16"}).encode()
        stored[f"{key}.quant_state.bitsandbytes__nf4"] = torch.tensor(list(state), dtype=torch.uint8)
        worth[key] = (NF4[codes] * absmax[:, None]).reshape(value.shape)
    path = folder / "nf4.safetensors"
    save_file(stored, path)
    return path, worth


def all_in_one(folder: Path) -> Written:
    """Transformer and autoencoder in one file, under ComfyUI's prefixes."""
    tensors = {f"model.diffusion_model.{key}": value for key, value in flux_tensors().items()}
    tensors |= {f"vae.{key}": value for key, value in load_file(GOLDEN / "ae.safetensors").items()}
    save_file(tensors, folder / "all-in-one.safetensors")
    return folder / "all-in-one.safetensors", {key: value.float() for key, value in flux_tensors().items()}


def diffusers_parts(folder: Path, names: Mapping[str, tuple[int, ...]]) -> list[Path]:
    """A diffusers folder in two parts with their index; `names`: the module's parameters and shapes."""
    tensors = flux_tensors()
    stored: Tensors = {}
    for name, shape in names.items():
        part = flux_part(name)
        start = sum(names[other][0] for other in part.fused[: part.index])
        value = tensors[part.source][start : start + shape[0]]
        stored[name] = torch.cat(value.chunk(2)[::-1]) if part.swap_halves else value.clone()
    keys = sorted(stored)
    halves = (keys[: len(keys) // 2], keys[len(keys) // 2 :])
    paths: list[Path] = []
    index: dict[str, str] = {}
    for number, half in enumerate(halves, start=1):
        path = folder / f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({key: stored[key].contiguous() for key in half}, path)
        index |= dict.fromkeys(half, path.name)
        paths.append(path)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return paths


def changed(folder: Path, change: Callable[[Tensors], None], name: str = "changed.safetensors") -> Path:
    """The golden transformer with some tensors changed."""
    tensors = flux_tensors()
    change(tensors)
    save_file(tensors, folder / name)
    return folder / name
