"""How long people wait: `python -m tools.capacity --workers 4 --seconds 15`.

Plays requests through the real fair queue (`uso/web/jobs/fair_queue.py`) on a clock of its own. Requests come at random
(a Poisson process), each by one of so many people; a worker takes the next one when it is free. Prints a table: how
much the workers are used, waiting time as simulated, and as Erlang's formula gives it for the same load (M/M/c: as many
people as requests, pictures whose time varies exponentially).
"""

import argparse
import heapq
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from uso.web.jobs.fair_queue import FairQueue

LOADS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

PICTURES = (1, 1, 1, 2, 4)
"""How many pictures a request asks for, each as likely as the others."""


@dataclass(frozen=True)
class Waiting:
    id: str
    person: str
    pictures_left: int
    came: float


@dataclass(frozen=True)
class Site:
    """
    Args:
        seconds: a picture.
        people: who share the requests; None: everybody comes once.
        pictures: of a request, by chance.
        varies: a picture's time is exponential, not constant.
    """

    workers: int
    seconds: float
    people: int | None
    pictures: tuple[int, ...] = PICTURES
    varies: bool = False

    def rate(self, load: float) -> float:
        """Requests a second, so that workers are used so much, 0 to 1."""
        return load * self.workers / (self.seconds * sum(self.pictures) / len(self.pictures))


def waits(site: Site, load: float, jobs: int, seed: int) -> list[float]:
    """Seconds that each request waits, without the first tenth, in which the queue fills."""
    draw, fair, found = random.Random(seed), FairQueue[Waiting](), list[float]()
    comes, ends = _arrivals(site, load, jobs, draw), list[tuple[float, int, str]]()
    number, free, coming = count(), site.workers, next(comes, None)
    while coming is not None or ends:
        if coming is not None and (not ends or coming.came <= ends[0][0]):
            now, coming = coming.came, _add(fair, coming, comes)
        else:
            now, _, person = heapq.heappop(ends)
            fair.finished(person)
            free += 1
        while free and (job := fair.take()) is not None:
            free -= 1
            found.append(now - job.came)
            seconds = site.seconds * job.pictures_left
            takes = draw.expovariate(1 / seconds) if site.varies else seconds
            heapq.heappush(ends, (now + takes, next(number), job.person))
    return found[len(found) // 10 :]


def _arrivals(site: Site, load: float, jobs: int, draw: random.Random) -> Iterator[Waiting]:
    now = 0.0
    for number in range(jobs):
        now += draw.expovariate(site.rate(load))
        person = number if site.people is None else draw.randrange(site.people)
        yield Waiting(str(number), str(person), draw.choice(site.pictures), now)


def _add(fair: FairQueue[Waiting], job: Waiting, comes: Iterator[Waiting]) -> Waiting | None:
    fair.add(job)
    return next(comes, None)


def erlang(workers: int, seconds: float, load: float) -> float:
    """Mean waiting time in seconds of M/M/c (Erlang's C formula).

    Args:
        seconds: that a request takes a worker, in the mean.
    """
    offered = workers * load
    last = offered**workers / math.factorial(workers) / (1 - load)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(workers)) + last)
    return waits * seconds / (workers * (1 - load))


def table(site: Site, jobs: int, seed: int) -> Iterator[str]:
    mean = site.seconds * sum(site.pictures) / len(site.pictures)
    yield "| workers used | requests an hour | waits: half of them | 19 of 20 | mean | Erlang's mean |"
    yield "|---|---|---|---|---|---|"
    for load in LOADS:
        found = sorted(waits(site, load, jobs, seed))
        half, most = found[len(found) // 2], found[len(found) * 19 // 20]
        cells = [half, most, sum(found) / len(found), erlang(site.workers, mean, load)]
        told = " | ".join(f"{seconds:.1f} s" for seconds in cells)
        yield f"| {load:.0%} | {3600 * site.rate(load):.0f} | {told} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0, help="that a picture takes (%(default)s)")
    parser.add_argument("--people", type=int, default=50, help="who share the requests (%(default)s)")
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for line in table(Site(args.workers, args.seconds, args.people), args.jobs, args.seed):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
