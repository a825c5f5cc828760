"""Folding: the numbers of the whole sum, a few rows at a time."""

import pytest
import torch

from uso.weights import filling
from uso.weights.filling import Scratch, fold


def factors(rows: int, columns: int, rank: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    up, down = torch.randn(rows, rank, generator=draw), torch.randn(rank, columns, generator=draw)
    return up.to(torch.bfloat16), down.to(torch.bfloat16).float()


@pytest.mark.parametrize(("rows", "columns"), [(3072, 3072), (600, 96), (256, 64), (7, 3072)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_folding_by_rows_is_bit_for_bit_the_whole_sum(rows: int, columns: int, dtype: torch.dtype) -> None:
    """Catches rows that are skipped or folded twice, and what an earlier matrix left in the memory."""
    up, down = factors(rows, columns)
    stored = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = (0.7 * (up.float() @ down) + stored.float()).to(dtype)
    scratch, found = Scratch(), torch.empty_like(stored)
    scratch.matrix(256, 4096, stored.device).fill_(torch.nan)

    def change(start: int, stop: int, into: torch.Tensor) -> None:
        torch.mm(up[start:stop].float(), down, out=into).mul_(0.7)

    assert fold(stored, change, found, scratch)
    assert torch.equal(found, expected)


def test_a_change_that_is_not_finite_is_told() -> None:
    """In any of the parts."""
    rows = 2 * filling.FOLDED_ROWS["cpu"] + 3

    def change(start: int, stop: int, into: torch.Tensor) -> None:
        into.fill_(torch.inf if stop == rows else 0.0)

    assert not fold(torch.zeros(rows, 4), change, torch.empty(rows, 4), Scratch())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_one_number_that_is_not_finite_is_found(dtype: torch.dtype) -> None:
    """Catches a damaged file that loads, and a good one that is refused because its sum overflows."""
    large = torch.full((300, 40), torch.finfo(dtype).max / 2, dtype=dtype)
    assert filling._finite(large) and filling._finite(-large)
    for number in (torch.nan, torch.inf, -torch.inf):
        damaged = torch.zeros(300, 40, dtype=dtype)
        damaged[299, 39] = number
        assert not filling._finite(damaged)
    both = torch.zeros(300, 40, dtype=dtype)
    both[0, 0], both[1, 1] = torch.inf, -torch.inf
    assert not filling._finite(both)


def test_the_memory_is_used_again() -> None:
    """Catches fresh memory for every few rows: it costs as much time as folding."""
    scratch = Scratch()
    first = scratch.matrix(4, 10, torch.device("cpu"))
    assert scratch.matrix(2, 20, torch.device("cpu")).data_ptr() == first.data_ptr()
    assert scratch.matrix(3, 5, torch.device("cpu")).shape == (3, 5)
