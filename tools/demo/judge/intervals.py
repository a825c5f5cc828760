"""Shares with intervals that know that pictures share styles and subjects.

Four held-out styles in 200 pictures are not 200 independent answers: if one of them fails, fifty do. So whole styles
and whole subjects are drawn with replacement, each on its own, and a picture weighs as often as both of its were drawn
(the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1(2)).
"""

from collections.abc import Sequence

import numpy as np

from uso.evaluation.report import Figure, share

DRAWS = 2000
"""Bootstrap samples: the ends of a 95 % interval then stand on 50 samples each."""
_TAILS = (2.5, 97.5)
_SEED = 20250827


def shared(groups: Sequence[tuple[str, str]], right: Sequence[bool]) -> Figure:
    """How often it was right; at least one picture.

    The interval is never narrower than that of independent pictures: where all are right the bootstrap has no width.

    Args:
        groups: of each picture, the style and the subject that it shares with others; "" where it has none.
    """
    alone = share(right)
    random, weights = np.random.default_rng(_SEED), np.ones((DRAWS, len(right)))
    for names in zip(*groups, strict=True):
        known = sorted(set(names))
        if len(known) < 2:
            continue
        drawn = random.multinomial(len(known), np.full(len(known), 1 / len(known)), size=DRAWS)
        weights *= drawn[:, [known.index(name) for name in names]]
    totals = weights.sum(axis=1)
    sampled = (weights @ np.asarray(right, float))[totals > 0] / totals[totals > 0]
    if not len(sampled):
        return alone
    low, high = np.percentile(sampled, _TAILS)
    return Figure(alone.value, min(alone.low, float(low)), max(alone.high, float(high)), alone.n)
