"""`python -m uso bench`: flags to figures, one JSON line per run. How each is measured is in `uso.bench`."""

import argparse
import platform
from typing import Any

import torch

from uso import __version__, bench
from uso.choices import choose_device, choose_dtype, choose_plan
from uso.config import MemoryPlan, ModelConfig, load_model_config
from uso.errors import ConfigError
from uso.forecast import RequestForecaster
from uso.levels import SPEEDS
from uso.loading import load_pipeline, tune
from uso.memory import Residency
from uso.meta_model import MetaModel
from uso.pipeline import USOPipeline
from uso.placement import GIB, budget_bytes
from uso.random_model import random_pipeline

CPU_CHANGES: dict[str, dict[str, Any]] = {
    "transformer": {"num_attention_heads": 4, "num_layers": 4, "num_single_layers": 8},
    "text_encoder": {"num_hidden_layers": 2},
    "text_encoder_2": {"num_layers": 2, "d_ff": 1024, "num_heads": 8},
    "image_encoder": {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4},
    "vae": {"block_out_channels": [32, 64, 128, 128]},
}
"""What is reduced where a processor computes: widths and depths; heads, tokens and layouts stay FLUX's."""


CPU_SIZE = 256
CPU_STEPS = 4


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what the flags ask for: the values of one JSON line.

    Raises:
        ConfigError: flags that do not go together.
    """
    config = load_model_config(args.model)
    if args.mode not in bench.MODES:
        raise ConfigError(f"There is no mode '{args.mode}'. Choose one of: {', '.join(bench.MODES)}.")
    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    _cap(args.cap_gib, device)
    torch.manual_seed(0)
    pipeline, reduced = _pipeline(args, config, device, dtype)
    plan = pipeline.residency.plan
    if args.baseline and plan.visit:
        raise ConfigError(f"--baseline keeps everything on the device; memory plan '{plan.name}' does not. Use full.")
    size = args.size or (CPU_SIZE if reduced else config.defaults.width)
    steps = args.steps or (CPU_STEPS if reduced else config.defaults.num_inference_steps)
    guidance = config.defaults.guidance_scale if config.guidance else None
    request = bench.Request(args.mode, size, size, args.content_size or size // 2, steps, guidance)
    inputs = bench.draw_inputs(pipeline, request)
    for _ in range(args.warm_up):
        bench.run_ours(pipeline, request, inputs)
    pipeline.residency.reset_peak()
    timing = bench.run_ours(pipeline, request, inputs)
    line: dict[str, Any] = _figures(pipeline, request, inputs, timing) | {
        "reduced": reduced,
        "real_weights": args.real_weights,
        "cap_gib": args.cap_gib,
        "outside_blocks_ms": _ms(bench.outside_blocks(pipeline, lambda: bench.run_ours(pipeline, request, inputs))),
    }
    if args.baseline:
        line["baseline"] = _baseline(pipeline, request, inputs, timing, args.warm_up)
    return line


def _cap(cap_gib: float | None, device: torch.device) -> None:
    if cap_gib is None:
        return
    if device.type != "cuda":
        raise ConfigError("--cap-gib caps CUDA's allocator; this run has no CUDA device.")
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib * GIB / total), device)


def _pipeline(
    args: argparse.Namespace, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> tuple[USOPipeline, bool]:
    """The pipeline to measure, and whether it was reduced for a processor."""
    if args.real_weights:
        ready = load_pipeline(
            config,
            memory=args.memory,
            device=str(device),
            dtype=args.dtype,
            speed=args.speed or SPEEDS[0],
            compile=args.compile,
        )
        return ready, False
    reduced = device.type == "cpu"
    plan = choose_plan(args.memory, device, 34 * GIB)
    pipeline = random_pipeline(
        config,
        dtype=dtype,
        device="cpu" if plan.visit else device,
        fill_device=device,
        changes=CPU_CHANGES if reduced else None,
    )
    forecaster = RequestForecaster(MetaModel.from_config(config, dtype), config) if plan.visit else None
    residency = Residency(plan, device, budget=_budget(plan, args.cap_gib), forecaster=forecaster)
    pipeline.provenance |= tune(pipeline, residency, args.speed or SPEEDS[0], args.compile)
    return pipeline, reduced


def _budget(plan: MemoryPlan, cap_gib: float | None) -> int | None:
    own = budget_bytes(plan)
    return own if cap_gib is None or own is None else min(own, int(cap_gib * GIB))


def _figures(
    pipeline: USOPipeline, request: bench.Request, inputs: bench.Inputs, timing: bench.Timing
) -> dict[str, Any]:
    device, dtype = pipeline.work_device, pipeline.transformer.dtype
    tflop = bench.step_tflop(pipeline, request, inputs)
    rate = bench.matmul_rate(device, dtype)
    return {
        "uso": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "dtype": str(dtype).removeprefix("torch."),
        "memory": pipeline.residency.plan.name,
        "speed": pipeline.provenance["speed"],
        "compiled": pipeline.provenance["compiled"],
        "attention": pipeline.provenance["attention"],
        "mode": request.mode,
        "size": request.width,
        "content_size": request.content_size,
        "steps": request.steps,
        "seconds": {stage: round(seconds, 4) for stage, seconds in timing.stages.items()},
        "total": round(timing.total, 4),
        "step_median": round(timing.step_median, 5),
        "peak_device_gib": pipeline.residency.peak_memory_gib(),
        "peak_host_gib": round(bench.host_peak_gib(), 3),
        "tflop_per_step": round(tflop, 4),
        "matmul_tflop_per_s": round(rate, 3),
        "floor_step": round(tflop / rate, 5),
        "share_of_matmul_rate": round(tflop / rate / timing.step_median, 4),
    }


def _baseline(
    pipeline: USOPipeline, request: bench.Request, inputs: bench.Inputs, ours: bench.Timing, warm_up: int
) -> dict[str, Any]:
    for _ in range(warm_up):
        bench.run_baseline(pipeline, request, inputs)
    pipeline.residency.reset_peak()
    plain = bench.run_baseline(pipeline, request, inputs)
    peak = pipeline.residency.peak_memory_gib()
    outside = bench.outside_blocks(pipeline, lambda: bench.run_baseline(pipeline, request, inputs))
    difference = (plain.latents - ours.latents).norm() / ours.latents.norm()
    return {
        "seconds": {stage: round(seconds, 4) for stage, seconds in plain.stages.items()},
        "step_median": round(plain.step_median, 5),
        "peak_device_gib": peak,
        "outside_blocks_ms": _ms(outside),
        "ratio": round(plain.step_median / ours.step_median, 3),
        "latents_difference": float(f"{float(difference):.3g}"),
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
