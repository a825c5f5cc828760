"""Training steps on random weights: the figures behind `python -m uso train CONFIG --bench N`.

The run's own model and steps at full size (reduced on a CPU). Weights, features and style pictures are random: nothing
is fetched, no files of the run are read, and no results are written. The reward has a random CSD of the published size,
whatever descriptor is named, and runs where `reward.start_step` is 0.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from accelerate import PartialState, init_empty_weights
from transformers import CLIPVisionConfig

from uso.bench.machine import Clock, device_name, host_peak_gib
from uso.bench.measure import CPU_CHANGES
from uso.bench.random_model import fill, random_pipeline
from uso.config import architecture_file, load_memory_plan, read_component_config
from uso.evaluation.metrics.csd import CSD
from uso.memory.plan import GIB
from uso.memory.residency import Residency
from uso.pipeline.pipeline import USOPipeline
from uso.training.activations import example_batch
from uso.training.config import StartConfig, TrainingConfig
from uso.training.data.batches import Position, TrainingBatch
from uso.training.data.source import StylePicture
from uso.training.forecast import dry_run, largest
from uso.training.loop.optimizer import check_optimizer
from uso.training.loop.precision import compiling, multiplies_bfloat16
from uso.training.loop.trainer import Judges, Trainer
from uso.training.losses.reward import StyleScore
from uso.training.losses.seeds import generator
from uso.training.model.load import bring_to_device, training_model, weights_dtype
from uso.training.prepare import processes_on
from uso.transformer.compile import cache_folder, compile_blocks
from uso.version import __version__
from uso.weights.choices import choose_device

Changes = dict[str, dict[str, Any]]

TOWER: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
}
VECTOR = 768
"""The published CSD's sizes."""

CPU_TOWER = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
"""What a CPU takes in their place."""

CPU_SIDE, CPU_ROLL_OUT = 128, {"steps": 4, "last": 2}
"""Sides of pictures, and the reward's steps, where a CPU computes."""

STYLE_SIDE = 384
"""Side of a drawn style picture."""


class DrawnBatches:
    """Micro-batches of a run's largest shape, without end: latents are new each time, features the same again.

    Args:
        rank, processes: the number of this process, and how many there are.
    """

    def __init__(self, pipeline: USOPipeline, config: TrainingConfig, rank: int = 0, processes: int = 1) -> None:
        draw = generator(config.seed, "bench")
        self.example = example_batch(
            pipeline, config, *largest(config), config.micro_batch, lambda *shape: torch.randn(shape, generator=draw)
        )
        self.seed = config.seed
        self.rank, self.processes = rank, processes
        self.position = Position()

    def take(self) -> TrainingBatch:
        example, number = self.example, self.position.taken + self.rank
        draw = generator(self.seed, "bench", number)
        self.position = Position(taken=self.position.taken + self.processes)
        content = example.content
        return replace(
            example,
            number=number,
            latents=torch.randn(example.latents.shape, generator=draw),
            content=None if content is None else torch.randn(content.shape, generator=draw),
            style_pictures=tuple(
                tuple(Path(f"{number}-{sample}-{slot}") for slot in range(len(example.styles)))
                for sample in range(example.size)
            ),
        )

    def close(self) -> None:
        """Nothing is open."""


class DrawnScore(StyleScore):
    """A score whose style pictures are noise and no files."""

    @torch.no_grad()
    def _vector(self, source: StylePicture) -> torch.Tensor:
        draw = generator(0, f"bench/{source}")
        pixels = 2 * torch.rand(1, 3, STYLE_SIDE, STYLE_SIDE, generator=draw) - 1
        return self.descriptor(pixels.to(self.device))[0]


def run_bench(config: TrainingConfig, steps: int, out: Callable[[str], None]) -> None:
    """Measure, and write the line; several processes write one.

    Raises:
        USOError: with the remedy.
    """
    line = measure(config, steps)
    if PartialState().is_main_process:
        out(json.dumps(line))


def measure(config: TrainingConfig, steps: int) -> dict[str, Any]:
    """Time some steps, after one to warm up: the values of one JSON line.

    Raises:
        ConfigError: the run is refused.
        USOError: the loss is no number any more.
    """
    device = choose_device(config.device)
    check_optimizer(config.optimizer, device)
    device, process = processes_on(device)
    config.accumulation(process.num_processes)
    config, changes = reduced(compiling(benched(config), device), device)
    forecast = dry_run(config, changes)
    trainer = make_trainer(config, device, process, changes)
    seconds, values = timed(trainer, 1 + steps)
    rewards = [value["reward"] for value in values[1:] if "reward" in value]
    flops = forecast.flops + (forecast.reward_flops if rewards else 0)
    return {
        "run": config.name,
        "model": config.model,
        "uso": __version__,
        "torch": torch.__version__,
        "device": device_name(device),
        "processes": process.num_processes,
        "reduced": changes is not None,
        "learns": list(config.learns),
        "base": config.base,
        "optimizer": config.optimizer.kind,
        "gradient_checkpointing": config.gradient_checkpointing,
        "compiled": config.compile,
        "batch": config.batch,
        "micro_batch": config.micro_batch,
        "resolution": config.data.resolution,
        "content_size": config.data.content_size if "content" in config.reads else None,
        "tokens": dict(zip(("picture", "references", "context"), forecast.tokens, strict=True)),
        "learned_parameters": forecast.learned_parameters,
        "steps": steps,
        "step_median": round(median(seconds[1:]), 4),
        "step_first": round(seconds[0], 4),
        "tflop_per_step": round(flops / 1e12, 4),
        "peak_device_gib": trainer.pipeline.residency.peak_memory_gib(),
        "forecast_device_gib": round(forecast.total / GIB, 3),
        "peak_host_gib": round(host_peak_gib(), 3),
        "loss_first": values[1]["loss"],
        "loss_last": values[-1]["loss"],
        "reward": fmean(rewards) if rewards else None,
    }


def benched(config: TrainingConfig) -> TrainingConfig:
    """The run without files, and without a reward that its first steps do not have."""
    reward = config.reward
    if reward.start_step > 0 or reward.weight == 0:
        reward = reward.model_copy(update={"descriptor": None})
    return config.model_copy(update={"start": StartConfig(), "reward": reward})


def reduced(config: TrainingConfig, device: torch.device) -> tuple[TrainingConfig, Changes | None]:
    """On a CPU what is larger than `CPU_CHANGES` is cut down to it: one micro-batch of small pictures a step."""
    values = read_component_config(architecture_file(training_model(config), "transformer"))
    if device.type != "cpu" or values["num_layers"] <= CPU_CHANGES["transformer"]["num_layers"]:
        return config, None
    data = config.data.model_copy(update={"resolution": CPU_SIDE, "content_size": CPU_SIDE})
    reward = config.reward.model_copy(update=CPU_ROLL_OUT)
    update: dict[str, Any] = {"data": data, "reward": reward, "batch": config.micro_batch}
    if config.base == "bfloat16" and not multiplies_bfloat16(device.type):
        update["base"] = "float32"
    return config.model_copy(update=update), CPU_CHANGES


def make_trainer(
    config: TrainingConfig, device: torch.device, process: PartialState, changes: Changes | None
) -> Trainer:
    """The run's trainer on drawn weights and batches; text encoders, which a run lets go, are left out."""
    pipeline = random_pipeline(
        training_model(config),
        dtype=weights_dtype(config),
        device="cpu" if config.quantized else device,  # rounded on the host, as a run does
        fill_device=device,
        changes=changes,
        without=("text_encoder", "text_encoder_2"),
    )
    pipeline.residency = Residency(load_memory_plan("full"), device)
    bring_to_device(pipeline, config, process.num_processes)
    judges = Judges()
    if config.reward.descriptor is not None:
        judges = Judges(learned=DrawnScore(_descriptor(device), device))
    pipeline.residency.release()
    pipeline.residency.reset_peak()
    batches = DrawnBatches(pipeline, config, process.process_index, process.num_processes)
    trainer = Trainer(pipeline, config, batches, judges=judges, process=process)
    if config.compile:
        compile_blocks(pipeline.transformer, cache_folder())
    return trainer


def _descriptor(device: torch.device) -> CSD:
    with init_empty_weights():
        descriptor = CSD(CLIPVisionConfig(**(TOWER | (CPU_TOWER if device.type == "cpu" else {}))), VECTOR)
    fill(descriptor, device, torch.Generator(device).manual_seed(0))
    return descriptor.eval()


def timed(trainer: Trainer, steps: int) -> tuple[list[float], list[dict[str, float]]]:
    """Seconds and values of each step; the device finishes each before the next."""
    clock = Clock(trainer.pipeline.work_device)
    seconds, values = [], []
    for _ in range(steps):
        began = clock.now()
        values.append(trainer.update())
        seconds.append(clock.now() - began)
    return seconds, values
