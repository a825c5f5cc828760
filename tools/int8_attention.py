"""How fast and how exact `--speed fast`'s int8 attention is on this GPU: `python -m tools.int8_attention`.

One line of JSON for each number of tokens, without and with style strengths: milliseconds of one attention as [least,
median, most], of PyTorch's own in turns with it, and both errors against float32.
"""

import argparse
import json
from collections.abc import Callable
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

from uso.transformer.attention import exact_attention, strength_bias
from uso.transformer.operators import int8_attention

HEADS, SIZE = 24, 128
TOKENS = (1728, 5824, 10432)
"""FLUX with one style and a content image of half the side, at 512, 1024 and about 1440 pixels."""
STYLE_TOKENS = 192
ROUNDS = 20

Attend = Callable[[], torch.Tensor]


def milliseconds(attend: Attend) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    attend()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended))


def spread(times: list[float]) -> list[float]:
    return [round(value, 3) for value in (min(times), median(times), max(times))]


def measure(tokens: int, strength: float) -> dict[str, object]:
    draw = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(1, tokens, HEADS, SIZE, generator=draw, device="cuda").bfloat16() for _ in range(3)
    )
    key += 4  # keys of trained models have much in common
    bias = strength_bias([STYLE_TOKENS], [strength], tokens)
    bias = None if bias is None else bias.cuda().bfloat16()

    def plain() -> torch.Tensor:
        heads_first = (part.transpose(1, 2) for part in (query, key, value))
        return scaled_dot_product_attention(*heads_first, attn_mask=bias).transpose(1, 2)

    ways: dict[str, Attend] = {"int8": lambda: int8_attention(query, key, value, bias), "native": plain}
    exact = exact_attention(query, key, value, bias)
    errors = {name: float((way().float() - exact).norm() / exact.norm()) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(milliseconds(way))
    return {
        "card": torch.cuda.get_device_name(),
        "tokens": tokens,
        "strength": strength,
        **{f"{name}_ms": spread(found) for name, found in times.items()},
        "times_faster": round(median(times["native"]) / median(times["int8"]), 3),
        **{f"{name}_error": float(f"{error:.3g}") for name, error in errors.items()},
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    with torch.inference_mode():
        for tokens in TOKENS:
            for strength in (1.0, 2.0):
                print(json.dumps(measure(tokens, strength)), flush=True)


if __name__ == "__main__":
    main()
