"""Where weights live: a `Residency` keeps a pipeline within a plan's device memory, stage by stage.

Encoders and autoencoder visit the device while they work. T5 and the modulation layers pass through it layer by layer.
The first of the transformer's blocks stay and the rest stream (`streaming.py`); fewer stay while something large
visits. The computed numbers never depend on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from uso.config import MemoryPlan
from uso.errors import ConfigError, RequestError
from uso.memory.plan import (
    GIB,
    STAGES,
    Activations,
    Weights,
    budget_bytes,
    permanent_blocks,
    pinned_bytes,
    resident_blocks,
)
from uso.memory.sizes import weights_of
from uso.memory.streaming import BlockStream
from uso.request.request import GenerationRequest

NOTHING = Activations(text=0, style=0, reference=0, modulation=0, denoise=0, decode=0)


class Forecaster(Protocol):
    """Knows what a request needs beside weights; `uso.forecast.forecast` derives it from shapes."""

    def activations(self, request: GenerationRequest | None) -> Activations:
        """Peak bytes of a request, or of the largest one (None)."""

    def largest_size(self, request: GenerationRequest, plan: MemoryPlan, budget: int) -> tuple[int, int] | None:
        """(width, height) of the largest picture of the request's shape that fits."""


class Residency:
    """Placement of a pipeline's modules on one device under one plan.

    Args:
        budget: bytes of device memory to stay within; the plan's own if None.
        forecaster: knows what requests need; without one, only weights count.
    """

    def __init__(
        self,
        plan: MemoryPlan,
        device: torch.device | str,
        *,
        budget: int | None = None,
        forecaster: Forecaster | None = None,
    ) -> None:
        self.plan = plan
        self.device = torch.device(device)
        self.budget = budget_bytes(plan) if budget is None else budget
        self.forecaster = forecaster
        self.weights: Weights | None = None
        self.blocks: BlockStream | None = None
        """The transformer's blocks, if the plan streams."""
        self._streams: dict[str, BlockStream] = {}
        self.pinned = 0
        """Bytes of page-locked host memory."""
        self._allowed: dict[str, int] = {}

    def place(self, pipeline: Any) -> None:
        """Move what stays to the device, and set up what visits and what streams.

        Raises:
            ConfigError: the weights alone do not fit, on the device or on the host.
        """
        modulation = pipeline.exchanged.modulation
        if not self.plan.visit:
            for module in [*pipeline.components.values(), *modulation.layers, modulation.embedding]:
                if isinstance(module, nn.Module):
                    module.to(self.device)
            return
        self.weights = weights_of(pipeline)
        permanent = self.permanent_blocks(self.weights)
        self.pinned = pinned_bytes(self.plan, self.weights, permanent)
        self._check_room()
        blocks = [*pipeline.transformer.transformer_blocks, *pipeline.transformer.single_transformer_blocks]
        self.blocks = self._stream("denoise", blocks, permanent)
        self._stream("modulation", modulation.layers, 0)
        if pipeline.text_encoder_2 is not None:
            self._stream("text", pipeline.text_encoder_2.encoder.block, 0)
        _move_outside(pipeline.transformer, blocks, self.device)
        pipeline.context_embedder.to(self.device)

    def permanent_blocks(self, weights: Weights) -> int:
        """Blocks that stay on the device even for the largest request."""
        return permanent_blocks(self.plan, weights, self._needs(None), self.budget)

    def _stream(self, stage: str, blocks: Any, permanent: int) -> BlockStream:
        stream = BlockStream(blocks, self.device, slots=self.plan.slots, permanent=permanent)
        self._streams[stage] = stream
        return stream

    def _check_room(self) -> None:
        assert self.weights is not None
        for stage in STAGES:
            if resident_blocks(self.plan, self.weights, NOTHING, stage, self.budget) is None:
                raise ConfigError(
                    f"Memory plan '{self.plan.name}' allows {(self.budget or 0) / GIB:.1f} GiB on the device, and this "
                    "model's weights need more. Choose a plan for a larger card."
                )

    # Stages of a request.

    def begin(self, request: GenerationRequest) -> None:
        """Work out how many blocks can stay at each stage of a request.

        Raises:
            RequestError: the request does not fit; names the size that does.
        """
        self._allowed = {}
        if self.weights is None or self.budget is None or self.blocks is None:
            return
        needs = self._needs(request)
        for stage in STAGES:
            count = resident_blocks(self.plan, self.weights, needs, stage, self.budget)
            if count is None or count < self.blocks.permanent:  # more references than the plan allows for
                raise RequestError(self._too_large(request))
            self._allowed[stage] = count

    def _too_large(self, request: GenerationRequest) -> str:
        assert self.budget is not None
        message = (
            f"A picture of {request.width} x {request.height} with these references does not fit the memory plan "
            f"'{self.plan.name}' ({self.budget / GIB:.1f} GiB)."
        )
        size = self.forecaster.largest_size(request, self.plan, self.budget) if self.forecaster else None
        if size is None:
            return f"{message} Use fewer or smaller references, or a plan for a larger card."
        return f"{message} {size[0]} x {size[1]} does."

    def _needs(self, request: GenerationRequest | None) -> Activations:
        return NOTHING if self.forecaster is None else self.forecaster.activations(request)

    def enter(self, stage: str) -> None:
        """Make room for a stage: free the other streams' slots and surplus blocks; `denoise` brings blocks back."""
        if self.blocks is None:
            return
        allowed = max(self._allowed.get(stage, 0), self.blocks.permanent)
        if self.blocks.resident > allowed or (stage == "denoise" and self.blocks.resident < allowed):
            self.blocks.set_resident(allowed)
        for other, stream in self._streams.items():
            if other != stage:
                stream.release_slots()

    @contextmanager
    def visit(self, module: nn.Module) -> Iterator[None]:
        """While inside, `module` is on the device, except for parts that stream. Its host copy is kept."""
        if not self.plan.visit:
            yield
            return
        host: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        try:
            visiting: dict[int, torch.Tensor] = {}
            for part in _unstreamed(module):
                homes: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
                for slots in homes:
                    for name, tensor in slots.items():
                        if tensor is None:
                            continue
                        host.append((slots, name, tensor))
                        if id(tensor) not in visiting:  # a tied tensor is moved once
                            moved = tensor.data.to(self.device)
                            is_parameter = isinstance(tensor, nn.Parameter)
                            visiting[id(tensor)] = nn.Parameter(moved, requires_grad=False) if is_parameter else moved
                        slots[name] = visiting[id(tensor)]
            yield
        finally:
            for slots, name, tensor in host:
                slots[name] = tensor

    # Device memory.

    def peak_memory_gib(self) -> float | None:
        """Peak device memory since `reset_peak`, in GiB; None on a CPU and on MPS, which record no peak."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self.device) / GIB, 3)

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def release(self) -> None:
        """Return cached, unused device memory, after a failure."""
        if self.blocks is not None:
            self.blocks.set_resident(self.blocks.permanent)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()


def _move_outside(module: nn.Module, inner: list[nn.Module], device: torch.device) -> None:
    """Move a module's parameters to a device, except those inside `inner`."""
    within = {id(part) for block in inner for part in block.modules()}
    for part in module.modules():
        if id(part) not in within:
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(parameter.data.to(device), requires_grad=False)


def _unstreamed(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a module, without T5's blocks, which stream."""
    streamed = {
        id(part) for block in getattr(getattr(module, "encoder", None), "block", []) for part in block.modules()
    }
    return (part for part in module.modules() if id(part) not in streamed)
