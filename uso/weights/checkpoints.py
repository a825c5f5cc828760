"""Released weights files -> diffusers and transformers modules: strict, tensor by tensor, with the LoRA folded in.

Modules are built on the meta device. Each parameter is read, folded, cast and placed by itself, so the host never holds
more than the final weights and one tensor. Nothing is downloaded or filled in: a missing, surplus, misshapen or
truncated tensor stops the load.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from uso.errors import CheckpointError
from uso.transformer.context_embedder import ContextEmbedder
from uso.weights.layouts import (
    COMFY_PREFIX,
    Part,
    autoencoder_part,
    flux_part,
    lora_modules,
    lora_target,
    projector_part,
    source_shapes,
)
from uso.weights.tensor_files import TensorFiles, check_shapes

logger = logging.getLogger(__name__)

Device = torch.device | str | Callable[[str], torch.device]
"""Target of a whole component, or a function from a parameter's name to its target."""

OnTensor = Callable[[int], None]
"""Called with the size in bytes of each parameter after it is placed."""


class Lora:
    """USO's LoRA, checked against a transformer. `change` computes what it adds to rows of a FLUX weight."""

    def __init__(self, files: TensorFiles, transformer: Any, scale: float) -> None:
        self.files = files
        self.scale = scale
        self._modules: dict[str, str] = {}
        shapes = {name: tuple(parameter.shape) for name, parameter in transformer.named_parameters()}
        parts = {name: flux_part(name) for name in shapes}
        weights = source_shapes(parts, shapes)
        expected: dict[str, tuple[int, ...]] = {}
        for module in lora_modules(len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)):
            target = lora_target(module)
            rows, columns = weights[target]
            if target.endswith("linear1.weight"):
                rows = 3 * columns  # only query, key and value of the fused matrix
            rank = files.shapes.get(f"{module}.down.weight", (0,))[0]
            expected[f"{module}.down.weight"] = (rank, columns)
            expected[f"{module}.up.weight"] = (rows, rank)
            self._modules[target] = module
        check_shapes(files, expected)

    def change(self, source: str, start: int, stop: int) -> torch.Tensor | None:
        """What the LoRA adds to rows [start, stop) of a FLUX tensor, in float32; None if nothing."""
        module = self._modules.get(source)
        if module is None or start >= self.files.shapes[f"{module}.up.weight"][0]:
            return None
        up = self.files.rows(f"{module}.up.weight", start, stop).float()
        return self.scale * (up @ self.files.whole(f"{module}.down.weight").float())


def _fill(
    module: nn.Module,
    files: TensorFiles,
    part_of: Callable[[str], Part],
    *,
    dtype: torch.dtype,
    device: Device,
    lora: Lora | None = None,
    on_tensor: OnTensor | None = None,
) -> None:
    """Load every parameter of a module that is on the meta device."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    names_of = _tied_names(module)
    parts = {name: part_of(name) for name in shapes}
    check_shapes(files, source_shapes(parts, shapes))
    for name, shape in shapes.items():
        part = parts[name]
        start = sum(shapes[other][0] for other in part.fused[: part.index])
        stop = start + shape[0] if part.fused else files.shapes[part.source][0]
        tensor = _read(
            files, part, start, stop, dtype, lora, lora_part=flux_part(name) if lora else None, shapes=shapes
        )
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
    lora: Lora | None,
    lora_part: Part | None,
    shapes: Mapping[str, tuple[int, ...]],
) -> torch.Tensor:
    """One parameter in its final dtype, the LoRA folded in in float32, in its own memory."""
    stored = files.rows(part.source, start, stop) if part.fused else files.whole(part.source)
    if not stored.dtype.is_floating_point:
        raise CheckpointError(f"{files.where(part.source)}: {part.source} holds {stored.dtype}, not floating point.")
    if lora is not None and lora_part is not None:
        first = sum(shapes[other][0] for other in lora_part.fused[: lora_part.index])
        change = lora.change(lora_part.source, first, first + stored.shape[0])
        if change is not None:
            return change.add_(stored.float()).to(dtype)
    if part.swap_halves:
        return torch.cat(stored.chunk(2)[::-1]).to(dtype)
    return stored.to(dtype, copy=True)


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


def load_transformer(
    config: Mapping[str, Any],
    paths: list[Path],
    *,
    lora: list[Path] | None = None,
    lora_scale: float = 1.0,
    dtype: torch.dtype = torch.bfloat16,
    device: Device = "cpu",
    on_tensor: OnTensor | None = None,
) -> FluxTransformer2DModel:
    """FLUX's transformer from a single file (FLUX's names, with or without ComfyUI's prefix) or a diffusers folder.

    Args:
        config: the `config.json` of `FluxTransformer2DModel`.
        paths: its safetensors files.
        lora: USO's `dit_lora.safetensors`, folded as `W + lora_scale * up @ down` in float32.

    Raises:
        CheckpointError: naming file, key and shapes.
    """
    with init_empty_weights():
        transformer = FluxTransformer2DModel.from_config(dict(config))
    with ExitStack() as stack:
        files = stack.enter_context(TensorFiles(paths, prefix=COMFY_PREFIX))
        folded = Lora(stack.enter_context(TensorFiles(lora)), transformer, lora_scale) if lora else None
        stock = any(name.startswith("transformer_blocks.") for name in files.shapes)
        part_of = Part if stock else flux_part
        _fill(transformer, files, part_of, dtype=dtype, device=device, lora=folded, on_tensor=on_tensor)
    return transformer.eval()


def load_autoencoder(
    config: Mapping[str, Any],
    paths: list[Path],
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
    on_tensor: OnTensor | None = None,
) -> AutoencoderKL:
    """FLUX's autoencoder from `ae.safetensors` or a diffusers folder; `config` is that of `AutoencoderKL`."""
    with init_empty_weights():
        autoencoder = AutoencoderKL.from_config(dict(config))
    levels = len(autoencoder.config.block_out_channels)
    with TensorFiles(paths) as files:
        stock = any(name.startswith("encoder.down_blocks.") for name in files.shapes)
        part_of = Part if stock else lambda name: autoencoder_part(name, levels)
        _fill(autoencoder, files, part_of, dtype=dtype, device=device, on_tensor=on_tensor)
    return autoencoder.eval()


def load_context_embedder(
    paths: list[Path],
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: Device = "cpu",
    on_tensor: OnTensor | None = None,
) -> ContextEmbedder:
    """USO's style projector; sizes come from the file. `USOPipeline` adds the text projection."""
    with TensorFiles(paths) as files:
        pool = files.shapes.get("feature_embedder.high_embedding_linear.0.weight", (64, 729))
        projection = files.shapes.get("feature_embedder.high_projection.weight", (3072, 1152))
        with init_empty_weights():
            embedder = ContextEmbedder(
                image_tokens=pool[1], image_dim=projection[1], style_tokens=pool[0], hidden_size=projection[0]
            )
        _fill(embedder, files, projector_part, dtype=dtype, device=device, on_tensor=on_tensor)
    return embedder.eval()


def load_text_encoder(config: Mapping[str, Any], paths: list[Path], **placing: Any) -> CLIPTextModel:
    """The CLIP text model, from files with or without the `text_model.` prefix."""
    with init_empty_weights():
        model = CLIPTextModel(CLIPTextConfig(**config))
    return _encoder(model, paths, "text_model.", **placing)


def load_text_encoder_2(config: Mapping[str, Any], paths: list[Path], **placing: Any) -> T5EncoderModel:
    """The T5 encoder. The embedding may be stored once, or under both of its names."""
    with init_empty_weights():
        model = T5EncoderModel(T5Config(**config))
    model.encoder.embed_tokens.weight = model.shared.weight
    return _encoder(model, paths, "", **placing)


def load_image_encoder(config: Mapping[str, Any], paths: list[Path], **placing: Any) -> SiglipVisionModel:
    """The SigLIP vision model, from a file of its own or one that holds the text model too."""
    with init_empty_weights():
        model = SiglipVisionModel(SiglipVisionConfig(**config))
    return _encoder(model, paths, "vision_model.", **placing)


_T5_SECOND_NAME = "encoder.embed_tokens.weight"


def _encoder(
    model: Any,
    paths: list[Path],
    prefix: str,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: Device = "cpu",
    on_tensor: OnTensor | None = None,
) -> Any:
    with TensorFiles(paths) as probe:
        nested = bool(prefix) and any(name.startswith(prefix) for name in probe.shapes)
    with TensorFiles(paths, prefix=prefix if nested else "", only_prefixed=nested) as files:
        # Old exports hold position ids, a buffer that the class creates itself.
        files.shapes.pop("embeddings.position_ids", None)
        if isinstance(model, T5EncoderModel):
            files.shapes.pop(_T5_SECOND_NAME, None)
        _fill(model, files, Part, dtype=dtype, device=device, on_tensor=on_tensor)
    return model.eval()
