"""The fair line: whose turn it is, who is before whom, and when. Pure bookkeeping, played through by hand."""

from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uso.web.jobs.fair_queue import FairQueue

_number = count()


@dataclass(frozen=True)
class Entry:
    id: str
    person: str


def entry(name: str) -> Entry:
    """`a1`: the first job of person a."""
    return Entry(name, name[0])


def line_of(*names: str) -> FairQueue[Entry]:
    line: FairQueue[Entry] = FairQueue()
    for name in names:
        line.add(entry(name))
    return line


def played(line: FairQueue[Entry]) -> list[str]:
    """The order in which one worker makes what waits."""
    order = []
    while (job := line.take()) is not None:
        order.append(job.id)
        line.finished(job.person)
    return order


def test_people_take_turns() -> None:
    """Catches first come, first served: one person's ten jobs would hold everybody up."""
    assert played(line_of("a1", "a2", "a3", "b1", "b2", "c1")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_newcomer_comes_before_the_next_of_whom_one_is_in_the_making() -> None:
    """Catches a turn that somebody gets twice because they were alone when they sent everything."""
    line = line_of("a1", "a2", "a3")
    first = line.take()
    assert first is not None and first.id == "a1"
    line.add(entry("b1"))
    line.add(entry("b2"))
    line.finished("a")
    assert played(line) == ["b1", "a2", "b2", "a3"]


def test_two_workers_serve_two_people_first() -> None:
    """Catches both workers busy for one person while another waits, and one that idles while somebody waits."""
    line = line_of("a1", "a2", "a3", "b1")
    assert [job.id for job in (line.take(), line.take(), line.take()) if job] == ["a1", "b1", "a2"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_nobody_waits_for_more_than_one_turn_of_each_other_person(events: list[tuple[str, bool]]) -> None:
    """Catches starvation: newcomers who come again and again before somebody who waits (planted: `_to_the_end` left out
    of `take` and `finished` fails this)."""
    line: FairQueue[Entry] = FairQueue()
    served_while_waiting: dict[str, list[str]] = {}
    for person, make in events:
        line.add(Entry(f"{person}{next(_number)}", person))
        served_while_waiting.setdefault(person, [])
        if not make:
            continue
        job = line.take()
        assert job is not None
        line.finished(job.person)
        for waiting in {other.person for other in line} - {job.person}:
            served_while_waiting.setdefault(waiting, []).append(job.person)
            for other in set(served_while_waiting[waiting]):
                assert served_while_waiting[waiting].count(other) <= 1, (waiting, served_while_waiting[waiting])
        served_while_waiting[job.person] = []


def test_a_job_can_leave_the_line() -> None:
    """Catches a person who is left in the line without a job."""
    line = line_of("a1", "b1", "a2")
    removed = line.remove("b1")
    assert removed is not None and removed.id == "b1"
    assert line.remove("b1") is None and line.remove("nobody") is None
    assert len(line) == 2 and line.of("a") == 2 and line.of("b") == 0
    assert played(line) == ["a1", "a2"]


def test_turns_are_those_that_will_be_taken() -> None:
    """Catches a forecast that plays by other rules than the line, and one that changes it."""
    line = line_of("a1", "a2", "b1", "c1", "b2")
    making = line.take()
    assert making is not None
    turns = line.turns([(making, 3.0)], lambda job: 10.0, workers=1)
    assert [turn.ahead for turn in turns] == [1, 2, 3, 4]
    assert [turn.seconds for turn in turns] == [3.0, 13.0, 23.0, 33.0]
    forecast = [turn.job.id for turn in turns]
    line.finished(making.person)
    assert forecast == played(line) == ["b1", "c1", "a2", "b2"]


def test_several_workers_shorten_the_wait() -> None:
    """Catches an estimate for one worker where there are two."""
    line = line_of("a1", "b1", "c1", "d1")
    turns = line.turns([], lambda job: {"a": 4.0, "b": 1.0, "c": 1.0, "d": 1.0}[job.person], workers=2)
    assert [(turn.job.id, turn.seconds) for turn in turns] == [("a1", 0.0), ("b1", 0.0), ("c1", 1.0), ("d1", 2.0)]


@pytest.mark.parametrize("left", [None, 2.0])
def test_what_is_not_known_is_not_guessed(left: float | None) -> None:
    """Catches an estimate that counts unknown pictures as taking no time."""
    line = line_of("a1", "b1")
    seconds = {"a1": None, "b1": 5.0}
    turns = line.turns([(entry("x1"), left)], lambda job: seconds[job.id], workers=1)
    assert [turn.seconds for turn in turns] == ([None, None] if left is None else [2.0, None])
