"""How fast and how exact `--speed fast`'s int8 attention is: `python -m tools.int8_attention`.

On a GPU, one line of JSON for each number of tokens, without and with style strengths: milliseconds of one attention as
[least, median, most], of PyTorch's own in turns with it, and both errors against float32.

`--pictures demo` measures what it costs in pictures, on a CPU too, where the same rounding runs without the kernel: the
distance of the latents from the exact ones (`speed_error`, median over the pictures), with int8 attention, with int8
layers, and with both. `--pictures random` takes the reduced random network of `bench`.
"""

import argparse
import json
from collections.abc import Callable
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

from tools.step_caching import CONTENT, PROMPTS, STYLE
from uso.bench.measure import CPU_CHANGES, CPU_SIZE
from uso.bench.random_model import random_pipeline
from uso.bench.request import Request, draw_inputs
from uso.bench.runs import condition
from uso.config import load_memory_plan, load_model_config
from uso.memory.residency import Residency
from uso.pipeline.latents import draw_noise, pack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.stages import Conditioning
from uso.request.request import GenerationRequest, ReferenceImage
from uso.transformer.attention import Int8Processor, exact_attention, rotate_in_one_pass, strength_bias
from uso.transformer.compile import speed_error
from uso.transformer.int8 import quantize_blocks
from uso.transformer.operators import int8_attention
from uso.weights.loading import load_pipeline

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
        one, other, third = (part.transpose(1, 2) for part in (query, key, value))
        return scaled_dot_product_attention(one, other, third, attn_mask=bias).transpose(1, 2)

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


def pipeline_of(name: str) -> USOPipeline:
    if name != "random":
        return load_pipeline(name, compile="off", offline=True)
    pipeline = random_pipeline(load_model_config("flux-dev"), dtype=torch.float32, device="cpu", changes=CPU_CHANGES)
    return pipeline.place(Residency(load_memory_plan("cpu"), "cpu"))


def latents_of(
    name: str, steps: int, count: int, layers: bool, attention: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Latents of some pictures, and their noise."""
    pipeline = pipeline_of(name)
    if layers:
        quantize_blocks(pipeline.transformer)
    if attention:
        rotate_in_one_pass(pipeline.transformer, Int8Processor)
    made = []
    with pipeline.exchanged.own_blocks():
        for seed in range(count):
            conditioning, side = conditioning_of(pipeline, seed)
            noise = draw_noise(seed, side, side)
            *_, last = pipeline.denoise(conditioning, noise, num_inference_steps=steps, schedule="uso")
            made.append((last.latents.cpu(), pack(noise)))
    return made


def conditioning_of(pipeline: USOPipeline, seed: int) -> tuple[Conditioning, int]:
    """Of a prompt, a content and a style image; on a random network, of drawn numbers. And the picture's side."""
    defaults = pipeline.model_config.defaults
    if pipeline.tokenizer_2 is None:
        drawn = Request("content+style", CPU_SIZE, CPU_SIZE, CPU_SIZE // 2, 1, defaults.guidance_scale)
        inputs = draw_inputs(pipeline, drawn)
        styles, reference = [pipeline.encode_style(inputs.styles[0])], [pipeline.encode_reference(inputs.content)]
        with torch.inference_mode():
            return condition(pipeline, drawn, inputs, styles, reference), CPU_SIZE
    request = GenerationRequest.create(
        pipeline.model_config,
        PROMPTS[seed % len(PROMPTS)],
        content_images=[ReferenceImage.from_path(CONTENT)],
        style_images=[ReferenceImage.from_path(STYLE)],
    )
    return pipeline.condition(request), request.height


def pictures(name: str, steps: int, count: int) -> dict[str, object]:
    exact = latents_of(name, steps, count, layers=False, attention=False)
    errors: dict[str, object] = {"model": name, "steps": steps, "pictures": count}
    for what, layers, attention in (("attention", False, True), ("layers", True, False), ("both", True, True)):
        made = latents_of(name, steps, count, layers, attention)
        found = [speed_error(own[0], other[0], other[1]) for own, other in zip(made, exact, strict=True)]
        errors[what] = [float(f"{value:.3g}") for value in (min(found), median(found), max(found))]
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", metavar="MODEL", help="a model's name, or random")
    parser.add_argument("--steps", type=int, default=25, help="with --pictures (25)")
    parser.add_argument("--count", type=int, default=6, help="with --pictures: how many (6)")
    args = parser.parse_args()
    if args.pictures:
        print(json.dumps(pictures(args.pictures, args.steps, args.count)))
        return
    with torch.inference_mode():
        for tokens in TOKENS:
            for strength in (1.0, 2.0):
                print(json.dumps(measure(tokens, strength)), flush=True)


if __name__ == "__main__":
    main()
