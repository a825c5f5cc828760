"""Whether a faster way still makes the same pictures: `python -m uso bench --compare`.

The same requests are made by the model as it is released, and by what the flags say (`--add-lora`, `--speed`), with the
same seeds. If the latter takes fewer steps, the released model makes them with as few, too: what a LoRA adds to fewer
steps shows beside it. Only real weights can tell; this tells nothing about quality beyond the distance.
"""

import argparse
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uso.bench.measure import measured_model
from uso.config import SPEEDS, ModelConfig, Schedule, Speed
from uso.errors import ConfigError
from uso.evaluation.sheet import ROWS, SheetRow, contact_sheet
from uso.output import check_folder
from uso.pipeline.latents import draw_noise, pack
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest, GenerationResult, ReferenceImage
from uso.transformer.compile import speed_error
from uso.weights.loading import load_pipeline

PROMPT = "A fox in the snow."
SHEET = "compare.png"


@dataclass(frozen=True)
class Made:
    """One picture."""

    latents: torch.Tensor
    """Packed, [1, tokens, 64], float32."""
    pixels: NDArray[np.uint8]
    seconds: float


@dataclass(frozen=True)
class Way:
    """One way of making the pictures."""

    name: str
    steps: int
    guidance: float | None
    schedule: Schedule


def compare(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Make the pictures of all ways; yields a JSON line per seed, then one of medians, and writes a sheet.

    Raises:
        ConfigError, OutputError: the flags do not go together, or the folder cannot be written to.
    """
    released, candidate = _configs(args)
    if not 1 <= args.seeds <= ROWS:
        raise ConfigError(f"--seeds is {args.seeds}; 1 to {ROWS} are allowed.")
    speed: Speed = args.speed or SPEEDS[0]
    if speed not in SPEEDS:
        raise ConfigError(f"--compare takes one --speed, {' or '.join(SPEEDS)}; not '{speed}'.")
    folder = Path(args.compare)
    check_folder(folder)
    exact, fast = _way("released", released, args, False), _way("candidate", candidate, args, True)
    seeds = range(args.seeds)
    ways = [exact]
    if fast.steps < exact.steps:
        ways.append(Way(f"released, {fast.steps} steps", fast.steps, fast.guidance, fast.schedule))
    made = _pictures(args, released, SPEEDS[0], ways, seeds) | _pictures(args, candidate, speed, [fast], seeds)
    lines = []
    for seed in seeds:
        one = made[exact][seed]
        noise = pack(draw_noise(seed, *one.pixels.shape[:2]))
        line: dict[str, Any] = {"seed": seed}
        for way in [*ways[1:], fast]:
            other = made[way][seed]
            line[way.name] = {
                "latents_distance": float(f"{speed_error(other.latents, one.latents, noise):.3g}"),
                "pixel_difference": round(float(np.abs(other.pixels.astype(int) - one.pixels.astype(int)).mean()), 2),
            }
        lines.append(line)
        yield line
    _sheet({way: list(found.values()) for way, found in made.items()}, lines).save(folder / SHEET)
    yield {
        "sheet": str(folder / SHEET),
        "ways": {
            way.name: {
                "steps": way.steps,
                "guidance_scale": way.guidance,
                "seconds": round(median(each.seconds for each in found.values()), 3),
            }
            for way, found in made.items()
        },
        "latents_distance": {
            way.name: median(line[way.name]["latents_distance"] for line in lines) for way in [*ways[1:], fast]
        },
    }


def _configs(args: argparse.Namespace) -> tuple[ModelConfig, ModelConfig]:
    """The model as it is released, and with the LoRAs that the flags add."""
    if not args.real_weights:
        raise ConfigError("--compare makes pictures, which random numbers cannot. Add --real-weights.")
    if not args.add_lora and args.speed in (None, SPEEDS[0]) and args.schedule is None:
        raise ConfigError("--compare needs something to compare: --add-lora FILE, --speed fast or --schedule.")
    return measured_model(argparse.Namespace(**(vars(args) | {"add_lora": None}))), measured_model(args)


def _way(name: str, config: ModelConfig, args: argparse.Namespace, candidate: bool) -> Way:
    """`--steps` and `--schedule` are the candidate's; the released model has its defaults."""
    steps = args.steps if candidate and args.steps is not None else config.defaults.num_inference_steps
    schedule = args.schedule if candidate and args.schedule is not None else config.defaults.schedule
    return Way(name, steps, config.defaults.guidance_scale if config.guidance else None, schedule)


def _pictures(
    args: argparse.Namespace, config: ModelConfig, speed: Speed, ways: list[Way], seeds: range
) -> dict[Way, dict[int, Made]]:
    """All seeds in all ways by one model, which is gone afterwards: two need not fit on a device."""
    pipeline = load_pipeline(
        config, memory=args.memory, device=args.device, dtype=args.dtype, speed=speed, compile=args.compile
    )
    made = {way: {seed: _picture(pipeline, args, way, seed) for seed in seeds} for way in ways}
    device = pipeline.work_device
    del pipeline
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return made


def _picture(pipeline: USOPipeline, args: argparse.Namespace, way: Way, seed: int) -> Made:
    size = {} if args.size is None else {"width": args.size, "height": args.size}
    request = GenerationRequest.create(
        pipeline.model_config,
        args.prompt or PROMPT,
        content_images=[ReferenceImage.from_path(path) for path in args.content or ()],
        style_images=[ReferenceImage.from_path(path) for path in args.style or ()],
        num_inference_steps=way.steps,
        guidance_scale=way.guidance,
        schedule=way.schedule,
        seed=seed,
        **size,
    )
    began, latents = time.perf_counter(), torch.empty(0)
    for event in pipeline.stream(request):
        if isinstance(event, GenerationResult):
            return Made(latents.cpu(), np.asarray(event.image), time.perf_counter() - began)
        if event.latents is not None:
            latents = event.latents
    raise AssertionError("A request ends with its picture.")


def _sheet(made: dict[Way, list[Made]], lines: list[dict[str, Any]]) -> Any:
    rows = []
    for index, line in enumerate(lines):
        distances = ", ".join(
            f"{name}: {values['latents_distance']:g}" for name, values in line.items() if name != "seed"
        )
        pictures: dict[str, NDArray[np.uint8] | None] = {
            f"{way.name} ({way.steps} steps)": found[index].pixels for way, found in made.items()
        }
        rows.append(SheetRow(pictures, f"seed {line['seed']}, distance of latents {distances}"))
    return contact_sheet(rows)
