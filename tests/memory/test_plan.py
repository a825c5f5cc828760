"""The arithmetic of memory plans, on round numbers."""

from dataclasses import replace
from itertools import product

import pytest

from uso.config import MemoryPlan, load_memory_plan, memory_names
from uso.memory.plan import (
    GIB,
    RESERVE,
    STAGES,
    Activations,
    Weights,
    budget_bytes,
    device_bytes,
    permanent_blocks,
    pinned_bytes,
    resident_blocks,
    visiting,
)

WEIGHTS = Weights(
    blocks=(4 * GIB, 4 * GIB, 2 * GIB, 2 * GIB, 2 * GIB, 2 * GIB),
    core=GIB,
    modulation=(3 * GIB, 5 * GIB, GIB),
    text_encoder=2 * GIB,
    text_encoder_2=GIB // 2,
    text_encoder_2_blocks=(GIB, GIB, GIB),
    image_encoder=3 * GIB,
    vae=GIB,
)
"""16 GiB of blocks that run with 8 of modulation; T5 is 3.5."""

NEEDS = Activations(text=0, style=GIB, reference=GIB, modulation=GIB, denoise=GIB, decode=6 * GIB)
VISITING = MemoryPlan(name="test", description="", visit=True, slots=2)
RESIDENT = MemoryPlan(name="test", description="")


def counts(plan: MemoryPlan, budget: int | None, needs: Activations = NEEDS) -> list[int | None]:
    return [resident_blocks(plan, WEIGHTS, needs, stage, budget) for stage in STAGES]


def test_total_counts_every_part_once() -> None:
    """Catches a part that is left out of what has to be loaded."""
    assert WEIGHTS.total == (16 + 1 + 9 + 2 + 0.5 + 3 + 3 + 1) * GIB


@pytest.mark.parametrize(
    ("stage", "expected"),
    [("text", 2.5), ("style", 3), ("reference", 1), ("modulation", 11), ("denoise", 0), ("decode", 1)],
)
def test_visitors_come_one_after_another(stage: str, expected: float) -> None:
    """Catches CLIP counted beside T5, T5 counted whole, and a modulation layer without the time embedding."""
    assert visiting(VISITING, WEIGHTS, stage) == expected * GIB


def test_a_plan_without_visits_holds_everything_all_the_time() -> None:
    """Catches an encoder that is thought to leave when nothing makes it leave."""
    for stage in STAGES:
        assert device_bytes(RESIDENT, WEIGHTS, NEEDS, stage, 6) == WEIGHTS.total + getattr(NEEDS, stage)


def test_there_are_no_more_slots_than_parts() -> None:
    """Catches buffers that a small model never fills: the demo's T5 has fewer blocks than a plan may have slots."""
    plan = VISITING.model_copy(update={"slots": 5})
    assert visiting(plan, WEIGHTS, "text") == 3.5 * GIB  # T5 as a whole, not 5.5
    assert visiting(plan, WEIGHTS, "modulation") == 11 * GIB  # two layers and the embedding
    assert device_bytes(plan, WEIGHTS, NEEDS, "denoise", 4) == (1 + 12 + 2 * 2 + 1) * GIB


def test_blocks_that_stream_take_turns_in_slots_as_large_as_the_largest() -> None:
    """Catches slots that are forgotten, counted outside denoising, or too small for a double block."""
    assert device_bytes(VISITING, WEIGHTS, NEEDS, "denoise", 6) == (1 + 16 + 1) * GIB
    assert device_bytes(VISITING, WEIGHTS, NEEDS, "denoise", 5) == (1 + 14 + 2 + 1) * GIB  # one streams: one slot
    assert device_bytes(VISITING, WEIGHTS, NEEDS, "denoise", 3) == (1 + 10 + 4 + 1) * GIB
    assert device_bytes(VISITING, WEIGHTS, NEEDS, "denoise", 1) == (1 + 4 + 8 + 1) * GIB
    assert device_bytes(VISITING, WEIGHTS, NEEDS, "decode", 1) == (1 + 4 + 1 + 6) * GIB


def test_as_many_blocks_stay_as_fit_and_the_reserve_is_kept() -> None:
    """Against all counts tried one by one: catches a block too many or too few, and a budget used to the last byte."""
    for budget_gib, stage in product(range(1, 30), STAGES):
        budget = budget_gib * GIB
        fitting = [
            count
            for count in range(len(WEIGHTS.blocks) + 1)
            if device_bytes(VISITING, WEIGHTS, NEEDS, stage, count) + RESERVE <= budget
        ]
        assert resident_blocks(VISITING, WEIGHTS, NEEDS, stage, budget) == max(fitting, default=None)


def test_exact_fit() -> None:
    """Catches `<` where `<=` is meant: a plan's own forecast must fit the plan."""
    all_of_it = device_bytes(VISITING, WEIGHTS, NEEDS, "denoise", 6) + RESERVE
    assert resident_blocks(VISITING, WEIGHTS, NEEDS, "denoise", all_of_it) == 6
    assert resident_blocks(VISITING, WEIGHTS, NEEDS, "denoise", all_of_it - 1) == 3  # 4 and 5 save nothing: two slots


def test_a_large_decode_makes_blocks_leave() -> None:
    """The 24 GB case in small: everything stays while denoising, and a decode that needs room gets it."""
    assert counts(VISITING, 20 * GIB) == [6, 5, 6, 1, 6, 3]
    assert permanent_blocks(VISITING, WEIGHTS, NEEDS, 20 * GIB) == 1


def test_no_limit_and_no_slots() -> None:
    """Without a limit all stay; without slots all must, so a plan that cannot stream never says it half fits."""
    assert counts(VISITING, None) == [6] * len(STAGES)
    most = device_bytes(RESIDENT, WEIGHTS, NEEDS, "decode", 6) + RESERVE
    assert counts(RESIDENT, most) == [6] * len(STAGES)
    assert counts(RESIDENT, most - 1)[STAGES.index("decode")] is None


def test_what_does_not_fit_even_without_blocks_is_none() -> None:
    """Catches a count of 0 for a request that must be refused; what just fits may need every block to leave."""
    decode = STAGES.index("decode")
    assert counts(VISITING, 8 * GIB)[decode] is None
    assert counts(VISITING, 8 * GIB + RESERVE)[decode] == 0
    assert permanent_blocks(VISITING, WEIGHTS, NEEDS, 8 * GIB) == 0


def test_larger_needs_never_leave_more_blocks() -> None:
    """Blocks without a host copy are chosen by the largest request: catches one that another must make leave."""
    for budget, stage in product((12 * GIB, 16 * GIB, 20 * GIB), STAGES):
        permanent = permanent_blocks(VISITING, WEIGHTS, NEEDS, budget)
        smaller = replace(NEEDS, **{stage: getattr(NEEDS, stage) // 2})
        for count in counts(VISITING, budget, smaller):
            assert count is None or count >= permanent


def test_the_host_pins_what_streams_and_nothing_else() -> None:
    """Catches blocks that never leave the device, or visitors that do not stream, counted as page-locked."""
    assert pinned_bytes(RESIDENT, WEIGHTS, 0) == 0
    assert pinned_bytes(VISITING, WEIGHTS, 6) == (3 + 8) * GIB
    assert pinned_bytes(VISITING, WEIGHTS, 4) == (4 + 3 + 8) * GIB


@pytest.mark.parametrize("name", memory_names())
def test_shipped_plans_make_sense(name: str) -> None:
    """Catches a plan that limits memory but cannot stream, or streams without a limit."""
    plan = load_memory_plan(name)
    assert (plan.device_gib is not None) == plan.visit == (plan.slots > 0)
    assert budget_bytes(plan) == (None if plan.device_gib is None else plan.device_gib * GIB)
