"""Many people at once, for minutes: `python -m tools.stress.load --minutes 10 --seed 1`.

Thirty callers and five browsers ask one server with two workers, stop what they asked for, go away, are killed. At the
end the log, the ledger and the pictures are compared (`verify.py`). Prints one JSON line; exit status 1 and a sentence
for each fault if there is any.
"""

import argparse
import multiprocessing
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.running import Program
from tests.support.scripted import until
from tools.stress import callers, verify
from tools.stress.browsers import Browsers
from tools.stress.report import report
from tools.stress.sender import call, hear
from tools.stress.watch import Watch, by_sentence, too_much
from uso.web.jobs.job import NAME_LETTERS
from uso.web.page.gradio_fit import MAX_SESSIONS

FLAGS = ("--device", "auto", "--devices", "cpu,cpu", "--orphan-grace", "3")
GREEDY_SHARE = 5
"""Every so many callers one is greedy."""

KILL_EVERY = 8.0
"""Seconds between two killed callers, in the mean."""

LONG_RUN = 300.0
"""Seconds from which on memory is compared."""

PRELOADED = ["tools.stress.callers", "tools.stress.browsers", "uso.web.page.gradio_fit"]
"""Each caller imports what this module does: seconds of processor time, if it were not there."""

PATIENCE = 600.0
"""Seconds for what is still waiting at the end."""


@dataclass(frozen=True)
class Wanted:
    minutes: float
    seed: int
    callers: int
    browsers: int


class Crowd:
    """The callers' processes; one that was killed comes back after a while."""

    def __init__(self, wanted: Wanted, url: str, folder: Path, until: float) -> None:
        self._draw = random.Random(wanted.seed)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        reference = folder / "reference.png"
        Image.effect_mandelbrot((96, 80), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(reference)
        self._habits = [
            callers.Habits(
                url=url,
                address=f"198.51.100.{number + 1}",
                seed=wanted.seed * 10_000 + number,
                greedy=number % GREEDY_SHARE == 0,
                until=until,
                notes=folder / f"caller-{number}.jsonl",
                reference=reference,
            )
            for number in range(wanted.callers)
        ]
        self._processes: list[BaseProcess] = []
        self._back: dict[int, float] = {}
        """When somebody who was killed comes back."""
        self.killed = 0
        self.wrong: list[str] = []

    def come(self) -> None:
        for habits in self._habits:
            self._processes.append(self._start(habits))
            time.sleep(0.1)

    def live(self, until: float) -> None:
        """Kill one now and again, until that moment."""
        while time.time() < until:
            time.sleep(0.25)
            if self._draw.random() < 0.25 / KILL_EVERY:
                self._kill(self._draw.randrange(len(self._processes)))
            for number in [number for number, moment in self._back.items() if moment <= time.time()]:
                del self._back[number]
                self._habits[number] = replace(self._habits[number], seed=self._habits[number].seed + 1000)
                self._processes[number] = self._start(self._habits[number])

    def go(self) -> list[dict[str, Any]]:
        """Wait until everybody has what they waited for; what they noted."""
        end = time.monotonic() + PATIENCE
        for number, process in enumerate(self._processes):
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                self.wrong.append(f"Caller {number} still waits.")
                process.kill()
            elif process.exitcode and number not in self._back:
                self.wrong.append(f"Caller {number} ended with status {process.exitcode}.")
        return [note for habits in self._habits for note in callers.read_notes(habits.notes)]

    def _start(self, habits: callers.Habits) -> BaseProcess:
        process = self._context.Process(target=callers.run, args=(habits,), daemon=True)
        process.start()
        return process

    def _kill(self, number: int) -> None:
        if number not in self._back and self._processes[number].is_alive():
            self._processes[number].kill()
            self._processes[number].join()
            self._back[number] = time.time() + self._draw.uniform(1.0, 6.0)
            self.killed += 1


def load(wanted: Wanted, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """(figures, faults) of one run; everything it leaves is in `folder`."""
    program = Program(folder, *FLAGS, forked=True)
    try:
        program.wait_until("ready")
        until(lambda: b"uso_workers_ready 2.0" in program.ask("/metrics").body, PATIENCE)
        if wanted.minutes * 60 > LONG_RUN:
            _fill_sessions(program)
        url, end = f"http://127.0.0.1:{program.port}", time.time() + 60 * wanted.minutes
        watch, crowd = Watch(program), Crowd(wanted, url, folder, end)
        addresses = [f"203.0.113.{number + 1}" for number in range(wanted.browsers)]
        people = Browsers(url, addresses, wanted.seed, end)
        watch.start()
        people.thread.start()
        crowd.come()
        crowd.live(end)
        notes = crowd.go()
        people.thread.join(PATIENCE)
        until(lambda: _idle(program), PATIENCE)
        watch.stop()
        refused = _refused(program)
        status = program.signal()
    finally:
        program.end()
    wrong = [*crowd.wrong, *people.wrong, *watch.wrong, *_faults(program, notes, status)]
    growth = watch.growth()
    if growth is not None and too_much(growth):
        wrong.append(f"Memory grew from {growth[0]:.0f} MB to {growth[1]:.0f} MB.")
    figures = _figures(program, notes) | {"killed_callers": crowd.killed, "browsers": dict(people.did)}
    figures |= {"refused": refused, **watch.figures(), "memory_mb": growth and [round(mb) for mb in growth]}
    return figures, wrong


def _fill_sessions(program: Program) -> None:
    """As many calls as the server keeps sessions of: from then on it should need no more memory."""
    for number in range(MAX_SESSIONS):  # by many people, for each has a rate
        event = call(program.port, "status", ["0" * 32], f"192.0.2.{number % 250}")
        assert event is not None
        hear(program.port, "status", event, lambda name, data: None)


def _idle(program: Program) -> bool:
    page = program.ask("/metrics").body
    return b"uso_jobs_waiting 0.0" in page and b"uso_jobs_running 0.0" in page


def _refused(program: Program) -> dict[str, int]:
    """How many requests were not taken, by reason, as the server counted them."""
    lines = program.ask("/metrics").body.decode().splitlines()
    counts = (line.partition('{reason="')[2].partition('"} ') for line in lines if line.startswith("uso_refused_total"))
    return {reason: int(float(count)) for reason, _, count in counts}


def _faults(program: Program, notes: list[dict[str, Any]], status: int) -> list[str]:
    entries, lines = verify.read_ledger(program.outputs), verify.read_lines(program.log())
    wrong = verify.ended_in_order(status, program.scratch)
    wrong += [f"A caller never heard of the end of {note['job']}." for note in notes if note["end"] == callers.LOST]
    wrong += [line for line in program.log().splitlines() if " ERROR " in line or line.startswith("Traceback")]
    wrong += verify.ends(entries) + verify.told_once(entries, lines) + verify.whole_pictures(program.outputs, entries)
    wanted = {entry.id[:NAME_LETTERS]: entry.num_images for entry in entries}
    return wrong + verify.one_at_a_time(lines) + verify.fair(lines, wanted) + verify.agree(notes, entries)


def _figures(program: Program, notes: list[dict[str, Any]]) -> dict[str, Any]:
    lines = verify.read_lines(program.log())
    waits = sorted(line.started - line.accepted for line in lines if line.started is not None)
    turns = Counter(line.worker for line in lines if line.started is not None)
    return {
        "jobs": len(lines),
        **Counter(line.state for line in lines),
        "people": len({line.person for line in lines}),
        "pictures": sum(line.pictures for line in lines),
        "deleted": sum(entry.deleted for entry in verify.read_ledger(program.outputs)),
        "by_worker": [turns[worker] for worker in sorted(worker for worker in turns if worker is not None)],
        "waited_p50_s": round(waits[len(waits) // 2], 2) if waits else None,
        "waited_max_s": round(waits[-1], 2) if waits else None,
        "said": by_sentence([note["said"] for note in notes if note["said"]]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--callers", type=int, default=30)
    parser.add_argument("--browsers", type=int, default=5)
    return report(parser, lambda args, to: load(Wanted(args.minutes, args.seed, args.callers, args.browsers), to))


if __name__ == "__main__":
    sys.exit(main())
