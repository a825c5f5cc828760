"""A small descriptor of style and subject, shaped as CSD is, learned from the labels of drawn pictures.

One is what the reward stage learns from, another, with other pictures and another seed, is the judge of
`python -m tools.demo evaluate`; they never meet. The file is read by `uso.evaluation.metrics.csd.load_csd`.

`architecture`: `width` (a multiple of 64), `layers`, `image_size`, `patch_size`, `vector`. `data` may name several
folders of shards, separated by commas.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig

from tools.demo.parts.model import refuse_other_sizes, tower_sizes
from tools.demo.parts.pictures import open_samples, pick
from tools.demo.shards.arrays import to_pixels
from tools.demo.training.config import PartConfig
from tools.demo.training.loop import Loop, Losses
from tools.demo.training.prefetch import Prefetcher, sent
from uso.evaluation.metrics.csd import CSD, HEAD_WIDTH, load_csd, published_tensors
from uso.training.loop.precision import autocast
from uso.training.losses.seeds import generator
from uso.training.model.export import write_safetensors

FILE = "descriptor.safetensors"
_SHARPNESS = 16.0
"""Cosines are multiplied by this before the softmax over labels."""


def tower_config(architecture: dict[str, Any]) -> CLIPVisionConfig:
    """Sizes of a new descriptor's tower."""
    width = int(architecture["width"])
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=int(architecture["layers"]),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=int(architecture["image_size"]),
        patch_size=int(architecture["patch_size"]),
        hidden_act="quick_gelu",
    )


def new_descriptor(architecture: dict[str, Any], seed: int) -> CSD:
    config = tower_config(architecture)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CSD(config, int(architecture["vector"]))
        for matrix in (model.last_layer_style, model.last_layer_content):
            nn.init.normal_(matrix, std=config.hidden_size**-0.5)
    return model


class LabelLoss(nn.Module):
    """How well vectors of pictures [B, 3, H, W] in [-1, 1] tell their style and their subject: softmax of cosines."""

    def __init__(self, model: CSD, styles: int, subjects: int, seed: int) -> None:
        super().__init__()
        self.model = model
        draw, vector = generator(seed, "labels"), model.last_layer_style.shape[1]
        self.styles = nn.Parameter(torch.randn(styles, vector, generator=draw))
        self.subjects = nn.Parameter(torch.randn(subjects, vector, generator=draw))

    def forward(self, pixels: torch.Tensor, style: torch.Tensor, subject: torch.Tensor) -> list[torch.Tensor]:
        """Losses of style and subject, and how often each is right."""
        features = self.model.features(self.model.prepare(pixels)).float()
        results = []
        for vectors, known, labels in (
            (self.model.style(features), self.styles, style),
            (self.model.content(features), self.subjects, subject),
        ):
            cosines = vectors.float() @ functional.normalize(known, dim=1).T
            results.append(functional.cross_entropy(_SHARPNESS * cosines, labels))
            results.append((cosines.argmax(dim=1) == labels).float().mean())
        return results


def softened(pixels: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Pictures blurred by a random share, as those of a small autoencoder are."""
    share = torch.rand((len(pixels), 1, 1, 1), generator=generator(seed, "softened", step))
    blurred = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(pixels, blurred, sent(share, pixels.device))


def train_descriptor(config: PartConfig, device: torch.device, resume: bool = False) -> Loop:
    """A run; its result is `descriptor.safetensors` in the run's folder, by the names of CSD's published file."""
    folders = [open_samples(config.shards.parent / name.strip()) for name in config.shards.name.split(",")]
    places = [(shards, number) for shards in folders for number in range(len(shards))]
    labels = [words["labels"] for shards in folders for words in shards.words]
    styles = sorted({label.get("style") or "" for label in labels})
    subjects = sorted({label["subject"] for label in labels})
    style_of = torch.tensor([styles.index(label.get("style") or "") for label in labels])
    subject_of = torch.tensor([subjects.index(label["subject"]) for label in labels])
    path = config.folder / FILE
    if path.is_file() and not config.fresh:
        model = load_csd(path)
        present = tower_sizes(model.backbone.config) | {"vector": model.last_layer_style.shape[1]}
        wanted = tower_sizes(tower_config(config.architecture)) | {"vector": int(config.architecture["vector"])}
        refuse_other_sizes("descriptor", wanted, present)
    else:
        model = new_descriptor(config.architecture, config.seed)
    model.requires_grad_(True).train()
    loss = LabelLoss(model, len(styles), len(subjects), config.seed).to(device)
    network: Any = torch.compile(loss) if config.compile else loss

    def read(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pixels, and the numbers of their styles and subjects."""
        numbers = pick(config.seed, "descriptor", step, config.batch, len(places))
        pictures = np.stack([shards.pixels(index)[0] for shards, index in (places[n] for n in numbers)])
        pixels = softened(to_pixels(pictures, device), config.seed, step).contiguous()
        return pixels, sent(style_of[numbers], device), sent(subject_of[numbers], device)

    batches = Prefetcher(read, device)

    def losses(step: int) -> Losses:
        pixels, style_numbers, subject_numbers = batches.take(step)
        with autocast(device.type, config.precision):
            style, style_right, subject, subject_right = network(pixels, style_numbers, subject_numbers)
        return {
            "loss": style + config.options.subject * subject,
            "style_right": style_right,
            "subject_right": subject_right,
        }

    def export() -> None:
        write_safetensors(path, published_tensors(model))

    loop = Loop(config, dict(loss.named_parameters()), losses, export)
    loop.begin(resume)
    with batches:
        loop.run()
    return loop
