"""Figures with their uncertainty, and plain-text tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959964
"""Deviations of a normal distribution that hold 95 % of it."""


@dataclass(frozen=True)
class Figure:
    """A number and its 95 % interval, from `n` pictures."""

    value: float
    low: float
    high: float
    n: int


def share(right: Sequence[bool]) -> Figure:
    """How often it was right, with Wilson's interval (1927); at least one."""
    n, value = len(right), sum(right) / len(right)
    spread = _Z * math.sqrt(value * (1 - value) / n + (_Z / (2 * n)) ** 2)
    middle, scale = value + _Z * _Z / (2 * n), 1 + _Z * _Z / n
    return Figure(value, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale), n)


def mean(values: Sequence[float]) -> Figure:
    """The mean, with the interval of its standard error; at least one value, which alone has no interval but itself."""
    n, value = len(values), math.fsum(values) / len(values)
    variance = math.fsum((each - value) ** 2 for each in values) / max(1, n - 1)
    reach = _Z * math.sqrt(variance / n)
    return Figure(value, value - reach, value + reach, n)


def table(rows: Sequence[Sequence[str]], words: int) -> str:
    """Rows of equal length as aligned lines.

    Args:
        words: columns on the left that hold words and are aligned left; the others hold numbers.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
