"""Means over subjects, and how far they may be off: a bootstrap over contents and styles at once.

Pictures share their references, so they are not independent: an interval that resamples pictures is too narrow. Here
whole contents and whole styles are drawn with replacement, each on its own, and a picture weighs as often as both of
its were drawn (the pigeonhole bootstrap: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uso.evaluation.report import Figure
from uso.evaluation.scores import ABOUT_STYLE, Score

DRAWS = 2000
"""Bootstrap samples: the ends of a 95 % interval then stand on 50 samples each."""
_TAILS = (2.5, 97.5)
_SEED = 20250827

Array = NDArray[np.float64]


def estimate(scores: Sequence[Score], metric: str, draws: int = DRAWS) -> Figure | None:
    """The mean of a metric: over the pictures of each subject, then over subjects; None where no picture has it."""
    having = [score for score in scores if metric in score.values]
    values = np.array([score.values[metric] for score in having])
    return _estimate(having, values, metric, draws) if having else None


def difference(first: Sequence[Score], second: Sequence[Score], metric: str, draws: int = DRAWS) -> Figure | None:
    """How much the second's mean is above the first's, over the pictures that both have; None without any."""
    others = {(score.id, score.index): score for score in first if metric in score.values}
    having = [score for score in second if metric in score.values and (score.id, score.index) in others]
    values = np.array([score.values[metric] - others[score.id, score.index].values[metric] for score in having])
    return _estimate(having, values, metric, draws) if having else None


def by_group(scores: Sequence[Score], metric: str) -> dict[str, float]:
    """The mean of each subject."""
    groups: dict[str, list[float]] = {}
    for score in scores:
        if metric in score.values:
            groups.setdefault(group_of(metric, score), []).append(score.values[metric])
    return {name: float(np.mean(values)) for name, values in groups.items()}


def group_of(metric: str, score: Score) -> str:
    """The subject that a picture counts for: its style for scores of style, else its content where it has one."""
    first, second = (score.style, score.content) if metric in ABOUT_STYLE else (score.content, score.style)
    return first or second or score.id


def _estimate(scores: Sequence[Score], values: Array, metric: str, draws: int) -> Figure:
    outer = [group_of(metric, score) for score in scores]
    inner = [_other(metric, score) for score in scores]
    rows, columns = sorted(set(outer)), sorted(set(inner))
    at = ([rows.index(each) for each in outer], [columns.index(each) for each in inner])
    sums, counts = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
    np.add.at(sums, at, values)
    np.add.at(counts, at, 1.0)
    random = np.random.default_rng(_SEED)
    drawn = [_weights(random, draws, len(rows)), _weights(random, draws, len(columns))]
    if not any(columns):  # one factor alone: nothing crosses it
        drawn[1] = np.ones((draws, len(columns)))
    sampled = _mean_of_means(sums, counts, *drawn)
    low, high = np.nanpercentile(sampled, _TAILS)
    value = _mean_of_means(sums, counts, np.ones((1, len(rows))), np.ones((1, len(columns))))[0]
    return Figure(float(value), float(low), float(high), len(scores))


def _other(metric: str, score: Score) -> str:
    """The factor that crosses a picture's subject; "" where there is none."""
    own = group_of(metric, score)
    other = score.content if own == score.style else score.style
    return other or ""


def _weights(random: np.random.Generator, draws: int, count: int) -> Array:
    """How often each of `count` is drawn, [draws, count]."""
    return random.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def _mean_of_means(sums: Array, counts: Array, outer: Array, inner: Array) -> Array:
    """[draws]: weighted means of each row, then over rows that have any picture left."""
    totals, pictures = inner @ sums.T, inner @ counts.T
    have = pictures > 0
    means = np.divide(totals, pictures, out=np.zeros_like(totals), where=have)
    weights = outer * have
    with np.errstate(invalid="ignore"):
        return np.asarray((weights * means).sum(axis=1) / weights.sum(axis=1))
