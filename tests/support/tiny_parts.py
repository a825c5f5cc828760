"""Parts of the demo model at sizes that learn in seconds, and drawn pictures for them."""

from pathlib import Path

from tools.demo.parts.descriptor import FILE
from tools.demo.shards.shards import Kind, make_shards
from tools.demo.training.config import PartConfig, load_part_config
from tools.demo.world.triplets import Miniature

SIDE = 64
TINY: dict[str, str] = {
    "tokenizers": "{clip_vocabulary: 600, t5_pieces: 700, t5_length: 32}",
    "autoencoder": f"{{widths: [32, 32, 32, 32], blocks: 1, groups: 8, sample_size: {SIDE}}}",
    "image-encoder": f"{{width: 32, layers: 20, heads: 2, image_size: {SIDE}, patch_size: 16, text_layers: 1}}",
    "base": "{transformer: {num_layers: 1, num_single_layers: 1, attention_head_dim: 16, num_attention_heads: 2, "
    "axes_dims_rope: [4, 6, 6]}, text_encoder: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, "
    "num_attention_heads: 2}, text_encoder_2: {d_model: 32, d_kv: 16, d_ff: 64, num_layers: 1, num_heads: 2}, "
    "style_tokens: 2}",
    "reward-descriptor": f"{{width: 64, layers: 1, image_size: {SIDE}, patch_size: 16, vector: 16}}",
}
"""Sizes at which a part learns in seconds."""


def shards(folder: Path, kind: Kind, count: int = 12) -> Path:
    for _ in make_shards(folder, Miniature(size=SIDE), kind, count):
        pass
    return folder


def tiny(name: str, folder: Path, data: Path, *overrides: str) -> PartConfig:
    """A run of a part as it ships, but small."""
    extended = {"decoder": "autoencoder", "guidance": "base"}.get(name, name)
    sizes = [f"architecture={TINY[extended]}"] if extended in TINY else []
    if name == "base":
        sizes.append(f"alignment.descriptor={folder / 'reward-descriptor' / FILE}")
    common = [f"output={folder / name}", f"model_folder={folder / 'model'}", f"data={data}", "compile=false"]
    common += ["steps=2", "batch=2", "log_every=1", "tensorboard=false", "precision=float32"]
    return load_part_config(name, [*common, *sizes, *overrides])
