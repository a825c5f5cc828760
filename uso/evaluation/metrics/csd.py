"""The style descriptor CSD (Somepalli et al., 2024, arXiv 2404.01292), differentiable, and its published checkpoint.

CLIP ViT-L/14's visual tower without its projection, and two matrices: one for style, one for content. The cosine of two
style vectors measures how similar two styles are. No training here, and no download.
"""

import argparse
import codecs
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

from uso.errors import CheckpointError
from uso.evaluation.metrics import CSD_HOME, Vectors
from uso.evaluation.metrics.encoders import Published
from uso.evaluation.metrics.pixels import crop_corner, prepare_picture, resized_size

PUBLISHED = Published(CSD_HOME.partition("/")[2], needs=())
"""No commit is known here for certain, so the one that is found is recorded. The repository has a `.bin` only."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, per channel of pixels in [0, 1]."""

HEAD_WIDTH = 64
"""Width of an attention head in every CLIP tower; the checkpoint does not say how many heads there are."""

_LISTED = 3
"""How many wrong keys a message names."""

_SCALAR = np.float64(0).__reduce__()[0]  # what rebuilds a numpy number
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float64DType,
    codecs.encode,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]
"""What the published file holds beside tensors (its training's arguments): plain records, named so that nothing else
may be unpickled."""


class CSD(nn.Module):
    """Pixels to style and content vectors.

    Args:
        config: of the visual tower.
        width: length of the vectors (768 in the published checkpoint).
    """

    def __init__(self, config: CLIPVisionConfig, width: int) -> None:
        super().__init__()
        self.backbone = CLIPVisionModel(config)
        self.last_layer_style = nn.Parameter(torch.empty(config.hidden_size, width))
        self.last_layer_content = nn.Parameter(torch.empty(config.hidden_size, width))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    @property
    def side(self) -> int:
        """Side of the square that the tower reads, in pixels."""
        return int(self.backbone.config.image_size)

    def features(self, prepared: torch.Tensor) -> torch.Tensor:
        """[B, 3, side, side] with CLIP's mean and deviation taken out -> [B, hidden]: the class token, normalised."""
        return self.backbone(prepared.to(self.last_layer_style.dtype)).pooler_output

    def style(self, features: torch.Tensor) -> torch.Tensor:
        """[B, hidden] -> unit vectors [B, width]."""
        return functional.normalize(features @ self.last_layer_style, dim=1)

    def content(self, features: torch.Tensor) -> torch.Tensor:
        """[B, hidden] -> unit vectors [B, width]."""
        return functional.normalize(features @ self.last_layer_content, dim=1)

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, 3, side, side]: short side resized (bicubic), centre cropped, normalised."""
        unit = (pixels.float() + 1) / 2
        height, width = unit.shape[-2:]
        resized = resized_size(width, height, self.side)
        if resized != (width, height):
            size = resized[::-1]
            unit = functional.interpolate(unit, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        left, top = crop_corner(*resized, self.side)
        cropped = unit[..., top : top + self.side, left : left + self.side]
        return (cropped - self.mean) / self.std

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Style vectors [B, width] of pixels [B, 3, H, W] in [-1, 1]; gradients reach the pixels."""
        return self.style(self.features(self.prepare(pixels)))

    @torch.inference_mode()
    def style_of(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Style vectors [B, width] of pictures, prepared by Pillow as the authors' evaluation does."""
        planes = [prepare_picture(picture, self.side, self.side, MEAN, STD) for picture in pictures]
        device = self.last_layer_style.device
        return self.style(self.features(torch.stack(planes).to(device))).float().cpu()

    def vectors(self, pictures: Sequence[Image.Image]) -> Vectors:
        """`style_of` as an array."""
        return np.asarray(self.style_of(list(pictures)).numpy())


def load_csd(path: str | Path) -> CSD:
    """The descriptor from a published checkpoint (`pytorch_model.bin` of tomg-group-umd/CSD-ViT-L, or `.pth`).

    The keys may start with `module.` and may lie under `model_state_dict`. Every key must be there and fit: a key that
    was missed in silence would leave plain CLIP. The result is frozen, in float32, on the CPU.

    Raises:
        CheckpointError: the file is missing, no such checkpoint, or lacks a tensor.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in _tensors(Path(path)).items()}
    backbone = {
        name.removeprefix("backbone."): tensor for name, tensor in state.items() if name.startswith("backbone.")
    }
    others = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}
    try:
        config = _config(backbone)
        width = int(others["last_layer_style"].shape[1])
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{path} lacks {error}: it is no CSD checkpoint.") from error
    with torch.device("meta"):
        model = CSD(config, width)
    converted = {f"backbone.{name}": tensor for name, tensor in _converted(backbone, config.num_hidden_layers).items()}
    _fit(model, converted | others, path)
    return model.eval().requires_grad_(False)


def csd_descriptor(weights: str | None) -> CSD:
    """`load_csd` by the name that configurations use.

    Raises:
        CheckpointError: no file is named, or it does not load.
    """
    if weights is None:
        raise CheckpointError(f"CSD needs its weights: pytorch_model.bin from {CSD_HOME}.")
    return load_csd(weights)


def _tensors(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is not there. CSD's weights: {CSD_HOME}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        said = str(error).splitlines()[0]
        raise CheckpointError(f"{path} could not be read as a checkpoint of tensors ({said}).") from error
    if isinstance(found, Mapping):
        found = found.get("model_state_dict", found)
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise CheckpointError(f"{path} holds no named tensors: it is no CSD checkpoint.")
    return found


def _config(state: Mapping[str, torch.Tensor]) -> CLIPVisionConfig:
    """The tower's sizes, read from its tensors (original CLIP's names)."""
    hidden, _, patch, _ = state["conv1.weight"].shape
    places = state["positional_embedding"].shape[0] - 1
    layers = {int(name.split(".")[2]) for name in state if name.startswith("transformer.resblocks.")}
    return CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=max(layers) + 1,
        num_attention_heads=max(1, hidden // HEAD_WIDTH),
        image_size=round(places**0.5) * patch,
        patch_size=patch,
        hidden_act="quick_gelu",
    )


_WHOLE = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Original CLIP's names to transformers'."""


def _converted(state: Mapping[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """Original CLIP's tensors under transformers' names; what has no such name keeps its own and is refused later."""
    result = {}
    left = dict(state)
    for old, new in _WHOLE.items():
        if old in left:
            result[new] = left.pop(old)
    for layer in range(layers):
        before, after = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            fused = left.pop(f"{before}attn.in_proj_{kind}", None)
            if fused is not None:
                for part, tensor in zip("qkv", fused.chunk(3), strict=True):
                    result[f"{after}self_attn.{part}_proj.{kind}"] = tensor
            for old, new in _BLOCK.items():
                if f"{before}{old}.{kind}" in left:
                    result[f"{after}{new}.{kind}"] = left.pop(f"{before}{old}.{kind}")
    return result | left


def published_tensors(model: CSD) -> dict[str, torch.Tensor]:
    """A descriptor's tensors by the names of the published checkpoint; `load_csd` reads them back."""
    own = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    tower = {name.removeprefix("backbone."): tensor for name, tensor in own.items() if name.startswith("backbone.")}
    result = {f"backbone.{old}": tower[new] for old, new in _WHOLE.items()}
    for layer in range(model.backbone.config.num_hidden_layers):
        before, after = f"backbone.transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            parts = [tower[f"{after}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            result[f"{before}attn.in_proj_{kind}"] = torch.cat(parts)
            result |= {f"{before}{old}.{kind}": tower[f"{after}{new}.{kind}"] for old, new in _BLOCK.items()}
    return result | {name: own[name] for name in ("last_layer_style", "last_layer_content")}


def _fit(model: CSD, state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Give the model its tensors; all of them and no others."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing, surplus = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    misshapen = [name for name in wanted if name in state and tuple(state[name].shape) != wanted[name]]
    for names, what in ((missing, "lacks"), (surplus, "holds more than CSD has:"), (misshapen, "has other shapes:")):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise CheckpointError(f"{path} {what} {', '.join(names[:_LISTED])}{more}. It was not loaded.")
    own = {name: tensor.detach().float().contiguous().clone() for name, tensor in state.items()}
    model.load_state_dict(own, strict=True, assign=True)
    for name, values in (("mean", MEAN), ("std", STD)):
        setattr(model, name, torch.tensor(values).view(1, 3, 1, 1))  # what does not come from the file was only a shape
    embeddings = model.backbone.embeddings
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings).expand((1, -1))
