"""How long a picture takes on a machine that others use too: `python -m tools.stress.neighbours`.

Starts `python app.py --model demo` as anybody would, with no variable that governs threads, and asks for pictures in
turns: on a quiet machine, and beside processes that compute without end. Prints one line of JSON: medians, least and
most, of the seconds that a caller waits, and of the processor seconds that the server takes. The exit status is 1 if
the picture among neighbours takes more than `ALLOWED` times as long as the quiet one.

`--against NAME=VALUE` starts a second server with that variable and asks it by turns in the same run:
`--against GOMP_SPINCOUNT=300000` lets waiting threads spin as GNU's OpenMP does by itself.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil
from gradio_client import Client

from tests.support.running import Program, Started, program
from uso.system.threads import COUNT_BY_USER, WAITING_BY_USER

ALLOWED = 2.5
"""Times the quiet picture's seconds."""

PROMPT = "a red fox in a forest"

Taken = dict[str, dict[str, list[float]]]
"""By `quiet` and `busy`: `seconds` and `cpu_seconds` of each picture."""


class Asked:
    """A server, and what its pictures took."""

    def __init__(self, server: Program) -> None:
        server.wait_until("ready")
        self.process = psutil.Process(server.process.pid)
        self.client = Client(server.url, download_files=False, verbose=False, analytics_enabled=False)
        self.taken: Taken = {when: {"seconds": [], "cpu_seconds": []} for when in ("quiet", "busy")}
        self.seed = 0

    def picture(self, size: int, when: str | None) -> None:
        """Ask for one and wait for it; it counts under `when`."""
        self.seed += 1
        cpu, began = _cpu_seconds(self.process), perf_counter()
        self.client.predict(prompt=PROMPT, width=size, height=size, seed=self.seed, api_name="/generate")
        seconds = perf_counter() - began
        if when is not None:
            self.taken[when]["seconds"].append(seconds)
            self.taken[when]["cpu_seconds"].append(_cpu_seconds(self.process) - cpu)


def ratio(taken: Taken) -> float:
    """How many times as long a picture takes among neighbours."""
    return median(taken["busy"]["seconds"]) / median(taken["quiet"]["seconds"])


def figures(taken: Taken) -> dict[str, object]:
    """[least, median, most] of everything, and the ratio of the medians."""
    found: dict[str, object] = {
        when: {what: _spread(values) for what, values in by_kind.items()} for when, by_kind in taken.items()
    }
    return found | {"ratio": round(ratio(taken), 2)}


def verdict(taken: Taken) -> str:
    """The fault, as a sentence; empty if there is none."""
    if ratio(taken) <= ALLOWED:
        return ""
    return f"A picture among neighbours takes {ratio(taken):.2f} times as long; {ALLOWED} is allowed."


def _spread(values: Sequence[float]) -> list[float]:
    return [round(each, 2) for each in (min(values), median(values), max(values))]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    """While inside, so many processes compute without end."""
    with ExitStack() as stack:
        for _ in range(neighbours):
            stack.callback(Started([sys.executable, "-S", "-c", "while True: pass"]).end)
        yield


def measure(size: int, pictures: int, rounds: int, neighbours: int, against: dict[str, str]) -> list[Asked]:
    for name in (*WAITING_BY_USER, *COUNT_BY_USER):
        os.environ.pop(name, None)
    with ExitStack() as stack:
        asked = []
        for variables in ({}, against) if against else ({},):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            asked.append(Asked(stack.enter_context(program(folder, port=None, fresh=True, paced=False, **variables))))
        for each in asked:
            for _ in range(3):
                each.picture(size, None)
        for _ in range(rounds):
            for when, others in (("quiet", 0), ("busy", neighbours)):
                with busy(others):
                    for _ in range(pictures):
                        for each in asked:
                            each.picture(size, when)
    return asked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="side of the picture (128)")
    parser.add_argument("--neighbours", type=int, default=2, metavar="N", help="processes that compute (2)")
    parser.add_argument("--pictures", type=int, default=5, metavar="N", help="pictures in each turn (5)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns, quiet and busy (3)")
    parser.add_argument("--against", metavar="NAME=VALUE", help="a second server, with this variable")
    args = parser.parse_args()
    name, _, value = (args.against or "").partition("=")
    own, *others = measure(args.size, args.pictures, args.rounds, args.neighbours, {name: value} if name else {})
    line = {"size": args.size, "neighbours": args.neighbours, "cores": os.cpu_count(), **figures(own.taken)}
    if others:
        line[args.against] = figures(others[0].taken)
    print(json.dumps(line))
    fault = verdict(own.taken)
    if fault:
        print(fault, file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
