"""The fair queue: which job is next, and when each job will start. No clocks, no threads, no locks.

People take turns (round robin). People with a running job go behind those without one, and to the end of the queue
when it finishes. A turn is one picture: who takes a job of several while others wait lets as many turns go by
afterwards. One person's jobs keep their order. Nobody waits for ever: between two jobs of one person, everybody else
has at most one, newcomers included, or as many as make up for the pictures of the first. A job that came back, for its
worker was lost, is next: its turn was taken before.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What can be queued."""

    @property
    def id(self) -> str: ...

    @property
    def person(self) -> str: ...

    @property
    def pictures_left(self) -> int: ...


T = TypeVar("T", bound=Queued)


@dataclass(frozen=True)
class Position(Generic[T]):
    """Where a queued job stands."""

    job: T
    ahead: int
    """Jobs that start before it, running ones included."""
    pictures_ahead: int
    """Pictures that these still have to make."""
    seconds: float | None
    """Until it starts; None if that is not known."""


class FairQueue(Generic[T]):
    """Queued jobs by person, and how many jobs of each person are running. Its length is that of the queue."""

    def __init__(self) -> None:
        self._queued: dict[str, deque[T]] = {}
        """In the order of turns. A person is a key as long as one of their jobs is queued."""
        self._returned: deque[T] = deque()
        self._running: Counter[str] = Counter()
        self._owed: Counter[str] = Counter()
        """Turns that people let go by for the pictures they had at once."""

    def __len__(self) -> int:
        return len(self._returned) + sum(map(len, self._queued.values()))

    def __iter__(self) -> Iterator[T]:
        return (job for jobs in (self._returned, *self._queued.values()) for job in jobs)

    def add(self, job: T) -> None:
        self._queued.setdefault(job.person, deque()).append(job)

    def put_back(self, job: T) -> None:
        """A job that was taken, and is not running any more, comes before all others."""
        self._returned.append(job)

    def remove(self, job_id: str) -> T | None:
        """Remove a queued job; None if it is not queued."""
        for job in self._returned:
            if job.id == job_id:
                self._returned.remove(job)
                return job
        for person, jobs in self._queued.items():
            for job in jobs:
                if job.id == job_id:
                    jobs.remove(job)
                    if not jobs:
                        del self._queued[person]
                    return job
        return None

    def take(self) -> T | None:
        """Remove the next job, which counts as running from now on; None if the queue is empty."""
        if self._returned:
            job = self._returned.popleft()
            self._running[job.person] += 1
            self._move_to_end(job.person)
            return job
        if not self._queued:
            return None
        person = self._next_person()
        job = self._queued[person].popleft()
        if len(self._queued) == 1:  # nobody waits for it
            self._owed.clear()
        else:
            self._owed[person] = job.pictures_left - 1
        self._running[person] += 1
        self._move_to_end(person)
        return job

    def _next_person(self) -> str:
        """Whose turn it is: of the people with the fewest running jobs, who has waited longest and owes no turn."""
        fewest = min(self._running[person] for person in self._queued)
        people = [person for person in self._queued if self._running[person] == fewest]
        while len(people) > 1:
            for person in people:
                if not self._owed[person]:
                    return person
                self._owed[person] -= 1
                self._move_to_end(person)
        return people[0]

    def finished(self, person: str) -> None:
        """A running job of this person is over."""
        self._running[person] -= 1
        if self._running[person] <= 0:
            del self._running[person]
        self._move_to_end(person)

    def clear(self) -> list[T]:
        """Remove and return all queued jobs."""
        jobs = list(self)
        self._returned.clear()
        self._queued.clear()
        return jobs

    def positions(
        self, running: list[tuple[T, float | None]], seconds_of: Callable[[T], float | None], workers: int
    ) -> list[Position[T]]:
        """Simulate the queue: all queued jobs in the order in which they will start.

        Args:
            running: each running job and the seconds that it still takes (None: not known).
            seconds_of: how long a queued job will take (None: not known).
            workers: how many jobs run at once.
        """
        queue: FairQueue[T] = FairQueue()
        queue._queued = {person: deque(jobs) for person, jobs in self._queued.items()}
        queue._returned = deque(self._returned)
        queue._running = Counter(self._running)
        queue._owed = Counter(self._owed)
        # (free in seconds, person whose job ends then). An unknown time counts as 0 for the order.
        busy: list[tuple[float, str | None]] = [(left or 0.0, job.person) for job, left in running]
        busy += [(0.0, None)] * max(0, workers - len(busy))
        known = all(left is not None for _, left in running)
        positions: list[Position[T]] = []
        pictures = sum(job.pictures_left for job, _ in running)
        while busy and len(queue):
            busy.sort(key=lambda entry: entry[0])
            now, person = busy.pop(0)
            if person is not None:
                queue.finished(person)
            job = queue.take()
            assert job is not None
            positions.append(Position(job, len(positions) + len(running), pictures, now if known else None))
            pictures += job.pictures_left
            seconds = seconds_of(job)
            known = known and seconds is not None
            busy.append((now + (seconds or 0.0), job.person))
        return positions

    def _move_to_end(self, person: str) -> None:
        jobs = self._queued.pop(person, None)
        if jobs:
            self._queued[person] = jobs
