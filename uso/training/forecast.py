"""What a run will take, from shapes alone: memory and least time of one step, before anything is loaded or fetched.

What a step keeps is traced with the run's own code (`activations.py`), the rest is counted. Left out are scratch
memory inside kernels, the allocator's gaps, and the descriptor of a reward.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from uso.bench.flops import step_flops
from uso.forecast.meta_model import MetaModel
from uso.memory.plan import GIB
from uso.memory.sizes import module_bytes
from uso.pipeline.pipeline import USOPipeline
from uso.training.activations import activations, decoded, example_batch, network, tokens_of
from uso.training.config import TrainingConfig
from uso.training.data.batches import TrainingBatch
from uso.training.data.buckets import Size, bucket_sizes, content_sizes
from uso.training.loop.log import duration
from uso.training.loop.optimizer import state_bytes
from uso.training.losses.teacher import make_teacher
from uso.training.model.adapters import Learners
from uso.training.model.load import training_model
from uso.training.model.quantized import quantize_base
from uso.training.model.shard import block_parameters

_FLOAT32 = 4

CARDS = {"RTX 4090": 165e12, "H100 or H200": 790e12}
"""Operations per second in bfloat16 that a card can do at best (the second was measured): for least times."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """A step's needs, for one process; memory in bytes."""

    tokens: tuple[int, int, int]
    """Of the largest sample: picture, references, context."""
    learned_parameters: int
    frozen: int
    learned: int
    gradients: int
    optimizer: int
    mean: int
    activations: int
    activations_stored: int
    """The same without gradient checkpointing."""
    reward_activations: int
    """Of the step with the reward's gradient; 0 without a reward."""
    flops: int
    """Operations of one whole step, all processes together."""
    reward_flops: int
    """What the reward adds to a step that has one."""
    shared: int
    """Of the frozen weights, those that `shard` shares out among the processes."""
    row_bytes: dict[str, int]
    """What one row takes on the disk, by kind of feature."""

    @property
    def total(self) -> int:
        fixed = self.frozen + self.learned + self.gradients + self.optimizer + self.mean
        return fixed + max(self.activations, self.reward_activations)


def dry_run(config: TrainingConfig, changes: dict[str, dict[str, Any]] | None = None) -> DryRun:
    """Forecast a run.

    Args:
        changes: of the model's architecture, see `empty_pipeline`.

    Raises:
        ConfigError: the model or a value is refused.
    """
    model = training_model(config)
    dtype = torch.float32 if config.base == "float32" and config.precision == "float32" else torch.bfloat16
    pipeline = MetaModel.from_config(model, dtype, changes).pipeline
    if config.base in ("int8", "nf4"):
        quantize_base(pipeline, config.base)
    learners = Learners(pipeline, config)
    count = sum(parameter.numel() for parameter in learners.parameters.values())
    frozen = _frozen(pipeline, learners, config)
    for parameter in learners.parameters.values():
        parameter.data = parameter.data.to(dtype)  # what autocast, or the layer, makes of it for a product
    target, content = largest(config)
    batch = example_batch(pipeline, config, target, content, config.micro_batch)
    flow = activations(pipeline, batch, config, config.gradient_checkpointing)
    stored = activations(pipeline, batch, config, checkpointing=False) if config.gradient_checkpointing else flow
    with_reward = config.reward.descriptor is not None
    reward = 0
    if with_reward:
        rolled = batch.first(config.reward.samples)
        same = rolled.size == batch.size
        reward = flow if same else activations(pipeline, rolled, config, config.gradient_checkpointing)
        reward += decoded(pipeline, rolled, config)
    forward = _forward_flops(pipeline, batch)
    again = 1 if config.gradient_checkpointing else 0
    passes = 2 + again + ("transformer" in config.learns)  # forwards, back to inputs, again, back to weights
    teacher = make_teacher(config)
    answers = 0 if teacher is None else teacher.flops(batch, partial(_forward_flops, pipeline))
    mean_steps = config.reward.steps - (config.reward.last + 1) / 2
    samples = min(config.reward.samples or config.micro_batch, config.micro_batch) * config.batch // config.micro_batch
    return DryRun(
        tokens=tokens_of(pipeline, batch),
        learned_parameters=count,
        frozen=frozen,
        learned=_FLOAT32 * count,
        gradients=_FLOAT32 * count,
        optimizer=state_bytes(config.optimizer) * count,
        mean=0 if config.ema is None else _FLOAT32 * count,
        activations=flow,
        activations_stored=stored,
        reward_activations=reward,
        flops=(forward * passes + answers) * config.batch,
        reward_flops=round(forward * (mean_steps + passes) * samples) if with_reward else 0,
        shared=block_parameters(pipeline.transformer) * (4 if config.base == "float32" else 2) if config.shard else 0,
        row_bytes=_row_bytes(batch, config),
    )


def _row_bytes(batch: TrainingBatch, config: TrainingConfig) -> dict[str, int]:
    """Of the features of one row that a run keeps on the disk."""
    latents = [batch.latents] if batch.content is None else [batch.latents, batch.content]
    kinds = {
        "prompt": [batch.prompt_embeds, batch.pooled],
        "latents": latents,
        "style": [tensor for style in batch.styles for tensor in style.values()],
    }
    kept = {kind: sum(tensor.nbytes for tensor in kinds[kind]) // batch.size for kind in config.data.cached}
    return {kind: size for kind, size in kept.items() if size}


def _frozen(pipeline: USOPipeline, learners: Learners, config: TrainingConfig) -> int:
    """Bytes of what is on the device and does not learn; the text encoders stay only where prompts are not cached."""
    learning = {id(parameter) for parameter in learners.parameters.values()}
    per_number = _FLOAT32 if config.base == "float32" else None  # it may be traced in another dtype than it is held in
    encoders = () if "prompt" in config.data.cached else (pipeline.text_encoder, pipeline.text_encoder_2)
    sized = sum(
        parameter.numel() * (per_number or parameter.element_size())
        for module in [*network(pipeline), pipeline.image_encoder, *encoders]
        for parameter in module.parameters()
        if id(parameter) not in learning
    )
    return sized + module_bytes(pipeline.vae)


def largest(config: TrainingConfig) -> tuple[Size, Size]:
    """(width, height) of the target bucket with the most pixels, and of its content reference."""
    targets = bucket_sizes(config.data.resolution, config.data.aspects)
    pairs = zip(targets, content_sizes(config.data.content_size, targets), strict=True)
    return max(pairs, key=lambda pair: pair[0][0] * pair[0][1] + pair[1][0] * pair[1][1])


def _forward_flops(pipeline: USOPipeline, batch: TrainingBatch) -> int:
    """Of the transformer, forwards, for one sample."""
    picture, references, context = tokens_of(pipeline, batch)
    values = {key: value for key, value in pipeline.transformer.config.items() if not key.startswith("_")}
    return step_flops(
        values, picture_tokens=picture, reference_tokens=references, context_tokens=context, modulation=True
    )


def _disk(row_bytes: dict[str, int]) -> str:
    """What the cache of features takes, for a person to read."""
    one = sum(row_bytes.values())
    if not one:
        return "No features are kept on the disk: everything is encoded at every step."
    parts = ", ".join(f"{kind} {size / 1e6:.1f}" for kind, size in row_bytes.items())
    return (
        f"Cache of features: {one / 1e6:.1f} MB a row on the disk ({parts}): {one / 1e6:.0f} GB for 1,000 rows, "
        f"{200_000 * one / 1e12:.1f} TB for the paper's 200,000. data.cached names the kinds that are kept."
    )


def as_text(config: TrainingConfig, found: DryRun) -> str:
    """A forecast for a person to read."""

    def line(name: str, size: int, note: str = "") -> str:
        return f"  {name:<18}{size / GIB:8.2f}  {note}".rstrip()

    picture, references, context = found.tokens
    without = f"{found.activations_stored / GIB:.2f} without gradient checkpointing"
    lines = [
        f"{config.name}: {config.description.strip()}",
        f"Learns: {', '.join(config.learns)} ({found.learned_parameters / 1e6:.1f} million parameters) on "
        f"{config.model} in {config.base}.",
        f"A sample has {picture} picture, {references} reference and {context} context tokens; {config.micro_batch} at "
        f"once, {config.batch} a step.",
        "",
        "Device memory of one process, in GiB:",
        line("frozen weights", found.frozen, f"text encoders {'are freed' if 'prompt' in found.row_bytes else 'stay'}"),
        *([line("... in blocks", found.shared, "shared out: divide by the processes")] if found.shared else []),
        line("learned weights", found.learned),
        line("gradients", found.gradients),
        line("optimizer", found.optimizer, config.optimizer.kind),
        line("running mean", found.mean),
        line("activations", found.activations, without if config.gradient_checkpointing else ""),
    ]
    if found.reward_activations:
        lines.append(line("... reward", found.reward_activations, "instead, while the reward has its turn"))
    lines += [
        line("sum", found.total, "scratch memory of kernels and a reward's descriptor come on top"),
        "",
        _disk(found.row_bytes),
        f"One step: {found.flops / 1e12:.3g} TFLOP of the transformer.",
    ]
    if found.reward_flops:
        lines.append(f"One step with reward: {found.reward_flops / 1e12:.3g} TFLOP more.")
    rewarded = 0
    if found.reward_flops:
        rewarded = sum(config.reward.weight_at(step) > 0 for step in range(config.steps))
        lines[-1] += f" {rewarded} of {config.steps} steps have one."
    for card, speed in CARDS.items():
        seconds = found.flops / speed
        whole = seconds * config.steps + found.reward_flops / speed * rewarded
        lines.append(
            f"At {speed / 1e12:.0f} TFLOP/s ({card}), the least: {seconds:.3g} s a step, "
            f"{duration(whole)} for {config.steps} steps on one card."
        )
    return "\n".join(lines)
