"""CLIP's, DINO's and CSD's networks written down in numpy, from their papers and released code, by the names of their
published tensors: what this program's numbers are held against. Nothing of torch or transformers computes here.
"""

from collections.abc import Callable
from math import erf

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
State = dict[str, Array]


def prepared(picture: Image.Image, side: int, short: int, mean: Array, std: Array, crop: bool = True) -> Array:
    """[side, side, 3]: torchvision's Resize, CenterCrop, ToTensor and Normalize; without the crop, squeezed."""
    width, height = picture.size
    if crop:
        scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    else:
        scaled = (side, side)
    resized = np.asarray(picture.convert("RGB").resize(scaled, Image.Resampling.BICUBIC), np.float64)
    top, left = round((scaled[1] - side) / 2.0), round((scaled[0] - side) / 2.0)
    return np.asarray((resized[top : top + side, left : left + side] / 255 - mean) / std)


def unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))


def norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    middle = x.mean(axis=-1, keepdims=True)
    spread = ((x - middle) ** 2).mean(axis=-1, keepdims=True)
    return np.asarray((x - middle) / np.sqrt(spread + epsilon) * weight + bias)


def gelu(x: Array) -> Array:
    return np.asarray(x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2))))


def quick_gelu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-1.702 * x)))


def attention(x: Array, q: Array, k: Array, v: Array, heads: int, causal: bool) -> Array:
    """[tokens, width] of projected queries, keys and values."""
    size = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        logits = q[:, own] @ k[:, own].T / np.sqrt(size)
        if causal:
            logits = np.where(np.tril(np.ones_like(logits)) > 0, logits, -np.inf)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        parts.append(weights / weights.sum(axis=-1, keepdims=True) @ v[:, own])
    return np.concatenate(parts, axis=-1)


def patches(pixels: Array, weight: Array, bias: Array | float = 0.0) -> Array:
    """[tokens, width]: a convolution whose stride is its size, row by row."""
    size, (rows, columns) = weight.shape[-1], (pixels.shape[0], pixels.shape[1])
    kernel = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    tokens = [
        pixels[top : top + size, left : left + size].reshape(-1) @ kernel + bias
        for top in range(0, rows, size)
        for left in range(0, columns, size)
    ]
    return np.stack(tokens)


def blocks(
    x: Array,
    state: State,
    prefix: str,
    names: dict[str, str],
    layers: int,
    heads: int,
    activation: Callable[[Array], Array],
    epsilon: float,
    causal: bool = False,
) -> Array:
    """Pre-norm transformer blocks; `names` says how each part is called below `prefix` and the layer's number."""
    for layer in range(layers):

        def part(what: str, kind: str, layer: int = layer) -> Array:
            return state[f"{prefix}{layer}.{names[what]}.{kind}"]

        def linear(what: str, y: Array, get: Callable[[str, str], Array] = part) -> Array:
            return np.asarray(y @ get(what, "weight").T + get(what, "bias"))

        y = norm(x, part("norm1", "weight"), part("norm1", "bias"), epsilon)
        q, k, v = (linear(name, y) for name in "qkv")
        x = x + linear("out", attention(y, q, k, v, heads, causal))
        y = norm(x, part("norm2", "weight"), part("norm2", "bias"), epsilon)
        x = x + linear("fc2", activation(linear("fc1", y)))
    return x


CLIP_NAMES = {
    **{name: f"self_attn.{name}_proj" for name in "qkv"},
    "out": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
VIT_NAMES = {
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "out": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}


def clip_picture(pixels: Array, state: State, layers: int, heads: int) -> Array:
    """The projected class token of CLIP's visual tower, not normalised."""
    own = "vision_model."
    tokens = patches(pixels, state[f"{own}embeddings.patch_embedding.weight"])
    x = np.concatenate([state[f"{own}embeddings.class_embedding"][None], tokens])
    x = x + state[f"{own}embeddings.position_embedding.weight"]
    x = norm(x, state[f"{own}pre_layrnorm.weight"], state[f"{own}pre_layrnorm.bias"], 1e-5)
    x = blocks(x, state, f"{own}encoder.layers.", CLIP_NAMES, layers, heads, quick_gelu, 1e-5)
    first = norm(x[0], state[f"{own}post_layernorm.weight"], state[f"{own}post_layernorm.bias"], 1e-5)
    return np.asarray(first @ state["visual_projection.weight"].T)


def clip_text(ids: list[int], state: State, layers: int, heads: int) -> Array:
    """The projected end token of CLIP's text tower, not normalised; `ids` ends in it, nothing is padded."""
    own = "text_model."
    x = state[f"{own}embeddings.token_embedding.weight"][ids]
    x = x + state[f"{own}embeddings.position_embedding.weight"][: len(ids)]
    x = blocks(x, state, f"{own}encoder.layers.", CLIP_NAMES, layers, heads, quick_gelu, 1e-5, causal=True)
    last = norm(x[-1], state[f"{own}final_layer_norm.weight"], state[f"{own}final_layer_norm.bias"], 1e-5)
    return np.asarray(last @ state["text_projection.weight"].T)


def dino_tokens(pixels: Array, state: State, layers: int, heads: int, epsilon: float = 1e-6) -> Array:
    """DINO's tokens after the last norm, the class token first."""
    weight, bias = (state[f"embeddings.patch_embeddings.projection.{kind}"] for kind in ("weight", "bias"))
    x = np.concatenate([state["embeddings.cls_token"][0], patches(pixels, weight, bias)])
    x = x + state["embeddings.position_embeddings"][0]
    x = blocks(x, state, "encoder.layer.", VIT_NAMES, layers, heads, gelu, epsilon)
    return norm(x, state["layernorm.weight"], state["layernorm.bias"], epsilon)


def csd_style(pixels: Array, state: State, layers: int, head: str = "style") -> Array:
    """CSD's style (or content) vector, not normalised."""
    own = {name.removeprefix("backbone."): value for name, value in state.items()}
    x = np.concatenate([own["class_embedding"][None], patches(pixels, own["conv1.weight"])])
    x = norm(x + own["positional_embedding"], own["ln_pre.weight"], own["ln_pre.bias"], 1e-5)
    names = {"norm1": "ln_1", "norm2": "ln_2", "out": "attn.out_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = np.split(own[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"], 3)
            own |= {
                f"transformer.resblocks.{layer}.{name}.{kind}": part for name, part in zip("qkv", parts, strict=True)
            }
    heads = x.shape[-1] // 64
    x = blocks(x, own, "transformer.resblocks.", names | {n: n for n in "qkv"}, layers, heads, quick_gelu, 1e-5)
    first = norm(x[0], own["ln_post.weight"], own["ln_post.bias"], 1e-5)
    return np.asarray(first @ own[f"last_layer_{head}"])
