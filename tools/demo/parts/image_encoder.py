"""The image encoder: SigLIP's picture tower, learned with captions (transformers' `SiglipModel` and its sigmoid loss).

The style projector reads hidden states -2, -11 and -20, so there are at least 20 layers. The text tower is only for
learning and is thrown away.

`architecture`: `width`, `layers`, `heads`, `image_size`, `patch_size`, `text_layers`.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig, SiglipVisionModel

from tools.demo.parts.model import read_config, refuse_other_sizes, tower_sizes, write_config, write_pretrained
from tools.demo.parts.pictures import open_samples, pick, pixels_of
from tools.demo.parts.words import caption_ids, load_t5_tokenizer
from tools.demo.training.config import PartConfig
from tools.demo.training.loop import Loop, Losses
from tools.demo.training.muon import embeddings_of
from tools.demo.training.prefetch import Prefetcher, sent
from uso.errors import ConfigError
from uso.training.loop.precision import autocast
from uso.transformer.context_embedder import STYLE_LAYERS
from uso.weights.checkpoints import load_image_encoder

FOLDER = "siglip"

_FIRST_SCALE, _FIRST_BIAS = math.log(10), -10.0


def vision_config(architecture: dict[str, Any]) -> SiglipVisionConfig:
    """Sizes of a new tower.

    Raises:
        ConfigError: it has too few layers for the projector.
    """
    needed = -min(STYLE_LAYERS.values())
    if architecture["layers"] < needed:
        raise ConfigError(f"architecture.layers must be at least {needed}: the projector reads hidden state -{needed}.")
    width = int(architecture["width"])
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=int(architecture.get("mlp", 2 * width)),
        num_hidden_layers=int(architecture["layers"]),
        num_attention_heads=int(architecture["heads"]),
        image_size=int(architecture["image_size"]),
        patch_size=int(architecture["patch_size"]),
    )


def image_processor_config(size: int) -> dict[str, Any]:
    """How SigLIP wants its pictures: squashed to a square, bicubic, in [-1, 1]."""
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


def make_model(config: PartConfig, vocabulary: int, length: int) -> SiglipModel:
    """Both towers; the picture's is the folder's, or a new one."""
    fresh = config.fresh or not (config.model / FOLDER / "model.safetensors").is_file()
    vision = vision_config(config.architecture)
    if not fresh:
        wanted, vision = vision, SiglipVisionConfig(**_learning(read_config(config.model, "image_encoder")))
        refuse_other_sizes("image encoder", tower_sizes(wanted), tower_sizes(vision))
    text = SiglipTextConfig(
        vocab_size=vocabulary,
        hidden_size=vision.hidden_size,
        projection_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_hidden_layers=int(config.architecture.get("text_layers", 2)),
        num_attention_heads=vision.num_attention_heads,
        max_position_embeddings=length,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    with torch.no_grad():  # as arXiv 2303.15343 begins: nearly all pairs are no pairs
        model.logit_scale.fill_(_FIRST_SCALE)
        model.logit_bias.fill_(_FIRST_BIAS)
    if not fresh:
        kept = load_image_encoder(vision.to_dict(), [config.model / FOLDER / "model.safetensors"], dtype=torch.float32)
        tower: Any = model.vision_model
        tower.load_state_dict(_tower_state(kept))
    return model


def _learning(values: dict[str, Any]) -> dict[str, Any]:
    """A written config without the dtype of the file: what learns is float32."""
    return {name: value for name, value in values.items() if name != "dtype"}


def _tower_state(model: SiglipVisionModel) -> dict[str, torch.Tensor]:
    return {name.removeprefix("vision_model."): tensor for name, tensor in model.state_dict().items()}


def as_vision_model(model: SiglipModel) -> SiglipVisionModel:
    """The picture tower by itself, with the same numbers."""
    alone = SiglipVisionModel(model.config.vision_config)
    names = {name.removeprefix("vision_model."): name for name in alone.state_dict()}
    tower: Any = model.vision_model
    alone.load_state_dict({names[name]: tensor for name, tensor in tower.state_dict().items()})
    return alone


class ContrastiveLoss(nn.Module):
    """SigLIP's loss of pictures and their captions, and how often a picture is nearest to its own caption."""

    def __init__(self, model: SiglipModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(input_ids=ids, pixel_values=pixels, return_loss=True)
        logits = output.logits_per_image
        own = torch.arange(len(logits), device=logits.device)
        return output.loss.float(), (logits.argmax(dim=1) == own).float().mean()


def train_image_encoder(config: PartConfig, device: torch.device, resume: bool = False) -> Loop:
    """A run; its result is the folder `siglip`, `image_encoder.json` and `image_processor.json`."""
    shards = open_samples(config.shards)
    tokenizer, length = load_t5_tokenizer(config.model)
    ids = caption_ids(tokenizer, shards, length)
    model = make_model(config, len(tokenizer), length).to(device)
    network: Any = ContrastiveLoss(model)
    if config.compile:
        network = torch.compile(network)
    size = model.config.vision_config.image_size

    def read(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels, and the ids of their captions."""
        numbers = pick(config.seed, "image-encoder", step, config.batch, len(shards))
        pixels = pixels_of(shards, numbers, device)
        if pixels.shape[-1] != size:
            pixels = nn.functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
        return pixels.contiguous(), sent(ids[numbers], device)

    batches = Prefetcher(read, device)

    def losses(step: int) -> Losses:
        pixels, words = batches.take(step)
        with autocast(device.type, config.precision):
            loss, right = network(pixels, words)
        return {"loss": loss, "right": right}

    def export() -> None:
        alone = as_vision_model(model)
        write_pretrained(config.model, FOLDER, alone)
        write_config(config.model, "image_processor", image_processor_config(size))

    loop = Loop(config, dict(model.named_parameters()), losses, export, embeddings_of(model))
    loop.begin(resume)
    with batches:
        loop.run()
    return loop
