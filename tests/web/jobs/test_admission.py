"""The limits before the queue: the sentence of each refusal, and that what is allowed passes."""

from pathlib import Path
from typing import Any

import pytest

from uso.web.jobs.admission import MAX_WAITING_BYTES, Admission, LimitError
from uso.web.settings import ServerSettings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def admission_of(tmp_path: Path, free: int = 10**12, **settings: Any) -> tuple[Admission, Clock]:
    clock = Clock()
    return Admission(ServerSettings(output=tmp_path, **settings), clock, lambda folder: free), clock


def ask(admission: Admission, person: str = "at:1", **about: Any) -> None:
    admission.check_disk()
    admission.check_queue(**{"waiting": 0, "waiting_of_person": 0, "waiting_bytes": 0, "seconds": None, **about})
    admission.check_rate(person)


@pytest.mark.parametrize(
    ("settings", "about", "kind", "sentence"),
    [
        (
            {"max_waiting": 5},
            {"waiting": 5, "seconds": 12.4},
            "line",
            "5 requests are waiting, and no more can wait here. Try again in about 12 s.",
        ),
        (
            {"max_waiting": 5},
            {"waiting": 5},
            "line",
            "5 requests are waiting, and no more can wait here. Try again in a moment.",
        ),
        (
            {},
            {"waiting_bytes": MAX_WAITING_BYTES + 1, "seconds": 200},
            "line",
            "Too many large images are waiting. Use smaller ones, or try again in about 3 min.",
        ),
        (
            {"max_waiting_per_person": 2},
            {"waiting_of_person": 2},
            "person",
            "2 requests of yours are waiting, and no more can wait for one person. Send this one when a picture is "
            "finished, or stop one.",
        ),
    ],
)
def test_full_lines_are_refused_in_words(
    tmp_path: Path, settings: Any, about: dict[str, Any], kind: str, sentence: str
) -> None:
    """Catches a limit that is off by one, or says nothing of what to do."""
    closed, _ = admission_of(tmp_path, **settings)
    with pytest.raises(LimitError) as caught:
        ask(closed, **about)
    assert (str(caught.value), caught.value.kind) == (sentence, kind)
    ask(closed, **{key: value - 1 for key, value in about.items() if key.startswith("waiting")})


def test_too_many_requests_in_a_minute(tmp_path: Path) -> None:
    """Catches a rate that counts everybody together, or never forgets."""
    opened, clock = admission_of(tmp_path, rate=3)
    for _ in range(3):
        clock.now += 5
        ask(opened)
    with pytest.raises(LimitError, match="One person may request at most 3 pictures a minute. Try again in 50 s."):
        ask(opened)
    ask(opened, "at:2")
    clock.now += 50
    ask(opened)
    with pytest.raises(LimitError):
        ask(opened)


def test_no_rate_where_none_is_set(tmp_path: Path) -> None:
    """Catches 0 taken as "none at all"."""
    opened, _ = admission_of(tmp_path, rate=0)
    for _ in range(1000):
        ask(opened)


def test_a_refused_request_is_not_counted(tmp_path: Path) -> None:
    """Catches a person who is shut out by asking again whether the line is free."""
    opened, _ = admission_of(tmp_path, rate=2, max_waiting=1)
    for _ in range(5):
        with pytest.raises(LimitError, match="no more can wait here"):
            ask(opened, waiting=1)
    ask(opened)


def test_a_full_disk_takes_no_more(tmp_path: Path) -> None:
    """Catches pictures that are made although they cannot be kept."""
    full, _ = admission_of(tmp_path, free=10**8, min_free_gb=0.5)
    with pytest.raises(LimitError, match="The server's disk is full"):
        ask(full)
