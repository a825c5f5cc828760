"""Names and shapes of the released weight files, as functions of their sizes. Pure data; nothing is read or written.

At full size they are held against the released files; at the demo model's sizes its files are held against them.
"""

import itertools
from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]

LATENT_CHANNELS = 16

TIME_CHANNELS = 256
"""Width of the sinusoidal embedding of timestep and guidance."""


@dataclass(frozen=True)
class TransformerSizes:
    """Every size the layouts of the transformer, its LoRA and the projector are made of."""

    hidden: int
    heads: int
    axes: tuple[int, int, int]
    double_blocks: int
    single_blocks: int
    context: int
    pooled: int
    guidance: bool
    lora_rank: int
    vision: int
    vision_tokens: int
    style_tokens: int
    channels: int = 4 * LATENT_CHANNELS

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True)
class AutoencoderSizes:
    levels: tuple[int, ...]
    """Channels at each resolution, the finest first."""
    blocks_per_level: int = 2


RELEASED_TRANSFORMER = TransformerSizes(
    hidden=3072,
    heads=24,
    axes=(16, 56, 56),
    double_blocks=19,
    single_blocks=38,
    context=4096,
    pooled=768,
    guidance=True,
    lora_rank=128,
    vision=1152,
    vision_tokens=729,
    style_tokens=64,
)
RELEASED_AUTOENCODER = AutoencoderSizes((128, 256, 512, 512))


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv(name: str, outputs: int, inputs: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def transformer_layout(sizes: TransformerSizes) -> Shapes:
    """Names and shapes of `flux1-dev.safetensors` (`flux1-schnell.safetensors` without guidance)."""
    h, mlp = sizes.hidden, 4 * sizes.hidden
    shapes = _linear("img_in", h, sizes.channels) | _linear("txt_in", h, sizes.context)
    vectors = {"time_in": TIME_CHANNELS, "vector_in": sizes.pooled}
    if sizes.guidance:
        vectors["guidance_in"] = TIME_CHANNELS
    for name, inputs in vectors.items():
        shapes |= _linear(f"{name}.in_layer", h, inputs) | _linear(f"{name}.out_layer", h, h)
    for index, stream in itertools.product(range(sizes.double_blocks), ("img", "txt")):
        block = f"double_blocks.{index}.{stream}"
        shapes |= _linear(f"{block}_mod.lin", 6 * h, h)
        shapes |= _linear(f"{block}_attn.qkv", 3 * h, h) | _linear(f"{block}_attn.proj", h, h)
        shapes |= {f"{block}_attn.norm.{norm}_norm.scale": (sizes.head_dim,) for norm in ("query", "key")}
        shapes |= _linear(f"{block}_mlp.0", mlp, h) | _linear(f"{block}_mlp.2", h, mlp)
    for index in range(sizes.single_blocks):
        block = f"single_blocks.{index}"
        shapes |= _linear(f"{block}.modulation.lin", 3 * h, h)
        shapes |= _linear(f"{block}.linear1", 3 * h + mlp, h) | _linear(f"{block}.linear2", h, h + mlp)
        shapes |= {f"{block}.norm.{norm}_norm.scale": (sizes.head_dim,) for norm in ("query", "key")}
    shapes |= _linear("final_layer.linear", sizes.channels, h)
    return shapes | _linear("final_layer.adaLN_modulation.1", 2 * h, h)


def lora_layout(sizes: TransformerSizes) -> Shapes:
    """Names and shapes of `dit_lora.safetensors`."""
    h, rank = sizes.hidden, sizes.lora_rank
    layers: dict[str, tuple[int, int]] = {}
    for index, stream in itertools.product(range(sizes.double_blocks), (1, 2)):
        layers[f"double_blocks.{index}.processor.qkv_lora{stream}"] = (3 * h, h)
        layers[f"double_blocks.{index}.processor.proj_lora{stream}"] = (h, h)
    for index in range(sizes.single_blocks):
        layers[f"single_blocks.{index}.processor.qkv_lora"] = (3 * h, h)
        layers[f"single_blocks.{index}.processor.proj_lora"] = (h, 5 * h)
    shapes: Shapes = {}
    for name, (outputs, inputs) in layers.items():
        shapes |= {f"{name}.down.weight": (rank, inputs), f"{name}.up.weight": (outputs, rank)}
    return shapes


def projector_layout(sizes: TransformerSizes) -> Shapes:
    """Names and shapes of `projector.safetensors`."""
    shapes: Shapes = {}
    for level in ("high", "mid", "low"):
        name = f"feature_embedder.{level}"
        shapes |= _linear(f"{name}_embedding_linear.0", sizes.style_tokens, sizes.vision_tokens)
        shapes |= _norm(f"{name}_layer_norm", sizes.vision) | _linear(f"{name}_projection", sizes.hidden, sizes.vision)
    return shapes


def _residual(name: str, outputs: int, inputs: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", inputs) | _conv(f"{name}.conv1", outputs, inputs)
    shapes |= _norm(f"{name}.norm2", outputs) | _conv(f"{name}.conv2", outputs, outputs)
    return shapes if outputs == inputs else shapes | _conv(f"{name}.nin_shortcut", outputs, inputs, kernel=1)


def _middle(name: str, width: int) -> Shapes:
    shapes = _residual(f"{name}.block_1", width, width) | _residual(f"{name}.block_2", width, width)
    shapes |= _norm(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{name}.attn_1.{part}", width, width, kernel=1)
    return shapes


def autoencoder_layout(sizes: AutoencoderSizes) -> Shapes:
    """Names and shapes of `ae.safetensors`: an encoder and a decoder, no quantization convolutions."""
    levels, last = sizes.levels, sizes.levels[-1]
    shapes = _conv("encoder.conv_in", levels[0], 3)
    width = levels[0]
    for level, outputs in enumerate(levels):
        for block in range(sizes.blocks_per_level):
            shapes |= _residual(f"encoder.down.{level}.block.{block}", outputs, width)
            width = outputs
        if level < len(levels) - 1:
            shapes |= _conv(f"encoder.down.{level}.downsample.conv", width, width)
    shapes |= _middle("encoder.mid", last) | _norm("encoder.norm_out", last)
    shapes |= _conv("encoder.conv_out", 2 * LATENT_CHANNELS, last)
    shapes |= _conv("decoder.conv_in", last, LATENT_CHANNELS) | _middle("decoder.mid", last)
    width = last
    for level, outputs in reversed(list(enumerate(levels))):
        for block in range(sizes.blocks_per_level + 1):
            shapes |= _residual(f"decoder.up.{level}.block.{block}", outputs, width)
            width = outputs
        if level > 0:
            shapes |= _conv(f"decoder.up.{level}.upsample.conv", width, width)
    return shapes | _norm("decoder.norm_out", width) | _conv("decoder.conv_out", 3, width)
