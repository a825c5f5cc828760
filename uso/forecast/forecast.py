"""How much memory a request will need under a plan, stage by stage, before anything is loaded.

Combines the size of the model and of a request's tensors (`uso.forecast.meta_model`) with the arithmetic of plans
(`uso.memory.plan`). `python -m uso memory` prints it; `Residency` uses it through `RequestForecaster`.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Any

from uso.config import MemoryPlan, ModelConfig
from uso.forecast.meta_model import MetaModel, RequestShape
from uso.images.pixels import TOKEN_SIZE
from uso.memory.plan import (
    RESERVE,
    STAGES,
    Activations,
    budget_bytes,
    device_bytes,
    permanent_blocks,
    pinned_bytes,
    resident_blocks,
)
from uso.request.request import GenerationRequest

MAX_GUESSES = 6
"""Guesses in a search before it halves what is left. What a stage takes grows with the area, so a guess by two
known sizes is mostly right."""


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """Device memory at one stage, in bytes."""

    name: str
    weights: int
    activations: int
    peak: int
    resident_blocks: int
    """How many of the transformer's blocks can stay on the device."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a request needs under a plan, in bytes."""

    stages: tuple[StageForecast, ...]
    """The stages that the request goes through, in order."""
    budget: int | None
    """Device memory that may be used, including `uso.memory.plan.RESERVE`; None for no limit."""
    host_pinned: int

    @property
    def device_peak(self) -> int:
        """Without the reserve."""
        return max(stage.peak for stage in self.stages)

    @property
    def fits(self) -> bool:
        return self.budget is None or self.device_peak + RESERVE <= self.budget


def forecast(
    model: MetaModel, config: ModelConfig, plan: MemoryPlan, shape: RequestShape, budget: int | None = None
) -> Forecast:
    """What a request needs under a plan.

    Args:
        budget: bytes of device memory that may be used; if None, what the plan allows.
    """
    return _forecast(model, config, plan, shape, model.activations(shape), budget)


def _forecast(
    model: MetaModel,
    config: ModelConfig,
    plan: MemoryPlan,
    shape: RequestShape,
    needs: Activations,
    budget: int | None,
) -> Forecast:
    budget = budget_bytes(plan) if budget is None else budget
    weights = model.weights()
    permanent = permanent_blocks(plan, weights, model.activations(RequestShape.worst(config)), budget)
    skipped = {"style"} if not shape.num_styles else set()
    skipped |= {"reference"} if not shape.content_sizes else set()
    stages = []
    for name in STAGES:
        if name in skipped:
            continue
        resident = max(resident_blocks(plan, weights, needs, name, budget) or 0, permanent)
        if not plan.slots:
            resident = len(weights.blocks)
        peak, activations = device_bytes(plan, weights, needs, name, resident), getattr(needs, name)
        stages.append(
            StageForecast(
                name=name,
                weights=peak - activations,
                activations=activations,
                peak=peak,
                resident_blocks=resident,
            )
        )
    return Forecast(stages=tuple(stages), budget=budget, host_pinned=pinned_bytes(plan, weights, permanent))


def largest_size_that_fits(
    model: MetaModel, config: ModelConfig, plan: MemoryPlan, shape: RequestShape, budget: int | None = None
) -> tuple[int, int] | None:
    """The largest picture, no larger than requested and of the same shape, that fits a plan with all its references.

    Returns:
        (width, height), multiples of 16 within the model's limits; None if none fits.
    """
    sizes = _smaller_sizes(config, shape)

    def fits(index: int) -> bool:
        return forecast(model, config, plan, sizes[index], budget).fits

    if not sizes or not fits(0):
        return None
    if fits(len(sizes) - 1):
        return sizes[-1].width, sizes[-1].height
    low, high, guesses = 0, len(sizes) - 1, 0  # low fits, high does not
    while high - low > 1:
        guess = (low + high) // 2
        if guesses < MAX_GUESSES:
            guesses += 1
            ends = sizes[low], sizes[high]
            known = model.activations(ends[0]), model.activations(ends[1])

            def likely(index: int, ends: Any = ends, known: Any = known) -> bool:
                needs = _between(ends, known, sizes[index])
                return _forecast(model, config, plan, sizes[index], needs, budget).fits

            between = range(low + 1, high)
            guess = max(low + 1, low + bisect_left(between, True, key=lambda index: not likely(index)))
        low, high = (guess, high) if fits(guess) else (low, guess)
    return sizes[low].width, sizes[low].height


def _smaller_sizes(config: ModelConfig, shape: RequestShape) -> list[RequestShape]:
    """The request with pictures of its shape, from the smallest that the model allows to its own."""
    long = max(shape.height, shape.width)
    floor = min(config.limits.min_size, shape.height, shape.width)  # keep-input-size goes below the limit

    def scaled(tokens: int) -> RequestShape:
        sides = (max(1, round(tokens * side / long)) * TOKEN_SIZE for side in (shape.height, shape.width))
        height, width = sides
        return replace(shape, height=height, width=width)

    sizes = [scaled(tokens) for tokens in range(1, long // TOKEN_SIZE + 1)]
    return [size for size in sizes if min(size.height, size.width) >= floor]


def _between(
    ends: tuple[RequestShape, RequestShape], known: tuple[Activations, Activations], shape: RequestShape
) -> Activations:
    """What a picture takes whose area is between those of two known ones, if all of it grows with the area."""
    small, large, area = (each.height * each.width for each in (*ends, shape))
    share = (area - small) / (large - small)
    values = {name: (getattr(known[0], name), getattr(known[1], name)) for name in STAGES}
    return Activations(**{name: round(least + share * (most - least)) for name, (least, most) in values.items()})


class RequestForecaster:
    """Forecasts for `Residency`: its `Forecaster`."""

    def __init__(self, model: MetaModel, config: ModelConfig) -> None:
        self.model = model
        self.config = config

    def activations(self, request: GenerationRequest | None) -> Activations:
        """Peak bytes of a request, or of the largest one (None)."""
        shape = RequestShape.worst(self.config) if request is None else RequestShape.of(request)
        return self.model.activations(shape)

    def largest_size(self, request: GenerationRequest, plan: MemoryPlan, budget: int) -> tuple[int, int] | None:
        """(width, height) of the largest picture of the request's shape that fits."""
        return largest_size_that_fits(self.model, self.config, plan, RequestShape.of(request), budget)
