"""Intervals of shares whose pictures share styles and subjects."""

import pytest

from tools.demo.judge.intervals import shared
from uso.evaluation.report import share


def test_pictures_of_few_styles_are_known_less_well() -> None:
    """Catches an interval that takes two hundred pictures of four styles for two hundred independent answers."""
    groups = [(f"style {number % 4}", f"subject {number % 40}") for number in range(200)]
    one_fails = [number % 4 != 0 for number in range(200)]
    found, alone = shared(groups, one_fails), share(one_fails)
    assert found.value == alone.value == 0.75 and found.n == 200
    assert found.low <= 0.4 and alone.low > 0.68
    mixed = [number % 8 // 2 != 0 for number in range(200)]  # as many wrong, spread over the styles
    assert shared(groups, mixed).high - shared(groups, mixed).low < found.high - found.low


def test_an_interval_is_never_narrower_than_that_of_independent_pictures() -> None:
    """Catches an interval without width where all are right, and groups that are none."""
    groups = [("", f"subject {number}") for number in range(10)]
    for found, alone in (
        (shared(groups, [True] * 10), share([True] * 10)),
        (shared([("", "")], [False]), share([False])),
    ):
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
