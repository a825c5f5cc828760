"""How tensors in released files map to parameters of diffusers' modules. Pure data and functions.

A layout gives, for each parameter of a module, the tensor of a file that it comes from: a `Part`. Released FLUX files
(`flux1-dev.safetensors`, `ae.safetensors`) use their own names and fuse matrices; sizes always come from the module.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """The origin of one parameter: a tensor of a file, or some of its rows."""

    source: str
    index: int = 0
    """Position among the parameters that are fused along dimension 0."""
    fused: tuple[str, ...] = ()
    """The parameters fused in the source, in order; empty if the parameter is the whole tensor."""
    swap_halves: bool = False
    """FLUX's final modulation is (shift, scale), diffusers' is (scale, shift)."""


_TOP = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
}
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_DOUBLE_NORMS = {
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
}
_DOUBLE_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_SINGLE = {"norm.linear": "modulation.lin", "proj_out": "linear2"}
_SINGLE_NORMS = {"attn.norm_q.weight": "norm.query_norm.scale", "attn.norm_k.weight": "norm.key_norm.scale"}
_SINGLE_FUSED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}

LORA_MODULES = {
    "double_blocks": {
        "qkv_lora1": "img_attn.qkv",
        "proj_lora1": "img_attn.proj",
        "qkv_lora2": "txt_attn.qkv",
        "proj_lora2": "txt_attn.proj",
    },
    "single_blocks": {"qkv_lora": "linear1", "proj_lora": "linear2"},
}
"""USO's LoRA modules and the FLUX weight that each changes (`qkv_lora` of a single block: first rows of `linear1`)."""


def _block_part(name: str, kind: str) -> Part:
    """The part of a parameter inside a block; names lack the block's prefix."""
    plain, norms, fused = (
        (_DOUBLE, _DOUBLE_NORMS, _DOUBLE_FUSED) if kind == "double" else (_SINGLE, _SINGLE_NORMS, _SINGLE_FUSED)
    )
    if name in norms:
        return Part(norms[name])
    module, _, leaf = name.rpartition(".")
    if module in plain:
        return Part(f"{plain[module]}.{leaf}")
    for source, modules in fused.items():
        if module in modules:
            together = tuple(f"{other}.{leaf}" for other in modules)
            return Part(f"{source}.{leaf}", modules.index(module), together)
    raise KeyError(name)


def flux_part(name: str) -> Part:
    """Where a parameter of `FluxTransformer2DModel` is in `flux1-*.safetensors`."""
    match = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name)
    if match:
        kind = "single" if match[1] else "double"
        part = _block_part(match[3], kind)
        prefix = name[: match.start(3)]
        fused = tuple(prefix + other for other in part.fused)
        return Part(f"{kind}_blocks.{match[2]}.{part.source}", part.index, fused)
    module, _, leaf = name.rpartition(".")
    if module == "norm_out.linear":
        return Part(f"final_layer.adaLN_modulation.1.{leaf}", swap_halves=True)
    return Part(f"{_TOP[module]}.{leaf}")


def autoencoder_part(name: str, levels: int) -> Part:
    """Where a parameter of an `AutoencoderKL` with `levels` resolution levels is in `ae.safetensors`."""
    source = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    source = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", source)
    source = re.sub(
        r"up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)",
        lambda m: f"up.{levels - 1 - int(m[1])}." + (f"block.{m[3]}" if m[2] == "resnets" else "upsample"),
        source,
    )
    source = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", source)
    source = source.replace("mid_block.attentions.0.", "mid.attn_1.")
    for theirs, ours in (
        ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):
        source = re.sub(rf"(?<=\.){re.escape(theirs)}(?=\.)", ours, source)
    return Part(source)


def projector_part(name: str) -> Part:
    """Where a parameter of `ContextEmbedder` is in USO's `projector.safetensors`."""
    match = re.fullmatch(r"levels\.(\w+)\.(pool|norm|projection)\.(weight|bias)", name)
    if match is None:
        raise KeyError(name)
    module = {"pool": "embedding_linear.0", "norm": "layer_norm", "projection": "projection"}[match[2]]
    return Part(f"feature_embedder.{match[1]}_{module}.{match[3]}")


def lora_target(module: str) -> str:
    """The FLUX weight that a LoRA module (`double_blocks.3.processor.qkv_lora1`) changes.

    Raises:
        KeyError: USO's layout has no such module.
    """
    match = re.fullmatch(r"(double_blocks|single_blocks)\.(\d+)\.processor\.(\w+)", module)
    if match is None:
        raise KeyError(module)
    return f"{match[1]}.{match[2]}.{LORA_MODULES[match[1]][match[3]]}.weight"


def lora_modules(double_blocks: int, single_blocks: int) -> list[str]:
    """All LoRA modules of a transformer with these numbers of blocks."""
    counts = {"double_blocks": double_blocks, "single_blocks": single_blocks}
    return [
        f"{kind}.{index}.processor.{module}"
        for kind, count in counts.items()
        for index in range(count)
        for module in LORA_MODULES[kind]
    ]


def source_shapes(parts: Mapping[str, Part], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that a file must hold, from the parameters' parts and shapes."""
    expected = {}
    for name, part in parts.items():
        shape = shapes[name]
        if part.fused:
            shape = (sum(shapes[other][0] for other in part.fused), *shape[1:])
        expected[part.source] = shape
    return expected


_GGUF_T5 = {
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}
_GGUF_T5_TOP = {"token_embd.weight": "shared.weight", "enc.output_norm.weight": "encoder.final_layer_norm.weight"}


def gguf_t5_name(name: str) -> str:
    """transformers' name of a tensor that a GGUF file of T5's encoder calls by llama.cpp's."""
    match = re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)\.weight", name)
    if match is None:
        return _GGUF_T5_TOP.get(name, name)
    return f"encoder.block.{match[1]}.{_GGUF_T5.get(match[2], match[2])}.weight"
