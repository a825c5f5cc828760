"""The fair queue: who is next, who is before whom, and when; played through by hand."""

from collections import Counter
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
    pictures_left: int = 1


def entry(name: str) -> Entry:
    """`a1`: the first job of person a; `a1x4`: of four pictures."""
    return Entry(name, name[0], int(name.partition("x")[2] or 1))


def queue_of(*names: str) -> FairQueue[Entry]:
    queue: FairQueue[Entry] = FairQueue()
    for name in names:
        queue.add(entry(name))
    return queue


def played(queue: FairQueue[Entry]) -> list[str]:
    """The order in which one worker runs the queued jobs."""
    order = []
    while (job := queue.take()) is not None:
        order.append(job.id)
        queue.finished(job.person)
    return order


def test_people_take_turns() -> None:
    """Catches first come, first served: one person's ten jobs would hold everybody up."""
    assert played(queue_of("a1", "a2", "a3", "b1", "b2", "c1")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_newcomer_comes_before_the_next_of_whom_one_is_running() -> None:
    """Catches a turn that somebody gets twice because they were alone when they sent everything."""
    queue = queue_of("a1", "a2", "a3")
    first = queue.take()
    assert first is not None and first.id == "a1"
    queue.add(entry("b1"))
    queue.add(entry("b2"))
    queue.finished("a")
    assert played(queue) == ["b1", "a2", "b2", "a3"]


def test_a_turn_is_one_picture() -> None:
    """Catches a person who has eight times as much of the server because each request is for eight pictures."""
    assert played(queue_of("a1x3", "a2x3", "b1", "b2", "b3", "b4")) == ["a1x3", "b1", "b2", "b3", "a2x3", "b4"]
    assert played(queue_of("a1x3", "a2", "b1x3", "b2")) == ["a1x3", "b1x3", "a2", "b2"]
    assert played(queue_of("a1x8", "a2x8", "a3")) == ["a1x8", "a2x8", "a3"]  # nobody else waits


def test_whoever_was_alone_owes_nothing() -> None:
    """Catches turns that a newcomer has for what was made before they came."""
    queue = queue_of("a1x8", "a2", "a3")
    assert queue.take() == entry("a1x8")
    queue.finished("a")
    for name in ("b1", "b2", "b3"):
        queue.add(entry(name))
    assert played(queue) == ["a2", "b1", "a3", "b2", "b3"]


def test_two_workers_serve_two_people_first() -> None:
    """Catches both workers busy for one person while another waits, and one that idles while somebody waits."""
    queue = queue_of("a1", "a2", "a3", "b1")
    assert [job.id for job in (queue.take(), queue.take(), queue.take()) if job] == ["a1", "b1", "a2"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_nobody_waits_for_more_than_one_turn_of_each_other_person(events: list[tuple[str, bool]]) -> None:
    """Catches starvation: newcomers who come again and again before somebody who waits (planted: `_move_to_end` left
    out of `take` and `finished` fails this)."""
    queue: FairQueue[Entry] = FairQueue()
    served_while_waiting: dict[str, list[str]] = {}
    for person, make in events:
        queue.add(Entry(f"{person}{next(_number)}", person))
        served_while_waiting.setdefault(person, [])
        if not make:
            continue
        job = queue.take()
        assert job is not None
        queue.finished(job.person)
        for waiting in {other.person for other in queue} - {job.person}:
            served_while_waiting.setdefault(waiting, []).append(job.person)
            for other in set(served_while_waiting[waiting]):
                assert served_while_waiting[waiting].count(other) <= 1, (waiting, served_while_waiting[waiting])
        served_while_waiting[job.person] = []


def test_a_job_can_leave_the_queue() -> None:
    """Catches a person who is left in the queue without a job."""
    queue = queue_of("a1", "b1", "a2")
    removed = queue.remove("b1")
    assert removed is not None and removed.id == "b1"
    assert queue.remove("b1") is None and queue.remove("nobody") is None
    assert len(queue) == 2 and Counter(job.person for job in queue) == {"a": 2}
    assert played(queue) == ["a1", "a2"]


def test_positions_are_those_that_will_be_taken() -> None:
    """Catches a forecast that plays by other rules than the queue, and one that changes it."""
    queue = queue_of("a1", "a2", "b1", "c1", "b2")
    running = queue.take()
    assert running is not None
    positions = queue.positions([(running, 3.0)], lambda job: 10.0, workers=1)
    assert [position.ahead for position in positions] == [1, 2, 3, 4]
    assert [position.seconds for position in positions] == [3.0, 13.0, 23.0, 33.0]
    forecast = [position.job.id for position in positions]
    queue.finished(running.person)
    assert forecast == played(queue) == ["b1", "c1", "a2", "b2"]


def test_pictures_are_counted_not_requests() -> None:
    """Catches "one picture is ahead of yours" where it is eight; and a forecast of turns that are owed."""
    queue = queue_of("a1x3", "a2x3", "b1", "b2", "b3", "b4")
    running = queue.take()
    assert running is not None
    positions = queue.positions([(running, 3.0)], lambda job: 1.0 * job.pictures_left, workers=1)
    assert [position.pictures_ahead for position in positions] == [3, 4, 5, 6, 9]
    queue.finished("a")
    assert [position.job.id for position in positions] == played(queue)


def test_several_workers_shorten_the_wait() -> None:
    """Catches an estimate for one worker where there are two."""
    queue = queue_of("a1", "b1", "c1", "d1")
    positions = queue.positions([], lambda job: {"a": 4.0, "b": 1.0, "c": 1.0, "d": 1.0}[job.person], workers=2)
    starts = [(position.job.id, position.seconds) for position in positions]
    assert starts == [("a1", 0.0), ("b1", 0.0), ("c1", 1.0), ("d1", 2.0)]


@pytest.mark.parametrize("left", [None, 2.0])
def test_what_is_not_known_is_not_guessed(left: float | None) -> None:
    """Catches an estimate that counts unknown pictures as taking no time."""
    queue = queue_of("a1", "b1")
    seconds = {"a1": None, "b1": 5.0}
    positions = queue.positions([(entry("x1"), left)], lambda job: seconds[job.id], workers=1)
    assert [position.seconds for position in positions] == ([None, None] if left is None else [2.0, None])


def test_who_came_back_is_next_and_pays_no_second_turn() -> None:
    """Catches a job that waits a second time because its worker was lost, and one that nobody finds meanwhile."""
    queue = queue_of("a1", "b1", "a2")
    lost = queue.take()
    assert lost is not None and lost.id == "a1"
    queue.finished("a")
    queue.put_back(lost)
    assert len(queue) == 3 and [job.id for job in queue] == ["a1", "b1", "a2"]
    assert [position.job.id for position in queue.positions([], lambda job: 1.0, 1)] == ["a1", "b1", "a2"]
    assert queue.remove("a1") is lost and queue.remove("a1") is None
    queue.put_back(lost)
    assert played(queue) == ["a1", "b1", "a2"]
    queue.put_back(lost)
    assert queue.clear() == [lost] and len(queue) == 0
