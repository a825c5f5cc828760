"""A hundred ends: `python -m tools.stress.kill --runs 100 --seed 1`.

Servers are ended at random moments, by SIGKILL and by SIGTERM in turns: while they start, while they work, while a
picture is being saved. The next server in the same folder must find every picture that was announced, no torn file,
and an end for every job. Then a process that does nothing but save (`writer.py`) is killed as often, at random
microseconds. Prints one JSON line; exit status 1 and a sentence for each fault if there is any.
"""

import argparse
import multiprocessing
import random
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.running import LONG, Program, listens
from tools.stress import verify, writer
from tools.stress.report import report
from tools.stress.sender import Sent
from uso.web.jobs.queue import SHUTTING_DOWN
from uso.web.store.ledger import FOLDER
from uso.web.store.recovery import CUT_OFF, CUT_SHORT, open_ledger

MOMENTS = ("start", "work", "work", "saving", "saving")
"""When servers are ended, and how often each."""

CHAINS = 2
"""Servers at the same time, each with folders of its own."""

KNOWN_ENDS = ("", CUT_OFF, CUT_SHORT, SHUTTING_DOWN)
"""What the ledger may say of a job besides that it is done."""

LONGEST_WRITE = 0.15
"""Seconds within which a writer is killed."""

RUNS_A_FOLDER = 10


class Chain:
    """Servers one after another in one folder, each ended in its own way."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._draw = random.Random(seed)
        self._sent: list[Sent] = []
        """To the server that runs."""
        self._notes: list[dict[str, Any]] = []
        """Of all before it."""
        self.figures: Counter[str] = Counter()
        self.slowest_end = 0.0
        self.wrong: list[str] = []

    def run(self, numbers: range) -> None:
        """Ends by number, and one more start to see what the last one left."""
        try:
            for number in numbers:
                self._one(number)
            self._look_back()
        except Exception as error:
            self.wrong.append(f"A chain broke off with {type(error).__name__}: {error}")

    def _one(self, number: int) -> None:
        how = signal.SIGKILL if number // CHAINS % 2 == 0 else signal.SIGTERM
        moment = self._draw.choice(MOMENTS)
        self.figures[f"{how.name} at {moment}"] += 1
        # Only an end at the start needs a start from nothing; the others are many, and it takes five times as long.
        program = Program(self._folder, forked=moment != "start")
        run = f"run {number} ({how.name} at {moment})"
        open_before, left_before = _open(program.outputs), verify.left_behind(program.scratch)
        try:
            if moment == "start":
                self._at_the_start(program)
            else:
                program.wait_until("loading", "ready")
                self._check(program.outputs, f"before {run}")
                self._at_work(program, saving=moment == "saving")
            heard, began = listens(program.port), time.monotonic()
            status = program.signal(how)
            seconds = time.monotonic() - began
        finally:
            program.process.kill()
            program.process.wait()
        notes = [sent.note() for sent in self._sent]
        self._notes, self._sent = [*self._notes, *notes], []
        if how == signal.SIGTERM and heard:  # before that nothing was taken, and Python itself answers the signal
            self.slowest_end = max(self.slowest_end, seconds)
            left = verify.ended_in_order(status, program.scratch, left_before)
            left += [f"job {job} has no end." for job in _open(program.outputs) - open_before]
            self.wrong += [f"{run}: {one}" for one in [*left, *_untold(notes)]]

    def _at_the_start(self, program: Program) -> None:
        end = time.monotonic() + self._draw.uniform(0.0, 7.0)
        while time.monotonic() < end and not listens(program.port):
            time.sleep(0.01)
        if time.monotonic() < end:
            self._send(program, self._draw.randint(1, 4))
        time.sleep(max(0.0, end - time.monotonic()))

    def _at_work(self, program: Program, saving: bool) -> None:
        self._send(program, self._draw.randint(3, 6))
        if self._draw.random() < 0.8:
            program.wait_until("ready")
        if not saving:
            time.sleep(self._draw.uniform(0.0, 2.0))
            return
        end = time.monotonic() + 20.0
        while time.monotonic() < end and not _parts(program.outputs):
            time.sleep(0.0005)
        time.sleep(self._draw.uniform(0.0, 0.005))

    def _send(self, program: Program, count: int) -> None:
        for _ in range(count):
            steps = self._draw.choice((1, 2, 4, 20))
            images, seed = self._draw.choice((1, 1, 3)), self._draw.randint(0, 10**6)
            self._sent.append(Sent(program.port, steps=steps, seed=seed, num_images=images))

    def _look_back(self) -> None:
        program = Program(self._folder, forked=True)
        try:
            program.wait_until("loading", "ready")
            self._check(program.outputs, "at the end")
            entries = verify.read_ledger(program.outputs)
            self.figures |= Counter(entry.state for entry in entries)
            announced = {note["job"] for note in self._notes if note["end"] == "done"}
            self.figures["announced"] += len(announced)
            self.figures["done, and nobody heard of it"] += sum(
                entry.state == "done" and entry.id not in announced for entry in entries
            )
            self.figures["cut off"] += sum(entry.error in (CUT_OFF, CUT_SHORT) for entry in entries)
            self.figures["half-written files"] += len(_parts(program.outputs))
            program.signal()
        finally:
            program.end()

    def _check(self, pictures: Path, when: str) -> None:
        """What the servers before this one left; nothing has been sent to this one yet."""
        entries = verify.read_ledger(pictures)
        wrong = verify.ends(entries) + verify.whole_pictures(pictures, entries) + verify.agree(self._notes, entries)
        wrong += [f"A job failed: {entry.error}" for entry in entries if entry.error not in KNOWN_ENDS]
        with closing(sqlite3.connect(pictures / FOLDER / "ledger.sqlite3")) as db:
            (without,) = db.execute("SELECT count(*) FROM pictures WHERE owner IS NULL").fetchone()
        wrong += [f"{without} pictures are in nobody's history."] if without else []
        self.wrong += [f"{when}: {one}" for one in wrong]


def _untold(notes: list[dict[str, Any]]) -> list[str]:
    """Callers whom a server that ended in order did not tell what became of their job."""
    lost = [note["job"] for note in notes if note["job"] and note["end"] == "lost"]
    wrong = [f"the caller of {job} was told nothing." for job in lost]
    told = (note["said"] for note in notes if note["end"] == "error")
    return wrong + [f"a caller was told: {said}" for said in told if SHUTTING_DOWN not in said]


def _open(pictures: Path) -> set[str]:
    """Jobs without an end."""
    if not (pictures / FOLDER / "ledger.sqlite3").exists():
        return set()
    try:
        return {entry.id for entry in verify.read_ledger(pictures) if entry.state not in verify.ENDS}
    except sqlite3.OperationalError:  # killed before the first table was made
        return set()


def _parts(pictures: Path) -> list[Path]:
    return [*pictures.glob(".*.part")]


def kill_servers(runs: int, seed: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """(figures, faults) of so many ends."""
    chains, threads = [], []
    for number in range(CHAINS):
        (folder / str(number)).mkdir(parents=True)
        chains.append(Chain(folder / str(number), seed * 100 + number))
        threads.append(threading.Thread(target=chains[-1].run, args=[range(number, runs, CHAINS)]))
        threads[-1].start()
    for thread in threads:
        thread.join()
    figures = sum((chain.figures for chain in chains), Counter[str]())
    slowest = round(max(chain.slowest_end for chain in chains), 1)
    return {**figures, "slowest_sigterm_s": slowest}, [one for chain in chains for one in chain.wrong]


def kill_writers(runs: int, seed: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """(figures, faults) of processes that are killed while they save; no server around them."""
    draw, context, wrong = random.Random(seed), multiprocessing.get_context("forkserver"), []
    context.set_forkserver_preload(["tools.stress.writer", "tools.stress.sender"])
    figures: Counter[str] = Counter()
    for number in range(runs):
        pictures = folder / f"writer-{number // RUNS_A_FOLDER}"
        pictures.mkdir(parents=True, exist_ok=True)
        hear, announce = context.Pipe(duplex=False)
        process = context.Process(target=writer.write, args=(pictures, announce), daemon=True)
        process.start()
        announce.close()
        announced: list[str] = []
        try:
            if hear.poll(LONG) and hear.recv() == writer.READY:
                announced += [hear.recv() for _ in range(number % 3)]  # however slow the machine is, some arrive
                time.sleep(draw.uniform(0.0, LONGEST_WRITE))
            process.kill()
            while True:
                announced.append(hear.recv())
        except EOFError:
            process.join()
        parts = len(_parts(pictures))
        open_ledger(pictures).close()
        deleted = {job.removeprefix(writer.DELETED) for job in announced if job.startswith(writer.DELETED)}
        announced = [job for job in announced if not job.startswith(writer.DELETED)]
        figures += Counter(announced=len(announced), deleted=len(deleted))
        entries = verify.read_ledger(pictures)
        wrong += [f"writer {number}: {one.id} came back." for one in entries if one.id in deleted and one.files]
        notes = [{"job": job, "end": "done"} for job in announced]
        found = verify.ends(entries) + verify.whole_pictures(pictures, entries) + verify.agree(notes, entries)
        wrong += [f"writer {number}: {one}" for one in found]
        if number % RUNS_A_FOLDER == RUNS_A_FOLDER - 1 or number == runs - 1:
            figures["half-written files"] += parts
            figures["pictures"] += sum(entry.state == "done" for entry in entries)
            figures["cut off"] += sum(entry.error == CUT_OFF for entry in entries)
    return dict(figures), wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    return report(parser, lambda args, folder: kill(args.runs, args.seed, folder))


def kill(runs: int, seed: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Processes that write, then servers: (figures, a sentence for each fault)."""
    writers, wrong = kill_writers(runs, seed, folder)
    servers, more = kill_servers(runs, seed, folder)
    return {"servers": servers, "writers": writers}, wrong + more


if __name__ == "__main__":
    sys.exit(main())
