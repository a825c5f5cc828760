"""The garbage collector and what stays."""

import gc
import threading
import weakref

import pytest

from uso.system.garbage import keep_what_is_there, uncollected


class Thing:
    """In a circle with itself: only the collector can remove it."""

    def __init__(self) -> None:
        self.itself = self


def test_nothing_is_collected_while_it_is_made_nor_later() -> None:
    """Catches a collector that goes through what was just imported, again and again."""
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        seen = weakref.ref(Thing())
    assert gc.isenabled() and gc.get_freeze_count() > before
    gc.collect()
    assert seen() is not None
    new = weakref.ref(Thing())
    gc.collect()
    assert new() is None


def test_the_last_thread_that_leaves_turns_it_on_again() -> None:
    """Catches one import that has ended and slows down the other, and a collector that stays off after an error."""
    within, end = threading.Event(), threading.Event()

    def other() -> None:
        with uncollected():
            within.set()
            end.wait()

    thread = threading.Thread(target=other)
    thread.start()
    within.wait()
    with pytest.raises(ImportError), uncollected():
        raise ImportError("no such package")
    assert not gc.isenabled()
    end.set()
    thread.join()
    assert gc.isenabled()


def test_what_is_garbage_when_all_is_loaded_goes_first() -> None:
    """Catches memory that loading needed for a moment and the program keeps for ever."""
    seen = weakref.ref(Thing())
    keep_what_is_there()
    assert seen() is None and gc.get_freeze_count()
