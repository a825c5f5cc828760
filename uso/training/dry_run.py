"""What a run will take, from shapes alone: memory and least time of one step, before anything is loaded or fetched.

The run's own code is traced on the meta device, forwards and backwards, with few blocks; all blocks of a kind add the
same, so the rest follows. Not counted: scratch memory inside kernels, the allocator's gaps, the descriptor of a reward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from uso.architectures import architecture_file, read_component_config
from uso.context import STYLE_LAYERS
from uso.flops import step_flops
from uso.latents import CELL, LATENT_CHANNELS, PATCH, pack
from uso.live_memory import GPU_KERNELS, LiveMemory
from uso.memory import module_bytes
from uso.meta_model import META, MetaModel
from uso.pipeline import USOPipeline
from uso.placement import GIB
from uso.training.batches import TrainingBatch
from uso.training.buckets import Size, bucket_sizes, content_sizes
from uso.training.config import TrainingConfig
from uso.training.frozen import quantize_base
from uso.training.journal import duration
from uso.training.learners import Learners
from uso.training.load import training_model
from uso.training.lora import AdaptedLinear, LoraPair
from uso.training.network import conditioning_of, predict

_FLOAT32 = 4
_MOMENTS = {"adamw": 8, "adamw8bit": 2}
"""Bytes of the optimizer per parameter that learns."""

CARDS = {"RTX 4090": 165e12, "H100 or H200": 790e12}
"""Operations per second in bfloat16 that a card can do at best (the second was measured): for least times."""

_FEW = 2
"""Blocks of a kind in the shortest trace."""


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

    @property
    def total(self) -> int:
        fixed = self.frozen + self.learned + self.gradients + self.optimizer + self.mean
        return fixed + max(self.activations, self.reward_activations)


def dry_run(config: TrainingConfig) -> DryRun:
    """Forecast a run.

    Raises:
        ConfigError: the model or a value is refused.
    """
    model = training_model(config)
    dtype = torch.float32 if config.base == "float32" and config.precision == "float32" else torch.bfloat16
    pipeline = MetaModel.from_config(model, dtype).pipeline
    if config.base == "int8":
        quantize_base(pipeline)
    learners = Learners(pipeline, config)
    count = sum(parameter.numel() for parameter in learners.parameters.values())
    frozen = _frozen(pipeline, learners, _FLOAT32 if config.base == "float32" else None)
    for parameter in learners.parameters.values():
        parameter.data = parameter.data.to(dtype)  # what autocast, or the layer, makes of it for a product
    target, content = _largest(config)
    batch = _batch(pipeline, config, target, content, config.micro_batch)
    with_reward = config.reward.descriptor is not None
    reward = 0
    if with_reward:
        reward = activations(pipeline, batch.first(config.reward.samples), config, config.gradient_checkpointing)
        reward += _decoded(pipeline, batch.first(config.reward.samples), config)
    forward = _forward_flops(config, pipeline, batch)
    again = 1 if config.gradient_checkpointing else 0
    passes = 2 + again + ("transformer" in config.learns)  # forwards, back to inputs, again, back to weights
    mean_steps = config.reward.steps - (config.reward.last + 1) / 2
    samples = min(config.reward.samples or config.micro_batch, config.micro_batch) * config.batch // config.micro_batch
    return DryRun(
        tokens=_tokens(pipeline, batch),
        learned_parameters=count,
        frozen=frozen,
        learned=_FLOAT32 * count,
        gradients=_FLOAT32 * count,
        optimizer=_MOMENTS[config.optimizer.kind] * count,
        mean=0 if config.ema is None else _FLOAT32 * count,
        activations=activations(pipeline, batch, config, config.gradient_checkpointing),
        activations_stored=activations(pipeline, batch, config, checkpointing=False),
        reward_activations=reward,
        flops=forward * passes * config.batch,
        reward_flops=round(forward * (mean_steps + passes) * samples) if with_reward else 0,
    )


def _frozen(pipeline: USOPipeline, learners: Learners, per_number: int | None) -> int:
    """Bytes of what is on the device and does not learn: all but the text encoders.

    Args:
        per_number: bytes of a number where it is held in another dtype than it is traced in.
    """
    learning = {id(parameter) for parameter in learners.parameters.values()}
    sized = sum(
        parameter.numel() * (per_number or parameter.element_size())
        for module in [*_network(pipeline), pipeline.image_encoder]
        for parameter in module.parameters()
        if id(parameter) not in learning
    )
    return sized + module_bytes(pipeline.vae)


def _largest(config: TrainingConfig) -> tuple[Size, Size]:
    """(width, height) of the target bucket with the most pixels, and of its content reference."""
    targets = bucket_sizes(config.data.resolution, config.data.aspects)
    pairs = zip(targets, content_sizes(config.data.content_size, targets), strict=True)
    return max(pairs, key=lambda pair: pair[0][0] * pair[0][1] + pair[1][0] * pair[1][1])


def _batch(pipeline: USOPipeline, config: TrainingConfig, target: Size, content: Size, count: int) -> TrainingBatch:
    """A micro-batch with all conditions, on the meta device."""
    values = pipeline.context_embedder.config
    text, transformer = pipeline.model_config.max_sequence_length, pipeline.transformer.config
    dtype = pipeline.transformer.dtype

    def latents(size: Size) -> torch.Tensor:
        return torch.empty(count, LATENT_CHANNELS, size[1] // CELL, size[0] // CELL, device=META)

    def features() -> dict[int, torch.Tensor]:
        shape = (count, values.image_tokens, values.image_dim)
        return {layer: torch.empty(shape, dtype=dtype, device=META) for layer in STYLE_LAYERS.values()}

    styles = config.data.max_styles if "style" in config.reads else 0
    return TrainingBatch(
        number=0,
        latents=latents(target),
        prompt_embeds=torch.empty(count, text, transformer.joint_attention_dim, dtype=dtype, device=META),
        pooled=torch.empty(count, transformer.pooled_projection_dim, dtype=dtype, device=META),
        styles=tuple(features() for _ in range(styles)),
        content=latents(content) if "content" in config.reads else None,
        style_paths=(),
    )


def _tokens(pipeline: USOPipeline, batch: TrainingBatch) -> tuple[int, int, int]:
    pictures = [batch.latents] if batch.content is None else [batch.latents, batch.content]
    cells = [tensor.shape[-1] * tensor.shape[-2] // PATCH**2 for tensor in pictures]
    styles = len(batch.styles) * len(STYLE_LAYERS) * pipeline.context_embedder.config.style_tokens
    return cells[0], sum(cells[1:]), styles + batch.prompt_embeds.shape[1]


def _forward_flops(config: TrainingConfig, pipeline: USOPipeline, batch: TrainingBatch) -> int:
    """Of the transformer, forwards, for one sample."""
    picture, references, context = _tokens(pipeline, batch)
    values = read_component_config(architecture_file(training_model(config), "transformer"))
    return step_flops(
        values, picture_tokens=picture, reference_tokens=references, context_tokens=context, modulation=True
    )


class _FusedAttention(torch.autograd.Function):
    """What a GPU's attention keeps for the way back: its inputs, its output, a sum for each row."""

    @staticmethod
    def forward(context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        context.save_for_backward(query, key, value, output, sums)
        return output

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _, _ = context.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def _fused() -> Iterator[None]:
    """While inside, attention is counted as a GPU does it; on the meta device torch would write out its matrices."""
    functional: Any = torch.nn.functional
    own = functional.scaled_dot_product_attention

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
        output: torch.Tensor = _FusedAttention.apply(query, key, value)
        return output

    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own


def activations(pipeline: USOPipeline, batch: TrainingBatch, config: TrainingConfig, checkpointing: bool) -> int:
    """Peak bytes of everything but weights while a batch goes forwards and backwards through all blocks."""
    transformer = pipeline.transformer
    doubles, singles = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
    transformer.enable_gradient_checkpointing() if checkpointing else transformer.disable_gradient_checkpointing()
    if doubles <= _FEW and singles <= _FEW:
        return _peak(pipeline, batch, config, doubles, singles)
    few = (min(_FEW, doubles), min(_FEW, singles))
    least = _peak(pipeline, batch, config, *few)
    peak = least
    if doubles > few[0]:
        peak += (doubles - few[0]) * (_peak(pipeline, batch, config, few[0] + 1, few[1]) - least)
    if singles > few[1]:
        peak += (singles - few[1]) * (_peak(pipeline, batch, config, few[0], few[1] + 1) - least)
    return peak


def _peak(pipeline: USOPipeline, batch: TrainingBatch, config: TrainingConfig, doubles: int, singles: int) -> int:
    modules = [*_network(pipeline), pipeline.vae]
    held = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    learning = [tensor for tensor in held if tensor.requires_grad]
    learning += [tensor for pair in _pairs(pipeline) for tensor in pair.parameters()]
    hooks = [tensor.register_post_accumulate_grad_hook(_drop) for tensor in learning]  # they are counted elsewhere
    try:
        with (
            _blocks(pipeline.transformer, doubles, singles),
            LiveMemory(META, weights=[*held, *learning], kernels=GPU_KERNELS) as live,
            _fused(),
        ):
            conditioning = conditioning_of(pipeline, batch, config.guidance)
            velocity = predict(pipeline, conditioning, pack(batch.latents), torch.empty(batch.size, device=META))
            loss = torch.nn.functional.mse_loss(velocity, torch.empty_like(velocity))
            del velocity, conditioning
            loss.backward()
            return live.take_peak()
    finally:
        for hook in hooks:
            hook.remove()


def _drop(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _network(pipeline: USOPipeline) -> list[Any]:
    modulation = pipeline.exchanged.modulation
    return [pipeline.transformer, *modulation.layers, modulation.embedding, pipeline.context_embedder]


def _pairs(pipeline: USOPipeline) -> Iterator[LoraPair]:
    """Of a LoRA that was put in, each once."""
    layers = [module for module in pipeline.transformer.modules() if isinstance(module, AdaptedLinear)]
    return iter({id(layer.pair): layer.pair for layer in layers}.values())


@contextmanager
def _blocks(transformer: Any, doubles: int, singles: int) -> Iterator[None]:
    """While inside, the transformer has only its first blocks."""
    whole = transformer.transformer_blocks, transformer.single_transformer_blocks
    transformer.transformer_blocks = whole[0][:doubles]
    transformer.single_transformer_blocks = whole[1][:singles]
    try:
        yield
    finally:
        transformer.transformer_blocks, transformer.single_transformer_blocks = whole


def _decoded(pipeline: USOPipeline, batch: TrainingBatch, config: TrainingConfig) -> int:
    """Peak bytes of decoding with gradients, at the size that is decoded."""
    size, long = config.reward.decode_size, max(batch.height, batch.width)
    share = 1.0 if size is None or size >= long else size / long
    sides = [max(1, round(side * share)) for side in batch.latents.shape[-2:]]
    latents = torch.empty(batch.size, LATENT_CHANNELS, *sides, device=META, requires_grad=True)
    pipeline.vae.requires_grad_(False)
    pipeline.vae.enable_gradient_checkpointing()
    with LiveMemory(META, weights=[*pipeline.vae.parameters()], kernels=GPU_KERNELS) as live, _fused():
        pipeline.to_pixels(latents).sum().backward()
        return live.take_peak()


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
        line("frozen weights", found.frozen, "text encoders rest on the host"),
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
        f"One step: {found.flops / 1e12:.3g} TFLOP of the transformer.",
    ]
    if found.reward_flops:
        lines.append(f"One step with reward: {found.reward_flops / 1e12:.3g} TFLOP more.")
    for card, speed in CARDS.items():
        seconds = found.flops / speed
        lines.append(
            f"At {speed / 1e12:.0f} TFLOP/s ({card}), the least: {seconds:.3g} s a step, "
            f"{duration(seconds * config.steps)} for {config.steps} steps on one card."
        )
    return "\n".join(lines)
