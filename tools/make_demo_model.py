"""Write `assets/demo-model/`: a miniature of the released system with random weights, in the released file layouts.

The transformer, LoRA, projector and autoencoder are written from tables of names and shapes (the same functions give
the released files' layouts at full size), the encoders by transformers' own classes, the tokenizers are trained on
sentences composed here. Everything comes from one seed, so a second run writes the same bytes. Nothing is trained:
pictures of this model mean nothing. It is development code; the program only reads what it writes.

    python -m tools.make_demo_model [FOLDER]
"""

import argparse
import json
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tools.layouts import (
    LATENT_CHANNELS,
    AutoencoderSizes,
    Shapes,
    TransformerSizes,
    autoencoder_layout,
    lora_layout,
    projector_layout,
    transformer_layout,
)
from uso.encoders import CLIP_LENGTH
from uso.training.demo.tokenizers import SEED, write_clip_tokenizer, write_json, write_t5_tokenizer

DTYPE = torch.bfloat16
FOLDER = Path(__file__).resolve().parent.parent / "assets" / "demo-model"

SCALING_FACTOR = 0.3611
SHIFT_FACTOR = 0.1159

PATCH = 14
NUM_SIGLIP_LAYERS = 20
"""The projector reads hidden state -20: fewer layers would not have one."""

T5_LENGTH = 64
T5_VOCABULARY = 1152
"""Pieces and sentinels, rounded up to a multiple of 128 as the released encoder's 32128 is."""

DEMO_TRANSFORMER = TransformerSizes(
    hidden=128,
    heads=4,
    axes=(8, 12, 12),
    double_blocks=2,
    single_blocks=4,
    context=96,
    pooled=64,
    guidance=True,
    lora_rank=8,
    vision=48,
    vision_tokens=64,
    style_tokens=16,
)
DEMO_AUTOENCODER = AutoencoderSizes(width=32, multipliers=(1, 1, 2, 2))

GAINS = {
    # adaLN: strong enough that the blocks and the conditioning are seen, not so strong that depth blows up.
    "_mod.lin.weight": 0.5,
    ".modulation.lin.weight": 0.5,
    "adaLN_modulation.1.weight": 0.5,
    "lora.up.weight": 0.3,
    "lora1.up.weight": 0.3,
    "lora2.up.weight": 0.3,
    # T5 does not divide attention logits by the root of the head width; its own initialisation does it here.
    "SelfAttention.q.weight": 0.2,
    # Latents of about unit deviation after scaling, and pictures that fill most of [-1, 1].
    "encoder.conv_out.weight": 2.0 / SCALING_FACTOR,
    "decoder.conv_out.weight": 1.0,
}
"""Deviation of a weight, in units of 1 / sqrt(inputs), by the end of its name; 1 where none matches."""

MODULATION_BIAS = 0.4
"""Deviation of the adaLN biases: residual gates are open to some degree at every timestep."""


def _is_norm(name: str) -> bool:
    parts = name.lower().split(".")
    return any("norm" in part or part == "layer_norm" for part in parts[:-1])


def random_tensor(file: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor that depends on its own name only; drawn in float64, so the same on every machine."""
    if _is_norm(name):
        return torch.zeros(shape, dtype=DTYPE) if name.endswith("bias") else torch.ones(shape, dtype=DTYPE)
    generator = torch.Generator().manual_seed(SEED + zlib.crc32(f"{file}/{name}".encode()))
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    if len(shape) == 1:
        deviation = MODULATION_BIAS if "mod" in name else 0.02
    elif "embedding" in name or name.startswith("shared."):
        deviation = 1.0 if name.startswith("shared.") else 0.5
        if "embedding_linear" in name or "patch_embedding" in name:
            deviation = 1 / math.sqrt(math.prod(shape[1:]))
    else:
        gain = next((value for end, value in GAINS.items() if name.endswith(end)), 1.0)
        deviation = gain / math.sqrt(math.prod(shape[1:]))
    return (values * deviation).to(DTYPE)


def write_layout(path: Path, layout: Shapes) -> None:
    tensors = {name: random_tensor(path.name, name, shape) for name, shape in layout.items()}
    save_file(tensors, path)


def write_model(model: torch.nn.Module, folder: Path) -> None:
    """A transformers model with this file's random weights, through its own `save_pretrained`."""
    state = {name: random_tensor(folder.name, name, tuple(t.shape)) for name, t in model.named_parameters()}
    model.load_state_dict(state, strict=False)
    model.to(DTYPE).save_pretrained(folder)  # type: ignore[operator]


def transformer_config(sizes: TransformerSizes) -> dict[str, Any]:
    return {
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": sizes.channels,
        "out_channels": None,
        "num_layers": sizes.double_blocks,
        "num_single_layers": sizes.single_blocks,
        "attention_head_dim": sizes.head_dim,
        "num_attention_heads": sizes.heads,
        "joint_attention_dim": sizes.context,
        "pooled_projection_dim": sizes.pooled,
        "guidance_embeds": sizes.guidance,
        "axes_dims_rope": list(sizes.axes),
    }


def autoencoder_config(sizes: AutoencoderSizes, sample_size: int) -> dict[str, Any]:
    levels = len(sizes.levels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": sizes.levels,
        "layers_per_block": sizes.blocks_per_level,
        "act_fn": "silu",
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": 32,
        "sample_size": sample_size,
        "scaling_factor": SCALING_FACTOR,
        "shift_factor": SHIFT_FACTOR,
        "latents_mean": None,
        "latents_std": None,
        "force_upcast": True,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": True,
    }


def image_processor_config(size: int) -> dict[str, Any]:
    """How SigLIP wants its pictures: squashed to a square, bicubic, [-1, 1]."""
    return {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def write_encoders(folder: Path, sizes: TransformerSizes, clip_vocabulary_size: int) -> None:
    """SigLIP, CLIP and T5, and their configs beside the other components' ones."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        SiglipVisionConfig,
        SiglipVisionModel,
        T5Config,
        T5EncoderModel,
    )

    vision = SiglipVisionConfig(
        hidden_size=sizes.vision,
        intermediate_size=2 * sizes.vision,
        num_hidden_layers=NUM_SIGLIP_LAYERS,
        num_attention_heads=4,
        image_size=PATCH * math.isqrt(sizes.vision_tokens),
        patch_size=PATCH,
    )
    clip = CLIPTextConfig(
        vocab_size=clip_vocabulary_size,
        hidden_size=sizes.pooled,
        intermediate_size=4 * sizes.pooled,
        projection_dim=sizes.pooled,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=CLIP_LENGTH,
        hidden_act="quick_gelu",
        # As released: with 2, CLIP pools at the largest token id, which is the end mark.
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    t5 = T5Config(
        vocab_size=T5_VOCABULARY,
        d_model=sizes.context,
        d_kv=sizes.context // 4,
        d_ff=2 * sizes.context,
        num_layers=4,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
    )
    for name, model in {
        "siglip": SiglipVisionModel(vision),
        "text_encoder": CLIPTextModel(clip),
        "text_encoder_2": T5EncoderModel(t5),
    }.items():
        write_model(model, folder / name)
    for name, component in (
        ("siglip", "image_encoder"),
        *((same, same) for same in ("text_encoder", "text_encoder_2")),
    ):
        config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        write_json(folder / f"{component}.json", config)
    write_json(folder / "image_processor.json", image_processor_config(vision.image_size))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo model (random weights).")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    sizes, autoencoder = DEMO_TRANSFORMER, DEMO_AUTOENCODER
    write_layout(folder / "flux1.safetensors", transformer_layout(sizes))
    write_layout(folder / "dit_lora.safetensors", lora_layout(sizes))
    write_layout(folder / "projector.safetensors", projector_layout(sizes))
    write_layout(folder / "ae.safetensors", autoencoder_layout(autoencoder))
    write_json(folder / "transformer.json", transformer_config(sizes))
    write_json(folder / "vae.json", autoencoder_config(autoencoder, sample_size=256))
    write_json(folder / "projector.json", {"style_tokens": sizes.style_tokens})  # all else follows from its neighbours
    clip_size = write_clip_tokenizer(folder / "tokenizer", 1024)
    t5_size = write_t5_tokenizer(folder / "tokenizer_2", 1024, max_length=T5_LENGTH)
    if t5_size > T5_VOCABULARY:
        raise SystemExit(f"The T5 tokenizer has {t5_size} tokens, the encoder room for {T5_VOCABULARY}.")
    write_encoders(folder, sizes, clip_size)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    total = sum(path.stat().st_size for path in files)
    print(f"{folder}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
