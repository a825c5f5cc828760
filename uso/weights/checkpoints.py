"""Released weights files -> diffusers and transformers modules: strict, tensor by tensor, with the LoRA folded in.

Modules are built on the meta device. Each parameter is read, folded, cast and placed by itself, so the host never holds
more than the final weights and one tensor. Nothing is downloaded or filled in: a missing, surplus, misshapen or
truncated tensor stops the load.
"""

import re
from collections.abc import Callable, Mapping
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
from transformers.initialization import no_init_weights

from uso.config import ComponentName
from uso.errors import CheckpointError
from uso.transformer.context_embedder import ContextEmbedder
from uso.weights.filling import AddedLoras, Device, OnTensor, component_files, fill
from uso.weights.formats.kinds import Content, guidance
from uso.weights.formats.layouts import Part, autoencoder_part, flux_part, projector_part, source_shapes
from uso.weights.formats.patches import Patches, uso_patches
from uso.weights.formats.relatives import TITLES
from uso.weights.formats.tensor_files import HOST, TensorFiles, check_shapes


def load_transformer(
    config: Mapping[str, Any],
    paths: list[Path],
    *,
    lora: list[Path] | None = None,
    lora_scale: float = 1.0,
    added: AddedLoras = (),
    dtype: torch.dtype = torch.bfloat16,
    device: Device = "cpu",
    work: torch.device = HOST,
    on_tensor: OnTensor | None = None,
) -> FluxTransformer2DModel:
    """FLUX's transformer from a single file (FLUX's names, with or without ComfyUI's prefix) or a diffusers folder.

    Args:
        config: the `config.json` of `FluxTransformer2DModel`.
        paths: its safetensors files.
        lora: USO's `dit_lora.safetensors`, folded as `W + lora_scale * up @ down` in float32.
        added: LoRAs of a person's own, folded beside it.

    Raises:
        CheckpointError: naming file, key and shapes.
    """
    with init_empty_weights():
        transformer = FluxTransformer2DModel.from_config(dict(config))
    with ExitStack() as stack:
        files, content = stack.enter_context(component_files(paths, "transformer", work))
        part_of = _checked(transformer, paths[0], files, content)  # before a LoRA is blamed
        patches: list[Patches] = []
        if lora:
            own, _ = stack.enter_context(component_files(lora, "lora", work))
            patches.append(uso_patches(own, transformer, lora_scale))
        patches += [found for each in added if (found := each.of("transformer")) is not None]
        fill(transformer, files, part_of, dtype=dtype, device=device, patches=patches, on_tensor=on_tensor)
    return transformer.eval()


def check_transformer(config: Mapping[str, Any], paths: list[Path]) -> None:
    """Verify a transformer's files by their heads alone.

    Raises:
        CheckpointError: naming file, key and shapes.
    """
    with init_empty_weights():
        transformer = FluxTransformer2DModel.from_config(dict(config))
    with component_files(paths, "transformer", tell=False) as (files, content):
        _checked(transformer, paths[0], files, content)


def _checked(
    transformer: FluxTransformer2DModel, path: Path, files: TensorFiles, content: Content
) -> Callable[[str], Part]:
    """Where the transformer's parameters are in files that have all of them."""
    check_guidance(path, content, transformer.config.guidance_embeds)
    _check_blocks(path, files, transformer)
    part_of = Part if content.layout == "diffusers" else flux_part
    check_shapes(files, source_shapes(*_parts(transformer, part_of)))
    return part_of


def _parts(module: nn.Module, part_of: Callable[[str], Part]) -> tuple[dict[str, Part], dict[str, tuple[int, ...]]]:
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    return {name: part_of(name) for name in shapes}, shapes


_BLOCK = re.compile(r"(double_blocks|single_blocks|transformer_blocks|single_transformer_blocks)\.(\d+)\.")


def _check_blocks(path: Path, files: TensorFiles, transformer: FluxTransformer2DModel) -> None:
    """Refuse a network with other numbers of blocks, such as FLUX.1-lite, by that."""
    blocks = {(match[1].startswith("single"), match[2]) for name in files.shapes if (match := _BLOCK.match(name))}
    found = [sum(single == kind for single, _ in blocks) for kind in (False, True)]
    wanted = [len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)]
    if found != wanted and min(found):
        fewer = ": FLUX.1-lite (8B) or another cut model" if found[0] <= wanted[0] and found[1] <= wanted[1] else ""
        raise CheckpointError(
            f"{path} has {found[0]} double and {found[1]} single blocks where this model has {wanted[0]} and "
            f"{wanted[1]}{fewer}. Use a complete file of this model."
        )


def check_guidance(path: Path, content: Content, wanted: bool) -> None:
    found = guidance(content)
    if found is not None and found != wanted:
        model = "flux-dev" if found else "flux-schnell"
        raise CheckpointError(
            f"{path} is {content.title}, which {'takes' if found else 'takes no'} guidance, and this model is of the "
            f"other kind. Name the model: --model {model}."
        )


def load_autoencoder(
    config: Mapping[str, Any],
    paths: list[Path],
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
    work: torch.device = HOST,
    on_tensor: OnTensor | None = None,
) -> AutoencoderKL:
    """FLUX's autoencoder from `ae.safetensors` or a diffusers folder; `config` is that of `AutoencoderKL`."""
    with init_empty_weights():
        autoencoder = AutoencoderKL.from_config(dict(config))
    levels = len(autoencoder.config.block_out_channels)
    with component_files(paths, "vae", work) as (files, content):
        part_of = Part if content.layout == "diffusers" else lambda name: autoencoder_part(name, levels)
        fill(autoencoder, files, part_of, dtype=dtype, device=device, on_tensor=on_tensor)
    return autoencoder.eval()


def load_context_embedder(
    paths: list[Path],
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: Device = "cpu",
    work: torch.device = HOST,
    on_tensor: OnTensor | None = None,
) -> ContextEmbedder:
    """USO's style projector; all sizes come from the file. The text projection joins it in `USOPipeline`."""
    with component_files(paths, "projector", work) as (files, _):
        pool = files.shapes.get("feature_embedder.high_embedding_linear.0.weight", (64, 729))
        projection = files.shapes.get("feature_embedder.high_projection.weight", (3072, 1152))
        with init_empty_weights():
            embedder = ContextEmbedder(
                image_tokens=pool[1], image_dim=projection[1], style_tokens=pool[0], hidden_size=projection[0]
            )
        fill(embedder, files, projector_part, dtype=dtype, device=device, on_tensor=on_tensor)
    return embedder.eval()


def load_text_encoder(
    config: Mapping[str, Any], paths: list[Path], *, added: AddedLoras = (), **placing: Any
) -> CLIPTextModel:
    """The CLIP text model: by itself, beside CLIP's vision model, or out of an all-in-one file."""
    with init_empty_weights(), no_init_weights():
        model = CLIPTextModel(CLIPTextConfig(**config))
    return _encoder(model, paths, "text_encoder", added, **placing)


def load_text_encoder_2(
    config: Mapping[str, Any], paths: list[Path], *, added: AddedLoras = (), **placing: Any
) -> T5EncoderModel:
    """The T5 encoder; a decoder beside it is left out. The embedding may be stored once, or under both its names."""
    with init_empty_weights(), no_init_weights():
        model = T5EncoderModel(T5Config(**config))
    model.encoder.embed_tokens.weight = model.shared.weight
    return _encoder(model, paths, "text_encoder_2", added, **placing)


def load_image_encoder(config: Mapping[str, Any], paths: list[Path], **placing: Any) -> SiglipVisionModel:
    """The SigLIP vision model, from a file of its own or one that holds the text model too."""
    with init_empty_weights(), no_init_weights():
        model = SiglipVisionModel(SiglipVisionConfig(**config))
    return _encoder(model, paths, "image_encoder", (), **placing)


_T5_SECOND_NAME = "encoder.embed_tokens.weight"

_UNUSED: dict[str, tuple[str, ...]] = {
    "text_encoder": ("embeddings.position_ids", "logit_scale", "text_projection."),
    "text_encoder_2": ("decoder.", "lm_head.", "dec.", "output."),
    "image_encoder": ("embeddings.position_ids",),
}
"""Beginnings of names that a file may hold beside an encoder: buffers that the class makes itself, other halves."""


def _encoder(
    model: Any,
    paths: list[Path],
    component: ComponentName,
    added: AddedLoras,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: Device = "cpu",
    work: torch.device = HOST,
    on_tensor: OnTensor | None = None,
) -> Any:
    with component_files(paths, component, work) as (files, _):
        files.drop(lambda name: name.startswith(_UNUSED[component]))
        if "shared.weight" in files.shapes:
            files.drop(lambda name: name == _T5_SECOND_NAME)
        elif _T5_SECOND_NAME in files.shapes:
            files.call(_T5_SECOND_NAME, "shared.weight")
        if component == "image_encoder":
            _check_image_size(paths[0], files, model)
        else:
            _check_width(paths[0], files, model, component)
        patches = [found for each in added if (found := each.of(component)) is not None]
        fill(model, files, Part, dtype=dtype, device=device, patches=patches, on_tensor=on_tensor)
    return model.eval()


def _check_width(path: Path, files: TensorFiles, model: Any, component: ComponentName) -> None:
    """Refuse a CLIP or T5 of another size by its size."""
    name = "shared.weight" if component == "text_encoder_2" else "embeddings.token_embedding.weight"
    found, wanted = files.shapes.get(name), tuple(model.get_parameter(name).shape)
    if found is not None and len(found) == 2 and found != wanted:
        raise CheckpointError(
            f"{path} is a text encoder of another size ({found[0]} tokens, {found[1]} wide); {TITLES[component]} has "
            f"{wanted[0]} tokens and is {wanted[1]} wide."
        )


def _check_image_size(path: Path, files: TensorFiles, model: Any) -> None:
    """Refuse a SigLIP of another size by its size."""
    positions = files.shapes.get("embeddings.position_embedding.weight", (0,))[0]
    patches = files.shapes.get("embeddings.patch_embedding.weight", (0,))
    own = model.config
    wanted = (own.image_size // own.patch_size) ** 2
    if len(patches) == 4 and (positions, patches[-1]) != (wanted, own.patch_size):
        side = round(positions**0.5) * patches[-1]
        raise CheckpointError(
            f"{path} is a SigLIP for images of {side} x {side} pixels in patches of {patches[-1]}; this model reads "
            f"{own.image_size} x {own.image_size} in patches of {own.patch_size}. Use siglip-so400m-patch14-384."
        )
