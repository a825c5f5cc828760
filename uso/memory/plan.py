"""Arithmetic of a memory plan: how many of the transformer's blocks stay on the device at each stage of a request.

Pure functions on bytes, no tensors. The resident blocks are the first ones in running order. The others take turns in a
few device buffers (`slots`) while the transformer runs, and are off the device in all other stages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from uso.config import MemoryPlan

GIB = 2**30

RESERVE = GIB // 4
"""Device memory left for what counting tensors misses: cuBLAS and cuDNN workspaces, gaps between allocations."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Bytes of a model's parts, in the dtypes they are loaded in."""

    blocks: tuple[int, ...]
    """The transformer's blocks in running order, without their modulation layers."""
    core: int
    """What always stays on the device: the transformer outside blocks and modulation, and both context projections."""
    modulation: tuple[int, ...]
    """Each modulation layer, then the time embedding."""
    text_encoder: int
    text_encoder_2: int
    """T5 outside its blocks."""
    text_encoder_2_blocks: tuple[int, ...]
    image_encoder: int
    vae: int

    @property
    def total(self) -> int:
        values = (getattr(self, field.name) for field in fields(self))
        return sum(sum(value) if isinstance(value, tuple) else value for value in values)


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Peak bytes of everything but weights, by stage, for one request."""

    text: int
    style: int
    reference: int
    modulation: int
    denoise: int
    """Includes modulation table and conditioning."""
    decode: int


STAGES = tuple(field.name for field in fields(Activations))


def slots_bytes(plan: MemoryPlan, streamed: Sequence[int]) -> int:
    """Size of the device buffers in which parts of these sizes take turns; each buffer fits the largest."""
    return min(plan.slots, len(streamed)) * max(streamed, default=0)


def visiting(plan: MemoryPlan, weights: Weights, stage: str) -> int:
    """Bytes of weights on the device during a stage, apart from core and blocks."""
    everyone = weights.total - weights.core - sum(weights.blocks)
    if not plan.visit:
        return everyone
    *layers, time_embedding = weights.modulation
    return {
        "text": max(weights.text_encoder, weights.text_encoder_2 + slots_bytes(plan, weights.text_encoder_2_blocks)),
        "style": weights.image_encoder,
        "reference": weights.vae,
        "modulation": time_embedding + slots_bytes(plan, layers),
        "denoise": 0,
        "decode": weights.vae,
    }[stage]


def device_bytes(plan: MemoryPlan, weights: Weights, activations: Activations, stage: str, resident: int) -> int:
    """Device memory used in a stage with `resident` blocks on the device, without the reserve."""
    slots = slots_bytes(plan, weights.blocks[resident:]) if stage == "denoise" else 0
    return (
        weights.core
        + sum(weights.blocks[:resident])
        + slots
        + visiting(plan, weights, stage)
        + getattr(activations, stage)
    )


def resident_blocks(
    plan: MemoryPlan, weights: Weights, activations: Activations, stage: str, budget: int | None
) -> int | None:
    """The most blocks that can stay on the device in a stage; None if the stage does not fit even without blocks.

    Args:
        budget: bytes of device memory that may be used; None for no limit.
    """
    most = len(weights.blocks)
    if budget is None:
        return most
    for resident in range(most, -1, -1):
        if resident < most and plan.slots == 0:
            return None
        if device_bytes(plan, weights, activations, stage, resident) + RESERVE <= budget:
            return resident
    return None


def permanent_blocks(plan: MemoryPlan, weights: Weights, worst: Activations, budget: int | None) -> int:
    """Blocks that stay on the device even for the largest request; only the others need a copy in host memory."""
    counts = [resident_blocks(plan, weights, worst, stage, budget) for stage in STAGES]
    return min(count or 0 for count in counts)


def pinned_bytes(plan: MemoryPlan, weights: Weights, permanent: int) -> int:
    """Page-locked host memory for what streams: blocks that may leave the device, T5's blocks, modulation layers."""
    if not plan.visit:
        return 0
    return sum(weights.blocks[permanent:]) + sum(weights.text_encoder_2_blocks) + sum(weights.modulation[:-1])


def budget_bytes(plan: MemoryPlan) -> int | None:
    """Device memory that a plan allows; None for no limit."""
    return None if plan.device_gib is None else int(plan.device_gib * GIB)
