"""What caching of steps saves and costs on a model: `python -m tools.step_caching`.

diffusers' own caches skip blocks in steps whose result they expect to be like the last one's. Each makes the same
pictures as the exact way, in turns, and so does the exact way with fewer steps, which saves time too. Prints one line
of JSON for each way: seconds of denoising and of all processors as [least, median, most], steps whose last attention
was computed, the distance of the latents (`speed_error`) and the mean difference of 8-bit pixels from the exact
picture, both as medians. On a processor with neighbours set OMP_WAIT_POLICY=passive.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig
from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

from uso.config import ROOT
from uso.pipeline.latents import draw_noise, pack, tensor_to_image, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest, ReferenceImage
from uso.transformer.compile import speed_error
from uso.weights.loading import load_pipeline

CONTENT = ROOT / "assets" / "examples" / "drawn" / "robot.png"
STYLE = ROOT / "assets" / "examples" / "drawn" / "watercolour.png"
PROMPTS = ("The robot stands in a forest.", "The robot stands on a beach at sunset.", "The robot stands in the snow.")


@dataclass
class Way:
    name: str
    setting: Callable[[], AbstractContextManager[Any]]
    steps: int
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    pixels: list[float] = field(default_factory=list)

    @property
    def line(self) -> dict[str, Any]:
        return {
            "way": self.name,
            "seconds": spread(self.seconds),
            "cpu_seconds": spread(self.cpu_seconds),
            "computed": median(self.computed),
            "latents_distance": float(f"{median(self.distances):.3g}"),
            "pixel_difference": round(median(self.pixels), 2),
        }


def spread(taken: list[float]) -> list[float]:
    return [round(each, 3) for each in (min(taken), median(taken), max(taken))]


@contextmanager
def cached(pipeline: USOPipeline, config: Any) -> Iterator[None]:
    """While inside, diffusers' own blocks run with one of its caches; it forgets before each picture."""
    transformer = pipeline.transformer
    with pipeline.exchanged.own_blocks():
        transformer.enable_cache(config)
        try:
            with transformer.cache_context("cond"):
                yield
        finally:
            transformer.disable_cache()


def ways_of(pipeline: USOPipeline, steps: int) -> list[Way]:
    found = [
        Way("exact", nullcontext, steps),
        Way("exact, diffusers' blocks", pipeline.exchanged.own_blocks, steps),
    ]
    found += [
        Way(f"exact, {fewer} steps", nullcontext, fewer)
        for fewer in (steps * 3 // 5, steps * 12 // 25, steps * 9 // 25)
    ]
    caches: dict[str, Any] = {
        f"first block, {threshold}": FirstBlockCacheConfig(threshold) for threshold in (0.0, 0.05, 0.1, 0.2)
    }
    for threshold in (0.03, 0.06):
        config = MagCacheConfig(threshold, num_inference_steps=steps, mag_ratios=FLUX_MAG_RATIOS)
        caches[f"MagCache, FLUX's ratios, {threshold}"] = config
    caches["TaylorSeer, every 3rd"] = TaylorSeerCacheConfig(
        3, disable_cache_before_step=5, taylor_factors_dtype=torch.float32
    )
    for name, config in caches.items():
        found.append(Way(name, partial(cached, pipeline, config), steps))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="(demo)")
    parser.add_argument("--steps", type=int, default=25, help="(25)")
    parser.add_argument("--pictures", type=int, default=6, metavar="N", help="of each way (6)")
    args = parser.parse_args()
    pipeline = load_pipeline(args.model, compile="off", offline=True)
    ways = ways_of(pipeline, args.steps)
    computed = 0

    def count(*_: Any) -> None:
        nonlocal computed
        computed += 1

    pipeline.transformer.single_transformer_blocks[-1].attn.to_v.register_forward_hook(count)
    for number in range(args.pictures):
        request = GenerationRequest.create(
            pipeline.model_config,
            PROMPTS[number % len(PROMPTS)],
            content_images=[ReferenceImage.from_path(CONTENT)],
            style_images=[ReferenceImage.from_path(STYLE)],
            seed=number,
        )
        conditioning = pipeline.condition(request)
        noise = draw_noise(number, request.height, request.width)
        exact: tuple[torch.Tensor, np.ndarray[Any, Any]] | None = None
        for way in ways:
            with way.setting():
                computed, began, cpu_began = 0, time.perf_counter(), time.process_time()
                run = pipeline.denoise(
                    conditioning, noise, num_inference_steps=way.steps, schedule=pipeline.model_config.defaults.schedule
                )
                for step in run:
                    latents = step.latents
                latents = latents.cpu()  # waits for the device
                way.seconds.append(time.perf_counter() - began)
                way.cpu_seconds.append(time.process_time() - cpu_began)
                way.computed.append(computed)
            pixels = pipeline.decode(unpack(latents, request.height, request.width))
            picture = np.asarray(tensor_to_image(pixels)).astype(int)
            exact = exact or (latents, picture)
            way.distances.append(speed_error(latents, exact[0], pack(noise)))
            way.pixels.append(float(np.abs(picture - exact[1]).mean()))
    for way in ways:
        print(json.dumps(way.line), flush=True)


if __name__ == "__main__":
    main()
