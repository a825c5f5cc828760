"""How much memory a request will need under a plan, stage by stage, before anything is loaded.

Combines the size of the model and of a request's tensors (`uso.forecast.meta_model`) with the arithmetic of plans
(`uso.memory.plan`). `python -m uso memory` prints it; `Residency` uses it through `RequestForecaster`.
"""

from dataclasses import dataclass, replace

from uso.config import MemoryPlan, ModelConfig
from uso.forecast.meta_model import MetaModel, RequestShape
from uso.images import TOKEN_SIZE
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
from uso.request import GenerationRequest


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
    budget = budget_bytes(plan) if budget is None else budget
    weights, needs = model.weights(), model.activations(shape)
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
    long = max(shape.height, shape.width)
    floor = min(config.limits.min_size, shape.height, shape.width)  # keep-input-size goes below the limit

    def scaled(tokens: int) -> RequestShape:
        sides = (max(1, round(tokens * side / long)) * TOKEN_SIZE for side in (shape.height, shape.width))
        height, width = sides
        return replace(shape, height=height, width=width)

    sizes = [scaled(tokens) for tokens in range(1, long // TOKEN_SIZE + 1)]
    sizes = [size for size in sizes if min(size.height, size.width) >= floor]
    fitting = None
    while sizes:
        middle = len(sizes) // 2
        if forecast(model, config, plan, sizes[middle], budget).fits:
            fitting, sizes = sizes[middle], sizes[middle + 1 :]
        else:
            sizes = sizes[:middle]
    return None if fitting is None else (fitting.width, fitting.height)


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
