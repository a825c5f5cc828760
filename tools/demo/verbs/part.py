"""The verb `part`: train one part of the demo model, or of one like it, from nothing or from its current file.

Order, for a model from nothing: tokenizers, autoencoder, image-encoder, base, guidance; then the stages (`stage`).
`reward-descriptor` and `judge` need no other part.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tools.demo.training.config import PARTS_FOLDER, Part, PartConfig, load_part_config
from uso.terminal import say
from uso.training.config_files import config_names

if TYPE_CHECKING:
    import torch


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "part",
        help="train one part of the model",
        description="Train one part of a model like the demo on drawn data: a run of tools/demo/configs/parts/ or a "
        "YAML file. Each run continues from the part in the model's folder, and writes its result there.",
    )
    parser.set_defaults(run=run)
    names = ", ".join(config_names(PARTS_FOLDER))
    parser.add_argument("config", metavar="PART", help=f"{names}; or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as steps=2000 fresh=true")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint, if there is one")
    return parser


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status.

    Raises:
        USOError: with the remedy.
    """
    train_part(load_part_config(args.config, args.overrides), resume=args.resume)
    return 0


def train_part(config: PartConfig, *, resume: bool = False) -> None:
    """Run one part to its end.

    Raises:
        USOError: with the remedy.
    """
    from uso.training.loop.log import check_trackers
    from uso.training.loop.precision import avoid_faulty_kernels, compiling
    from uso.weights.choices import choose_device

    check_trackers(config)
    device = choose_device(config.device)
    avoid_faulty_kernels(device)
    _trainers()[config.part](compiling(config, device), device, resume)
    say(f"{config.name}: the result is in {config.folder if config.part == 'descriptor' else config.model}.")


def _trainers() -> dict[Part, Callable[[PartConfig, "torch.device", bool], object]]:
    """By part; importing them imports torch."""
    from tools.demo.parts.autoencoder import train_autoencoder
    from tools.demo.parts.base import train_base
    from tools.demo.parts.descriptor import train_descriptor
    from tools.demo.parts.guidance import train_guidance
    from tools.demo.parts.image_encoder import train_image_encoder
    from tools.demo.parts.tokenizers import train_tokenizers

    return {
        "autoencoder": train_autoencoder,
        "tokenizers": lambda config, *_: train_tokenizers(config),
        "image-encoder": train_image_encoder,
        "base": train_base,
        "guidance": train_guidance,
        "descriptor": train_descriptor,
    }
