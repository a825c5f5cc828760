"""First-block caching: what is skipped, what comes out, and that no picture sees anything of another."""

from typing import Any

import pytest
import torch

from tests.tiny_flux import tiny_request, tiny_steps, tiny_transformer
from uso.block_cache import BlockCache, StepMemory

ALWAYS = 1e9
"""A threshold that skips every step but the first."""

SOMETIMES = 0.6
"""One that skips some of the steps of these requests."""


@pytest.fixture
def transformer() -> Any:
    return tiny_transformer()


def cached_steps(transformer: Any, cache: BlockCache, memory: StepMemory, **request: Any) -> torch.Tensor:
    def step(**inputs: Any) -> Any:
        with cache.use(memory):
            return transformer(**inputs)

    return tiny_steps(transformer, step=step, num_steps=8, **request)


def test_nothing_changes_where_nothing_is_skipped(transformer: Any) -> None:
    """Threshold 0, and no memory in use at all: the stock transformer's bits, and its names of parameters."""
    stock, names = tiny_steps(transformer, num_steps=8), [name for name, _ in transformer.named_parameters()]
    cache = BlockCache(transformer)
    assert [name for name, _ in transformer.named_parameters()] == names
    assert len(transformer.transformer_blocks) == len(list(transformer.transformer_blocks)) == 2
    assert torch.equal(tiny_steps(transformer, num_steps=8), stock)
    memory = StepMemory(threshold=0)
    assert torch.equal(cached_steps(transformer, cache, memory), stock)
    assert (memory.steps, memory.skipped) == (8, 0)


def test_a_skipped_step_runs_one_block(transformer: Any) -> None:
    """Catches blocks that run and whose results are thrown away."""
    calls = []
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.register_forward_hook(lambda *_: calls.append(1))
    memory = StepMemory(threshold=ALWAYS)
    cached_steps(transformer, BlockCache(transformer), memory)
    assert (memory.steps, memory.skipped) == (8, 7)
    assert len(calls) == 5 + 7


def test_a_repeated_step_gives_the_same_velocity(transformer: Any) -> None:
    """What was noted is all that the later blocks add: no more, no less."""
    cache, memory = BlockCache(transformer), StepMemory(threshold=ALWAYS)
    noise, inputs = tiny_request(transformer)
    step = {"hidden_states": noise, "timestep": torch.tensor([0.5]), "return_dict": False, **inputs}
    with torch.inference_mode(), cache.use(memory):
        first, second = transformer(**step)[0], transformer(**step)[0]
    assert memory.skipped == 1
    assert float((first - second).norm() / first.norm()) < 1e-6


def test_the_threshold_decides(transformer: Any) -> None:
    """More is skipped at a higher threshold, and the error grows: catches a distance that is always zero."""
    exact, cache = tiny_steps(transformer, num_steps=8), BlockCache(transformer)
    skipped, errors = [], []
    for threshold in (0, SOMETIMES, ALWAYS):
        memory = StepMemory(threshold)
        errors.append(float((cached_steps(transformer, cache, memory) - exact).norm()))
        skipped.append(memory.skipped)
    assert skipped == sorted(set(skipped)) and errors == sorted(set(errors))


def test_pictures_know_nothing_of_each_other(transformer: Any) -> None:
    """One after another and step by step in turns, two pictures are those of a process that makes one."""
    cache = BlockCache(transformer)
    alone = []
    for seed in (0, 1):
        fresh = tiny_transformer()
        alone.append(cached_steps(fresh, BlockCache(fresh), StepMemory(SOMETIMES), seed=seed))
    after = [cached_steps(transformer, cache, StepMemory(SOMETIMES), seed=seed) for seed in (0, 1)]
    assert all(map(torch.equal, alone, after))

    other, memories = StepMemory(SOMETIMES), StepMemory(SOMETIMES)
    second, inputs = tiny_request(transformer, seed=1)

    def in_turns(**step: Any) -> Any:
        nonlocal second
        level = float(step["timestep"])
        with cache.use(other):
            velocity = transformer(hidden_states=second, timestep=step["timestep"], return_dict=False, **inputs)[0]
        second = second - velocity / 8
        assert level > 0
        with cache.use(memories):
            return transformer(**step)

    first = tiny_steps(transformer, step=in_turns, num_steps=8, seed=0)
    assert torch.equal(first, alone[0])
    assert float((second - alone[1]).norm() / alone[1].norm()) < 1e-6


def test_a_stale_memory_would_be_seen(transformer: Any) -> None:
    """The planted bug: one memory for two pictures."""
    cache, memory = BlockCache(transformer), StepMemory(ALWAYS)
    right = cached_steps(transformer, cache, StepMemory(ALWAYS), seed=1)
    cached_steps(transformer, cache, memory, seed=0)
    assert not torch.equal(cached_steps(transformer, cache, memory, seed=1), right)


def test_a_failure_leaves_nothing_in_use(transformer: Any) -> None:
    """Catches the cancelled or failed step that leaves the next picture with its memory."""
    stock, cache = tiny_steps(transformer), BlockCache(transformer)
    with pytest.raises(RuntimeError, match="out of memory"), cache.use(StepMemory(ALWAYS)):
        raise RuntimeError("out of memory")
    assert cache.memory is None
    assert torch.equal(tiny_steps(transformer), stock)
