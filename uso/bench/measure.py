"""`python -m uso bench`: from flags to figures, one line of JSON per run."""

import argparse
import gc
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch

from uso.bench.baseline import run_baseline
from uso.bench.machine import MatmulRate, device_name, host_peak_gib, link_rate
from uso.bench.modes import check_mode
from uso.bench.random_model import random_pipeline
from uso.bench.request import Inputs, Request, draw_inputs
from uso.bench.runs import Timing, outside_blocks, run_ours, run_repeat, run_turns, step_tflop
from uso.config import SPEEDS, MemoryPlan, ModelConfig, load_model_config
from uso.errors import ConfigError
from uso.forecast.forecast import RequestForecaster, forecast
from uso.forecast.meta_model import MetaModel, RequestShape
from uso.images.pixels import TOKEN_SIZE
from uso.memory.device import dtype_name
from uso.memory.plan import GIB, budget_bytes
from uso.memory.residency import Residency
from uso.pipeline.latents import draw_noise, pack
from uso.pipeline.pipeline import USOPipeline
from uso.transformer.compile import speed_error
from uso.version import __version__
from uso.weights.choices import choose_device, choose_dtype, choose_plan
from uso.weights.flags import weights_folders, with_added_loras
from uso.weights.hub.cache import Hub
from uso.weights.loading import load_pipeline, tune
from uso.weights.selection import with_weights

CPU_CHANGES: dict[str, dict[str, Any]] = {
    "transformer": {"num_attention_heads": 4, "num_layers": 4, "num_single_layers": 8},
    "text_encoder": {"num_hidden_layers": 2},
    "text_encoder_2": {"num_layers": 2, "d_ff": 1024, "num_heads": 8},
    "image_encoder": {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4},
    "vae": {"block_out_channels": [32, 64, 128, 128]},
}
"""Reductions on a CPU: smaller widths and depths; head size, tokens and layouts stay FLUX's."""

CPU_SIZE = 256
CPU_STEPS = 4

WARM_UP_STEPS = 2
"""Steps of a warm-up run: every step after the first is the same work."""

OWN_CAP = "plan"
"""`--cap-gib plan`: the limit of each plan."""


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run what the flags request; yields the values of one JSON line per run.

    `--memory` and `--speed` may be comma-separated lists. Every plan runs at every level with the same inputs, and each
    line compares its step with the first run's. `--baseline` adds the plain way where a plan keeps everything on the
    device.

    Raises:
        ConfigError: flags that do not go together.
    """
    config = measured_model(args)
    check_mode(args.mode)
    _check_numbers(args)
    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    speeds = _speeds(args.speed)
    model = MetaModel.from_config(config, dtype)
    plans = [choose_plan(name, device, model.weights().total) for name in args.memory.split(",")]
    caps = [_cap_of(args.cap_gib, plan, device) for plan in plans]
    if args.baseline and all(plan.visit for plan in plans):
        raise ConfigError(
            f"--baseline keeps everything on the device; memory plan '{plans[0].name}' does not. Use full."
        )
    compiles = args.compile == "on" or (args.compile == "auto" and device.type == "cuda")
    if args.own_blocks and (compiles or speeds != [SPEEDS[0]]):
        raise ConfigError("--own-blocks compares blocks that are not compiled, at --speed exact. Add --compile off.")
    rate = MatmulRate.measure(device, dtype)
    first: tuple[float, torch.Tensor] | None = None
    for speed in speeds:
        for plan, cap in zip(plans, caps, strict=True):
            line, latents = _measure_one(args, config, model, plan, speed, cap, device, dtype, rate, first)
            _empty(device)
            first = first or (line["step_median"], latents)
            yield line


def _measure_one(
    args: argparse.Namespace,
    config: ModelConfig,
    model: MetaModel,
    plan: MemoryPlan,
    speed: str,
    cap: float | None,
    device: torch.device,
    dtype: torch.dtype,
    rate: MatmulRate,
    first: tuple[float, torch.Tensor] | None,
) -> tuple[dict[str, Any], torch.Tensor]:
    """One run's line, and its latents on the CPU."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if cap is None else min(1.0, cap * GIB / total), device)
    torch.manual_seed(0)
    pipeline, reduced = _pipeline(args, config, model, plan, speed, cap, device, dtype)
    size = (CPU_SIZE if reduced else config.defaults.width) if args.size is None else args.size
    steps = (CPU_STEPS if reduced else config.defaults.num_inference_steps) if args.steps is None else args.steps
    content_size = max(TOKEN_SIZE, size // 2) if args.content_size is None else args.content_size
    guidance = config.defaults.guidance_scale if config.guidance else None
    request = Request(args.mode, size, size, content_size, steps, guidance)
    inputs = draw_inputs(pipeline, request)
    for _ in range(args.warm_up):
        run_ours(pipeline, request.at_most(WARM_UP_STEPS), inputs)
    pipeline.residency.reset_peak()
    timing = run_ours(pipeline, request, inputs)
    line = _figures(pipeline, request, inputs, timing, rate) | {
        "reduced": reduced,
        "real_weights": args.real_weights,
        "cap_gib": cap,
    }
    if not reduced and speed == SPEEDS[0]:
        line |= _forecast(config, model, plan, inputs, cap)
    repeat = run_repeat(pipeline, inputs)
    line |= {"repeat_seconds": round(repeat.total, 4), "repeat_outside": round(repeat.share_outside, 4)}
    outside = outside_blocks(pipeline, request, lambda run: run_ours(pipeline, run, inputs))
    line["outside_blocks_ms"] = _ms(outside)
    latents = timing.latents.cpu()
    if first is not None:
        noise = pack(draw_noise(0, size, size))
        line["step_to_first"] = round(timing.step_median / first[0], 4)
        line["error_to_first"] = float(f"{speed_error(latents, first[1], noise):.3g}")
    if plan.visit and device.type == "cuda":
        pipeline.residency.release()
        line["link_gb_per_s"] = round(link_rate(device), 2)
    if args.baseline and not plan.visit:
        line["baseline"] = _baseline(pipeline, request, inputs, timing, args.warm_up)
    if args.own_blocks:
        line["own_blocks"] = _turns(pipeline, request, inputs)
    return line, latents


def _turns(pipeline: USOPipeline, request: Request, inputs: Inputs) -> dict[str, Any]:
    """Our eager blocks and diffusers' own: milliseconds of a step as [least, median, most]."""
    turns = run_turns(pipeline, request, inputs)
    return {
        "ours_ms": _spread(turns.ours),
        "diffusers_ms": _spread(turns.theirs),
        "ratio": round(median(turns.theirs) / median(turns.ours), 3),
        "cpu_ratio": round(median(turns.theirs_cpu) / max(median(turns.ours_cpu), 1e-9), 3),
        "latents_difference": float(f"{turns.difference:.3g}"),
    }


def _spread(seconds: list[float]) -> list[float]:
    return [_ms(min(seconds)), _ms(median(seconds)), _ms(max(seconds))]


def _empty(device: torch.device) -> None:
    """Free the memory of a discarded pipeline, including what compiled code still references."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measured_model(args: argparse.Namespace) -> ModelConfig:
    """The model to measure; files of one's own count with real weights alone.

    Raises:
        ConfigError: files are named, and random numbers are to be measured.
    """
    config = load_model_config(args.model)
    if not args.real_weights and (args.weights or args.add_lora):
        raise ConfigError("--weights and --add-lora name files, and random numbers are measured. Add --real-weights.")
    folders = weights_folders(args) if args.real_weights else []
    if folders:
        config, _ = with_weights(config, folders, Hub().cache)
    return with_added_loras(config, args)


def _check_numbers(args: argparse.Namespace) -> None:
    """Refuse impossible numbers. Sizes may exceed the model's limits, but must be whole tokens."""
    for flag, value, least in (
        ("--size", args.size, TOKEN_SIZE),
        ("--content-size", args.content_size, TOKEN_SIZE),
        ("--steps", args.steps, 1),
        ("--warm-up", args.warm_up, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{flag} is {value}; {least} or more is allowed.")
    if args.size is not None and args.size % TOKEN_SIZE:
        raise ConfigError(f"--size is {args.size}; it must be a multiple of {TOKEN_SIZE}.")


def _speeds(flag: str | None) -> list[str]:
    names = (flag or SPEEDS[0]).split(",")
    for name in names:
        if name not in SPEEDS:
            raise ConfigError(f"There is no speed '{name}'. Choose one of: {', '.join(SPEEDS)}.")
    return names


def _cap_of(flag: str | None, plan: MemoryPlan, device: torch.device) -> float | None:
    """GiB that CUDA may allocate under a plan; None for no cap."""
    if flag is None:
        return None
    if device.type != "cuda":
        raise ConfigError("--cap-gib caps CUDA's allocator; this run has no CUDA device.")
    if flag == OWN_CAP:
        return plan.device_gib
    try:
        return float(flag)
    except ValueError as error:
        raise ConfigError(f"--cap-gib is a number of GiB, or '{OWN_CAP}' for each plan's own; not '{flag}'.") from error


def _pipeline(
    args: argparse.Namespace,
    config: ModelConfig,
    model: MetaModel,
    plan: MemoryPlan,
    speed: Any,
    cap: float | None,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[USOPipeline, bool]:
    """The pipeline to measure, and whether it was reduced for a CPU."""
    if args.real_weights:
        ready = load_pipeline(
            config, memory=plan.name, device=str(device), dtype=args.dtype, speed=speed, compile=args.compile
        )
        return ready, False
    reduced = device.type == "cpu"
    pipeline = random_pipeline(
        config,
        dtype=dtype,
        device="cpu" if plan.visit else device,
        fill_device=device,
        changes=CPU_CHANGES if reduced else None,
    )
    forecaster = RequestForecaster(model, config) if plan.visit else None
    residency = Residency(plan, device, budget=_budget(plan, cap), forecaster=forecaster)
    pipeline.provenance |= tune(pipeline, residency, speed, args.compile)
    return pipeline, reduced


def _budget(plan: MemoryPlan, cap: float | None) -> int | None:
    own = budget_bytes(plan)
    return own if cap is None or own is None else min(own, int(cap * GIB))


def _figures(
    pipeline: USOPipeline, request: Request, inputs: Inputs, timing: Timing, rate: MatmulRate
) -> dict[str, Any]:
    device, dtype = pipeline.work_device, pipeline.transformer.dtype
    tflop = step_tflop(pipeline, request, inputs)
    return {
        "uso": __version__,
        "torch": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "dtype": dtype_name(dtype),
        "memory": pipeline.residency.plan.name,
        "speed": pipeline.provenance["speed"],
        "products": pipeline.provenance.get("products", dtype_name(dtype)),
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
        "host_pinned_gib": round(pipeline.residency.pinned / GIB, 2),
        "peak_host_gib": round(host_peak_gib(), 3),
        "tflop_per_step": round(tflop, 4),
        "matmul_tflop_per_s": round(rate.sustained, 3),
        "matmul_best_tflop_per_s": round(rate.best, 3),
        "floor_step": round(tflop / rate.sustained, 5),
        "share_of_matmul_rate": round(tflop / rate.sustained / timing.step_median, 4),
    }


def _forecast(
    config: ModelConfig, model: MetaModel, plan: MemoryPlan, inputs: Inputs, cap: float | None
) -> dict[str, Any]:
    """The forecast of `python -m uso memory` for the same request."""
    shape = RequestShape.of(inputs.whole)
    found = forecast(model, config, plan, shape, _budget(plan, cap))
    return {
        "forecast_device_gib": round(found.device_peak / GIB, 3),
        "forecast_pinned_gib": round(found.host_pinned / GIB, 3),
        "resident_blocks": next(stage.resident_blocks for stage in found.stages if stage.name == "denoise"),
    }


def _baseline(pipeline: USOPipeline, request: Request, inputs: Inputs, ours: Timing, warm_up: int) -> dict[str, Any]:
    for _ in range(warm_up):
        run_baseline(pipeline, request.at_most(WARM_UP_STEPS), inputs)
    pipeline.residency.reset_peak()
    plain = run_baseline(pipeline, request, inputs)
    peak = pipeline.residency.peak_memory_gib()
    outside = outside_blocks(pipeline, request, lambda run: run_baseline(pipeline, run, inputs))
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
