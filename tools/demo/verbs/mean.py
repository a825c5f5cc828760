"""The verb `mean`: the weights between those of two runs (Wortsman et al., arXiv 2109.01903).

What training on new data gains and what it costs lie apart: between the weights before and after, most of the gain is
there, and little of the cost.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from uso.errors import ConfigError

LORA = "dit_lora.safetensors"
PARTS = ("projector.safetensors", LORA, "siglip/model.safetensors")


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "mean",
        help="write the mean of two runs' weights",
        description="Write a weighted mean of the weights of two folders: projector, LoRA and image encoder.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a run")
    parser.add_argument("other", type=Path, metavar="OTHER", help="of another run, or of the model it began from")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="where the mean is written; may be one of the two")
    parser.add_argument("--share", type=float, default=0.5, help="weight of FOLDER, from 0 to 1 (0.5)")
    parser.add_argument("--lora-scale", type=float, default=1.0, help="strength of the LoRA that is written (1)")
    return parser


def run(args: argparse.Namespace) -> int:
    """
    Raises:
        ConfigError: a share that is none, a strength of the LoRA that is not positive, a part that one folder lacks, or
            one that has other tensors in the other.
    """
    if not 0 <= args.share <= 1:
        raise ConfigError(f"--share must be from 0 to 1, not {args.share:g}.")
    if not 0 < args.lora_scale < math.inf:
        raise ConfigError(f"--lora-scale must be a number above 0, not {args.lora_scale:g}.")
    lacking = [folder / part for folder in (args.folder, args.other) for part in PARTS if not (folder / part).is_file()]
    if lacking:
        raise ConfigError(f"{lacking[0]} is not there. Name two folders that hold {', '.join(PARTS)}.")
    from safetensors.torch import load_file

    from uso.training.model.export import write_safetensors

    both = {part: (load_file(args.folder / part), load_file(args.other / part)) for part in PARTS}
    for part, (one, other) in both.items():
        if {name: one[name].shape for name in one} != {name: other[name].shape for name in other}:
            raise ConfigError(f"{part} of {args.folder} and {args.other} are of two models: their tensors differ.")
    for part, (one, other) in both.items():
        mean = {name: args.share * one[name].float() + (1 - args.share) * other[name].float() for name in one}
        for name in mean:
            if part == LORA and name.endswith(".up.weight"):
                mean[name] *= args.lora_scale
        mean = {name: tensor.to(one[name].dtype) for name, tensor in mean.items()}
        write_safetensors(args.output / part, mean, {"format": "pt"})
        print(args.output / part)
    return 0
