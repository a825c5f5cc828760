"""Memory that a training step needs besides the weights, traced on the meta device with the run's own code.

Only a few blocks of each kind are run, forwards and backwards. All blocks of a kind need the same amount, so the rest
is computed from these.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from uso.forecast.live_memory import GPU_KERNELS, LiveMemory
from uso.forecast.meta_model import META
from uso.pipeline.latents import CELL, LATENT_CHANNELS, PATCH, pack
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.data.batches import TrainingBatch
from uso.training.data.buckets import Size
from uso.training.losses.flow import conditioning_of, predict
from uso.training.losses.teacher import extra_prompts
from uso.training.model.adapters import AdaptedLinear, LoraPair
from uso.transformer.context_embedder import STYLE_LAYERS

FEW = 2
"""Blocks of a kind in the shortest trace."""


def _shape_alone(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device=META)


def example_batch(
    pipeline: USOPipeline,
    config: TrainingConfig,
    target: Size,
    content: Size,
    count: int,
    make: Callable[..., torch.Tensor] = _shape_alone,
) -> TrainingBatch:
    """A micro-batch with all conditions.

    Args:
        make: gives a float32 tensor of a shape; left out, one on the meta device.
    """
    values = pipeline.context_embedder.config
    text, transformer = pipeline.model_config.max_sequence_length, pipeline.transformer.config
    dtype = pipeline.transformer.dtype

    def latents(size: Size) -> torch.Tensor:
        return make(count, LATENT_CHANNELS, size[1] // CELL, size[0] // CELL)

    def features() -> dict[int, torch.Tensor]:
        shape = (count, values.image_tokens, values.image_dim)
        return {layer: make(*shape).to(dtype) for layer in STYLE_LAYERS.values()}

    def prompts() -> tuple[torch.Tensor, torch.Tensor]:
        return (
            make(count, text, transformer.joint_attention_dim).to(dtype),
            make(count, transformer.pooled_projection_dim).to(dtype),
        )

    styles = config.data.max_styles if "style" in config.reads else 0
    embeds, pooled = prompts()
    return TrainingBatch(
        number=0,
        latents=latents(target),
        prompt_embeds=embeds,
        pooled=pooled,
        styles=tuple(features() for _ in range(styles)),
        content=latents(content) if "content" in config.reads else None,
        style_pictures=(),
        prompts={name: prompts() for name in extra_prompts(config)},
    )


def tokens_of(pipeline: USOPipeline, batch: TrainingBatch) -> tuple[int, int, int]:
    """Of a sample: picture, references, context."""
    pictures = [batch.latents] if batch.content is None else [batch.latents, batch.content]
    cells = [tensor.shape[-1] * tensor.shape[-2] // PATCH**2 for tensor in pictures]
    styles = len(batch.styles) * len(STYLE_LAYERS) * pipeline.context_embedder.config.style_tokens
    return cells[0], sum(cells[1:]), styles + batch.prompt_embeds.shape[1]


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
    if doubles <= FEW and singles <= FEW:
        return _peak(pipeline, batch, config, doubles, singles)
    few = (min(FEW, doubles), min(FEW, singles))
    least = _peak(pipeline, batch, config, *few)
    peak = least
    if doubles > few[0]:
        peak += (doubles - few[0]) * (_peak(pipeline, batch, config, few[0] + 1, few[1]) - least)
    if singles > few[1]:
        peak += (singles - few[1]) * (_peak(pipeline, batch, config, few[0], few[1] + 1) - least)
    return peak


def _peak(pipeline: USOPipeline, batch: TrainingBatch, config: TrainingConfig, doubles: int, singles: int) -> int:
    modules = [*network(pipeline), pipeline.vae]
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


def network(pipeline: USOPipeline) -> list[Any]:
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


def decoded(pipeline: USOPipeline, batch: TrainingBatch, config: TrainingConfig) -> int:
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
