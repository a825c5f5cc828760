"""Threads that people take turns at."""

import threading

import pytest

from tests.support.scripted import PATIENCE
from uso.web.api.turns import Turns


def test_one_person_has_one_thread_and_keeps_the_order() -> None:
    """Catches somebody who takes all threads, and work that is done in another order than it came."""
    turns, go_on = Turns(2, "test"), threading.Event()
    done: list[int] = []
    first = turns.submit("ann", go_on.wait, PATIENCE)
    rest = [turns.submit("ann", done.append, number) for number in range(5)]
    assert turns.submit("ben", lambda: "at once").result(PATIENCE) == "at once"
    assert done == [] and not first.done()
    go_on.set()
    for one in rest:
        one.result(PATIENCE)
    assert done == [0, 1, 2, 3, 4]


def test_people_take_turns() -> None:
    """Catches a person with much to do whose work is all done before that of others."""
    turns, go_on = Turns(1, "test"), threading.Event()
    done: list[str] = []
    turns.submit("ann", go_on.wait, PATIENCE)
    work = [turns.submit(person, done.append, person) for person in ["ann"] * 3 + ["ben", "cid"]]
    go_on.set()
    for one in work:
        one.result(PATIENCE)
    assert done == ["ben", "cid", "ann", "ann", "ann"]


def test_an_error_is_the_callers_and_the_next_one_is_done() -> None:
    """Catches a thread that ends, or a person whose line stands still for ever, after an error."""

    def ends() -> None:
        raise SystemExit(3)

    turns = Turns(1, "test")
    failing, given_up = turns.submit("ann", ends), turns.submit("ann", ends)
    following = turns.submit("ann", lambda: 7)
    given_up.cancel()
    with pytest.raises(SystemExit):
        failing.result(PATIENCE)
    assert following.result(PATIENCE) == 7
    assert turns.submit("ann", lambda: 8).result(PATIENCE) == 8
