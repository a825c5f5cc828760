"""The line: who is next, fairly by person, and when a job's turn will come. Pure bookkeeping, no clocks, no threads.

People take turns (round robin). Somebody whose picture is in the making goes behind those who have none in the making,
and back to the end when it is finished; within one person's jobs the first comes first. Nobody waits for ever: between
two turns of a person everybody else has one at the most, newcomers included.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What stands in the line."""

    @property
    def id(self) -> str: ...

    @property
    def person(self) -> str: ...


T = TypeVar("T", bound=Waiting)


@dataclass(frozen=True)
class Turn(Generic[T]):
    """When a waiting job will be made."""

    job: T
    ahead: int
    """Pictures that are finished or begun before it, those in the making now included."""
    seconds: float | None
    """Until it begins; None if that cannot be told."""


class FairQueue(Generic[T]):
    """Jobs that wait, by person, and how many of each person are in the making."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        """In the order of turns; a person is in here as long as one of their jobs waits."""
        self._making: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[T]:
        return (job for jobs in self._waiting.values() for job in jobs)

    def of(self, person: str) -> int:
        """How many jobs of a person wait."""
        return len(self._waiting.get(person, ()))

    def add(self, job: T) -> None:
        self._waiting.setdefault(job.person, deque()).append(job)

    def remove(self, job_id: str) -> T | None:
        """Take a job out of the line before its turn; None if it is not in it."""
        for person, jobs in self._waiting.items():
            for job in jobs:
                if job.id == job_id:
                    jobs.remove(job)
                    if not jobs:
                        del self._waiting[person]
                    return job
        return None

    def take(self) -> T | None:
        """The job whose turn it is, in the making from now on; None if nobody waits."""
        if not self._waiting:
            return None
        # `min` takes the first of equals: the one whose turn it has been for longest.
        person = min(self._waiting, key=lambda person: self._making[person])
        job = self._waiting[person].popleft()
        self._making[person] += 1
        self._to_the_end(person)
        return job

    def finished(self, person: str) -> None:
        """A job of this person that was taken is over."""
        self._making[person] -= 1
        if self._making[person] <= 0:
            del self._making[person]
        self._to_the_end(person)

    def clear(self) -> list[T]:
        """Take everybody out."""
        jobs = list(self)
        self._waiting.clear()
        return jobs

    def turns(
        self, making: list[tuple[T, float | None]], seconds_of: Callable[[T], float | None], workers: int
    ) -> list[Turn[T]]:
        """Play the line forward: the waiting jobs in the order in which they will begin.

        Args:
            making: the jobs in the making, each with the seconds it still takes (None: not known).
            seconds_of: how long a waiting job will take (None: not known).
            workers: how many are made at once.
        """
        line: FairQueue[T] = FairQueue()
        line._waiting = {person: deque(jobs) for person, jobs in self._waiting.items()}
        line._making = Counter(self._making)
        # (free at, person whose job ends then); what is not known counts as nothing for the order.
        busy: list[tuple[float, str | None]] = [(left or 0.0, job.person) for job, left in making]
        busy += [(0.0, None)] * max(0, workers - len(busy))
        known = all(left is not None for _, left in making)
        turns: list[Turn[T]] = []
        while busy and len(line):
            busy.sort(key=lambda entry: entry[0])
            now, person = busy.pop(0)
            if person is not None:
                line.finished(person)
            job = line.take()
            assert job is not None
            turns.append(Turn(job, len(turns) + len(making), now if known else None))
            seconds = seconds_of(job)
            known = known and seconds is not None
            busy.append((now + (seconds or 0.0), job.person))
        return turns

    def _to_the_end(self, person: str) -> None:
        jobs = self._waiting.pop(person, None)
        if jobs:
            self._waiting[person] = jobs
