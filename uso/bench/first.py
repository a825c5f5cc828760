"""What the first pictures of a page take, while its blocks are compiled behind them."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from uso.bench.machine import Clock, device_name
from uso.bench.random_model import random_pipeline
from uso.bench.request import Request, draw_inputs
from uso.config import load_memory_plan, load_model_config
from uso.errors import ConfigError
from uso.memory.residency import Residency
from uso.request.request import GenerationResult
from uso.weights.choices import choose_device, choose_dtype
from uso.weights.loading import tune


def first_pictures(
    args: argparse.Namespace, changes: dict[str, dict[str, Any]] | None = None
) -> Iterator[dict[str, Any]]:
    """Make pictures with a fresh model of random weights, as the page runs it; yields the values of one line each.

    With `--compile auto` blocks are compiled behind the pictures; with `on` the first picture waits for the compiler.

    Args:
        changes: see `empty_pipeline`.

    Raises:
        ConfigError: a flag that does not go with it.
    """
    if args.real_weights or args.memory not in ("auto", "full") or (args.speed or "exact") != "exact":
        raise ConfigError("--first-pictures runs random weights under plan full, at --speed exact.")
    config, device = load_model_config(args.model), choose_device(args.device)
    if device.type != "cuda" and changes is None:
        raise ConfigError("--first-pictures needs a CUDA device: elsewhere blocks are not compiled.")
    dtype = choose_dtype(args.dtype, device)
    pipeline = random_pipeline(config, dtype=dtype, device=device, changes=changes)
    residency = Residency(load_memory_plan("full"), device)
    pipeline.provenance |= tune(pipeline, residency, "exact", args.compile, behind=True)
    size, steps = args.size or config.defaults.width, args.steps or config.defaults.num_inference_steps
    guidance = config.defaults.guidance_scale if config.guidance else None
    request = Request(args.mode, size, size, args.content_size or size // 2, steps, guidance)
    inputs, clock = draw_inputs(pipeline, request), Clock(device)
    pipeline.remember_prompt("", inputs.prompt_embeds, inputs.pooled)
    for number in range(args.first_pictures):
        began = clock.now()
        *_, result = pipeline.stream(replace(inputs.whole, seed=number))
        assert isinstance(result, GenerationResult)
        yield {
            "torch": torch.__version__,
            "device": device_name(device),
            "compile": args.compile,
            "size": size,
            "steps": steps,
            "picture": number + 1,
            "seconds": round(clock.now() - began, 3),
            "compiled": result.model["compiled"],
        }
