"""First-block caching: steps that change little run one block instead of all (`--speed turbo`).

The first block runs at every step. Where what it adds has hardly changed since the last step that ran in full, the sum
of what all later blocks added at that step is added again, and they do not run. Everything remembered belongs to one
`StepMemory`, which belongs to one picture: nothing can be left over from another. Looking at the change makes the host
wait for the device once per step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

THRESHOLD = 0.05
"""Largest change of the first block's contribution, relative, at which the later blocks are skipped."""


class StepMemory:
    """What one picture's steps remember. Make a new one for each picture.

    Args:
        threshold: see `THRESHOLD`; 0 skips nothing.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.first: torch.Tensor | None = None
        """What the first block added to the picture's tokens at the last full step: [B, tokens, hidden]."""
        self.rest: torch.Tensor | None = None
        """What all later blocks added there."""
        self.full = True
        """Whether the present step runs all blocks."""
        self.steps = 0
        self.skipped = 0

    def changed(self, first: torch.Tensor) -> bool:
        """Whether the first block's contribution differs enough from that of the last full step."""
        if self.first is None or self.rest is None:
            return True
        distance = (first - self.first).abs().mean(dtype=torch.float32) / self.first.abs().mean(dtype=torch.float32)
        return not float(distance) < self.threshold


class BlockCache:
    """Lets a transformer skip its later blocks while a `StepMemory` is in use; without one it runs all of them.

    Args:
        transformer: diffusers' `FluxTransformer2DModel`. Its two lists of blocks are exchanged for lists that are
            equal but for what iterating over them gives while a memory is in use; names of parameters stay.
    """

    def __init__(self, transformer: Any) -> None:
        self.memory: StepMemory | None = None
        self._entering: torch.Tensor | None = None
        transformer.transformer_blocks = _Leading(transformer.transformer_blocks, self)
        transformer.single_transformer_blocks = _Trailing(transformer.single_transformer_blocks, self)

    @contextmanager
    def use(self, memory: StepMemory) -> Iterator[None]:
        """While inside, one step of the picture that `memory` belongs to runs."""
        self.memory = memory
        try:
            yield
        finally:
            self.memory = None
            self._entering = None

    def run_first(self, block: nn.Module, memory: StepMemory, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
        context, hidden = block(**inputs)
        first = hidden - inputs["hidden_states"]
        memory.steps += 1
        memory.full = memory.changed(first)
        if memory.full:
            memory.first, memory.rest, self._entering = first, None, hidden
        else:
            memory.skipped += 1
        return context, hidden

    def finish(self, memory: StepMemory, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
        """Stands after the last block: notes what the later blocks added, or adds it."""
        hidden = inputs["hidden_states"]
        if memory.full:
            memory.rest = hidden - self._entering
        else:
            hidden = hidden + memory.rest
        return inputs["encoder_hidden_states"], hidden


class _Leading(nn.ModuleList):
    """The double blocks; the first decides whether the others are given."""

    def __init__(self, blocks: nn.ModuleList, cache: BlockCache) -> None:
        super().__init__(blocks)
        self.cache = cache

    def __iter__(self) -> Iterator[Any]:
        memory, blocks = self.cache.memory, super().__iter__()
        if memory is None:
            return blocks
        return self._given(memory, blocks)

    def _given(self, memory: StepMemory, blocks: Iterator[nn.Module]) -> Iterator[Any]:
        first = next(blocks)
        yield lambda **inputs: self.cache.run_first(first, memory, inputs)
        if memory.full:
            yield from blocks


class _Trailing(nn.ModuleList):
    """The single blocks, none of them after a skip, and an end that notes or adds what the later blocks contribute."""

    def __init__(self, blocks: nn.ModuleList, cache: BlockCache) -> None:
        super().__init__(blocks)
        self.cache = cache

    def __iter__(self) -> Iterator[Any]:
        memory, blocks = self.cache.memory, super().__iter__()
        if memory is None:
            return blocks
        return self._given(memory, blocks)

    def _given(self, memory: StepMemory, blocks: Iterator[nn.Module]) -> Iterator[Any]:
        if memory.full:
            yield from blocks
        yield lambda **inputs: self.cache.finish(memory, inputs)
