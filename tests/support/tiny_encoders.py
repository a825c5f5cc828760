"""CLIP, DINO and CSD at tiny size with random weights, saved as the released ones are: for tests of scores."""

import json
import shutil
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from uso.config import ROOT

SIDE, PATCH, WIDTH, HEADS, LAYERS = 32, 8, 32, 2, 2
CSD_WIDTH, CSD_LAYERS, CSD_PATCH, CSD_SIDE, VECTOR = 128, 2, 14, 56, 24
"""CSD's tower: two heads of 64, 4 x 4 patches."""

Tensors = dict[str, torch.Tensor]
_TOKENIZER = ROOT / "assets" / "demo-model" / "tokenizer"


def csd_checkpoint(seed: int = 0) -> Tensors:
    """Random tensors in the published layout, without `module.`."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw) * shape[-1] ** -0.5

    state = {
        "class_embedding": random(CSD_WIDTH),
        "positional_embedding": random((CSD_SIDE // CSD_PATCH) ** 2 + 1, CSD_WIDTH),
        "conv1.weight": random(CSD_WIDTH, 3, CSD_PATCH, CSD_PATCH),
    }
    for norm in ("ln_pre", "ln_post"):
        state |= {f"{norm}.weight": 1 + random(CSD_WIDTH), f"{norm}.bias": random(CSD_WIDTH)}
    for layer in range(CSD_LAYERS):
        block = f"transformer.resblocks.{layer}."
        state |= {
            f"{block}attn.in_proj_weight": random(3 * CSD_WIDTH, CSD_WIDTH),
            f"{block}attn.in_proj_bias": random(3 * CSD_WIDTH),
        }
        for name, out, into in (
            ("attn.out_proj", CSD_WIDTH, CSD_WIDTH),
            ("mlp.c_fc", 4 * CSD_WIDTH, CSD_WIDTH),
            ("mlp.c_proj", CSD_WIDTH, 4 * CSD_WIDTH),
        ):
            state |= {f"{block}{name}.weight": random(out, into), f"{block}{name}.bias": random(out)}
        for norm in ("ln_1", "ln_2"):
            state |= {f"{block}{norm}.weight": 1 + random(CSD_WIDTH), f"{block}{norm}.bias": random(CSD_WIDTH)}
    heads = {f"last_layer_{name}": random(CSD_WIDTH, VECTOR) for name in ("style", "content")}
    return {f"backbone.{name}": tensor for name, tensor in state.items()} | heads


def _drawn(model: torch.nn.Module, seed: int) -> None:
    """Weights that tell pictures apart: larger than a fresh network's, and no two alike."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape, generator=draw))
            elif parameter.dim():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * parameter.shape[-1] ** -0.5)


def save_clip(folder: Path) -> Path:
    """A folder as of openai/clip-vit-base-patch32, with the demo model's tokenizer."""
    words = len(json.loads((_TOKENIZER / "vocab.json").read_text()))
    tower = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = CLIPConfig(
        text_config=tower
        | {"vocab_size": words, "bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1},
        vision_config=tower | {"image_size": SIDE, "patch_size": PATCH},
        projection_dim=16,
    )
    model = CLIPModel(config)
    _drawn(model, 1)
    model.save_pretrained(folder)
    for file in _TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return folder


def save_dino(folder: Path) -> Path:
    """A folder as of facebook/dino-vits16: a `.bin` in the old names, and a config that says another epsilon."""
    from safetensors.torch import load_file

    config = ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        layer_norm_eps=1e-12,
    )
    model = ViTModel(config, add_pooling_layer=False)
    _drawn(model, 2)
    model.save_pretrained(folder)
    whole = folder / "model.safetensors"
    torch.save(load_file(whole), folder / "pytorch_model.bin")
    whole.unlink()
    return folder


def save_csd(path: Path) -> Path:
    torch.save(csd_checkpoint(), path)
    return path


def encoder_flags(folder: Path) -> list[str]:
    """All three in a folder, as flags of `evaluate score`."""
    folder.mkdir(exist_ok=True)
    clip, dino = save_clip(folder / "clip"), save_dino(folder / "dino")
    return ["--clip", str(clip), "--dino", str(dino), "--csd", str(save_csd(folder / "csd.bin"))]
