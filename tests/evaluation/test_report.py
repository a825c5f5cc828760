"""Figures and their intervals."""

import pytest

from uso.evaluation.report import Figure, mean, share


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)]
)
def test_wilson_interval(right: int, n: int, low: float, high: float) -> None:
    """Published values; the plain normal interval would give 0.552 for the first, and no width for the others."""
    figure = share([True] * right + [False] * (n - right))
    assert (figure.value, figure.n) == (right / n, n)
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-4)


def test_mean_and_its_interval() -> None:
    """Standard error from the sample's own variance (n - 1): 1.96 * sqrt(1 / 3)."""
    figure = mean([1.0, 2.0, 3.0])
    assert (figure.value, figure.n) == (2, 3)
    assert figure.high - figure.value == pytest.approx(1.1316, abs=1e-4)
    assert mean([0.5]) == Figure(0.5, 0.5, 0.5, 1)
