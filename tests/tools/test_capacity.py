"""The simulation of waiting times: it agrees with theory where theory holds, and is the real queue where not."""

import pytest

from tools.capacity import Site, erlang, table, waits


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (1, 0.8), (4, 0.8)])
def test_it_agrees_with_erlang(workers: int, load: float) -> None:
    """Catches a worker that is never free again, and one that takes two requests."""
    site = Site(workers, 10.0, people=None, pictures=(1,), varies=True)
    found = waits(site, load, 40_000, seed=2)
    assert sum(found) / len(found) == pytest.approx(erlang(workers, 10.0, load), rel=0.15)


def test_erlangs_formula() -> None:
    """By hand: one worker used half waits as long as a request takes; two, a third of it."""
    assert erlang(1, 10.0, 0.5) == pytest.approx(10.0)
    assert erlang(2, 10.0, 0.5) == pytest.approx(10.0 / 3)


def test_the_table_has_a_row_for_each_load() -> None:
    rows = list(table(Site(2, 15.0, 20), 2_000, seed=1))
    assert len(rows) == 8 and rows[2].startswith("| 50% | 133 |")
