"""What was computed before comes back bit for bit, and only so much of it is kept."""

from collections.abc import Callable

import torch

from uso.pipeline.cache import TensorCache, Tensors

CPU = torch.device("cpu")


def test_computes_once_and_returns_the_same() -> None:
    remembered = TensorCache(1000)
    calls = []

    def compute() -> Tensors:
        calls.append(1)
        return torch.randn(3), torch.arange(2)

    first = remembered.get("a", CPU, compute)
    second = remembered.get("a", CPU, compute)
    assert len(calls) == 1
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_change_outside_does_not_change_what_is_kept() -> None:
    """The planted bug would be to keep the caller's own tensor."""
    remembered = TensorCache(1000)
    first = remembered.get("a", CPU, lambda: (torch.ones(3),))[0]
    first.zero_()
    assert torch.equal(remembered.get("a", CPU, lambda: (torch.zeros(3),))[0], torch.ones(3))


def test_the_longest_unused_go_first() -> None:
    remembered = TensorCache(3 * 40)
    for key in "abc":
        remembered.get(key, CPU, lambda: (torch.zeros(10),))
    remembered.get("a", CPU, lambda: (torch.zeros(10),))
    remembered.get("d", CPU, lambda: (torch.zeros(10),))
    recomputed: list[str] = []
    for key in "acd":
        remembered.get(key, CPU, noting(recomputed, key))
    assert recomputed == []
    assert len(remembered) == 3 and remembered.bytes == 120
    remembered.get("b", CPU, noting(recomputed, "b"))
    assert recomputed == ["b"]


def test_what_is_larger_than_all_of_it_is_not_kept() -> None:
    remembered = TensorCache(10)
    remembered.get("a", CPU, lambda: (torch.zeros(100),))
    assert len(remembered) == 0 and remembered.bytes == 0


def noting(keys: list[str], key: str) -> Callable[[], Tensors]:
    """A computation that writes down that it ran."""

    def compute() -> Tensors:
        keys.append(key)
        return (torch.zeros(10),)

    return compute
