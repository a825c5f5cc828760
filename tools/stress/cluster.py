"""One page before a Ray cluster that falls apart: `python -m tools.stress.cluster --jobs 200 --callers 20 --seed 1`.

Two Ray nodes on this machine, with a worker each; the demo model. While the callers ask for pictures, the process of a
worker is killed, and later a whole node, which comes back later. Nothing may be lost, made twice or out of turn, and
pictures are those that this process makes, bit for bit. Prints one JSON line; exit status 1 and a sentence for each
fault if there is any.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tests.support.running import LONG, Program, ask, free_port
from tests.support.scripted import until
from tools.stress import verify
from tools.stress.report import report
from tools.stress.sender import Sent
from uso import output
from uso.cluster.head import ALONE, LOOPBACK, STORE_BYTES, TEMPORARY
from uso.config import ROOT, load_model_config
from uso.request.request import GenerationRequest, GenerationResult
from uso.web.jobs.job import NAME_LETTERS

GREEDY_SHARE = 5
"""Every so many callers one is greedy: it sends up to `AT_ONCE` requests at once."""
AT_ONCE = 4

PATIENCE = 900.0
"""Seconds for all jobs."""

COMPARED = 6
"""Pictures that are made again here."""

ACTOR = "ray::UsoWorker"
"""What Ray calls the process of a worker."""


@dataclass(frozen=True)
class Wanted:
    jobs: int
    callers: int
    seed: int


class Nodes:
    """A Ray cluster of two nodes with one CPU each, on the loopback address."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.port = free_port()
        self._folder = tempfile.mkdtemp(prefix="uso-ray-", dir=TEMPORARY)
        self._options = {"num_cpus": 1, "node_ip_address": LOOPBACK, "object_store_memory": STORE_BYTES}
        head = {"ray_client_server_port": self.port, "include_dashboard": False, "temp_dir": self._folder}
        self._cluster = Cluster(initialize_head=True, head_node_args=self._options | head)
        self.add()

    @property
    def address(self) -> str:
        return f"ray://{LOOPBACK}:{self.port}"

    def add(self) -> None:
        self._second = self._cluster.add_node(**self._options)

    def kill_second(self) -> None:
        """Every process of the node that is not the head, at once."""
        workers = self._workers(self._second)
        self._cluster.remove_node(self._second, allow_graceful=False)
        for worker in workers:  # what the machine's end would take along
            kill(worker)

    def kill_worker(self, draw: random.Random) -> None:
        """One of the workers' processes."""
        workers = [worker for node in (self._cluster.head_node, self._second) for worker in self._workers(node)]
        kill(draw.choice(workers))

    def end(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _workers(self, node: Any) -> list[psutil.Process]:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [child for child in raylet.children(recursive=True) if " ".join(child.cmdline()).startswith(ACTOR)]


def kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


@contextmanager
def nodes() -> Iterator[Nodes]:
    # The nodes import the program from here, with as many threads as the pictures are made with that are compared.
    os.environ |= ALONE | {"PYTHONPATH": str(ROOT)}
    made = Nodes()
    try:
        yield made
    finally:
        made.end()


class Crowd:
    """Callers in threads, each with an address of its own, and so many jobs in all."""

    def __init__(self, wanted: Wanted, port: int) -> None:
        self.sent: list[Sent] = []
        self._port = port
        self._lock = threading.Lock()
        share = [wanted.jobs // wanted.callers + (n < wanted.jobs % wanted.callers) for n in range(wanted.callers)]
        self._threads = [
            threading.Thread(target=self._live, args=(number, jobs, wanted.seed), daemon=True)
            for number, jobs in enumerate(share)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        with self._lock:
            return sum(bool(sent.end) for sent in self.sent)

    def notes(self) -> list[dict[str, Any]]:
        """Wait until everybody has what they wait for; what they heard."""
        end = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return [sent.note() for sent in self.sent]

    def _live(self, number: int, jobs: int, seed: int) -> None:
        draw = random.Random(seed * 1000 + number)
        while jobs:
            together = min(jobs, draw.randint(1, AT_ONCE) if number % GREEDY_SHARE == 0 else 1)
            sent = [self._send(draw, f"198.51.100.{number + 1}") for _ in range(together)]
            jobs -= together
            for one in sent:
                one.note()

    def _send(self, draw: random.Random, address: str) -> Sent:
        values = {
            "prompt": f"a fox, {draw.randrange(20)}",
            "steps": draw.randint(1, 4),
            "seed": draw.randrange(10**6),
            "num_images": draw.choice((1, 1, 1, 2, 3)),
        }
        sent = Sent(self._port, address=address, **values)
        with self._lock:
            self.sent.append(sent)
        return sent


def play(wanted: Wanted, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """(figures, faults) of one run; everything it leaves is in `folder`."""
    draw = random.Random(wanted.seed)
    flags = ("--rate", "0", "--orphan-grace", "120", "--max-waiting", "300")
    with nodes() as cluster:
        program = Program(folder, "--workers", cluster.address, *flags)
        try:
            program.wait_until("ready")
            until(lambda: ready(program) == 2, LONG)
            began = time.monotonic()
            crowd = Crowd(wanted, program.port)
            fewest = fall_apart(cluster, program, crowd, wanted, draw)
            notes = crowd.notes()
            seconds = time.monotonic() - began
            until(lambda: ready(program) == 2, LONG)
            status = program.signal()
        finally:
            program.end()
    entries, lines = verify.read_ledger(program.outputs), verify.read_lines(program.log())
    wrong = faults(program, notes, entries, lines, wanted) + verify.ended_in_order(status, program.scratch)
    wrong += compared(program.outputs, draw)
    if fewest == 2:
        wrong.append("The page never said that a worker was gone.")
    turns = Counter(line.worker for line in lines if line.started is not None)
    waits = sorted(line.began - line.accepted for line in lines if line.began is not None)
    figures = {
        "jobs": len(lines),
        **Counter(line.state for line in lines),
        "people": len({line.person for line in lines}),
        "pictures": sum(line.pictures for line in lines),
        "jobs_that_lost_a_worker": sum(bool(line.lost) for line in lines),
        "by_worker": [turns[worker] for worker in sorted(worker for worker in turns if worker is not None)],
        "fewest_workers_ready": fewest,
        "seconds": round(seconds),
        "waited_p50_s": round(waits[len(waits) // 2], 1),
        "waited_max_s": round(waits[-1], 1),
    }
    return figures, wrong


def fall_apart(cluster: Nodes, program: Program, crowd: Crowd, wanted: Wanted, draw: random.Random) -> int:
    """Kill a worker's process, then a node, which comes back later; returns the fewest workers that the page had."""
    moments = sorted(draw.randrange(wanted.jobs // 10, wanted.jobs * 7 // 10) for _ in range(2))
    until(lambda: crowd.done >= moments[0], PATIENCE)
    cluster.kill_worker(draw)
    until(lambda: ready(program) < 2, LONG)
    fewest = ready(program)
    until(lambda: crowd.done >= moments[1] and ready(program) == 2, PATIENCE)
    cluster.kill_second()
    until(lambda: ready(program) < 2, LONG)
    fewest = min(fewest, ready(program))
    back = crowd.done + wanted.jobs // 10
    until(lambda: crowd.done >= min(back, wanted.jobs), PATIENCE)
    cluster.add()
    return fewest


def ready(program: Program) -> int:
    """How many workers are ready, as the metrics say."""
    return ready_at(program.port)


def ready_at(port: int) -> int:
    """The same of the page at a port; 0 while there is none."""
    try:
        lines = ask(port, "/metrics").body.decode().splitlines()
    except OSError:
        return 0
    return next((int(float(line.split()[1])) for line in lines if line.startswith("uso_workers_ready ")), 0)


def faults(
    program: Program,
    notes: list[dict[str, Any]],
    entries: list[verify.Entry],
    lines: list[verify.Line],
    wanted: Wanted,
) -> list[str]:
    wrong = [f"A caller heard: {note['end']} {note['said']}" for note in notes if note["end"] != "done"]
    if len(entries) != wanted.jobs:
        wrong.append(f"{len(entries)} jobs are in the ledger, {wanted.jobs} were sent.")
    wrong += [line for line in program.log().splitlines() if " ERROR " in line or line.startswith("Traceback")]
    wrong += verify.ends(entries) + verify.told_once(entries, lines) + verify.whole_pictures(program.outputs, entries)
    images = {entry.id[:NAME_LETTERS]: entry.num_images for entry in entries}
    return wrong + verify.one_at_a_time(lines) + verify.fair(lines, images) + verify.agree(notes, entries)


def compared(pictures: Path, draw: random.Random) -> list[str]:
    """Some of the pictures, made again in this process."""
    from uso.weights.loading import load_pipeline

    config, wrong = load_model_config("demo"), []
    pipeline = load_pipeline(config, device="cpu", memory="full")
    for path in draw.sample(sorted(pictures.glob("*.png")), COMPARED):
        saved = output.read(path)
        request = GenerationRequest.create(config, **saved.values())
        with closing(pipeline.stream(request)) as events:
            result = next(event for event in events if isinstance(event, GenerationResult))
        with Image.open(path) as image:
            if not np.array_equal(np.asarray(image), np.asarray(result.image)):
                wrong.append(f"{path.name} is another picture when it is made here.")
        if not (saved.model.get("node") and saved.model.get("device")):
            wrong.append(f"{path.name} does not say where it was made.")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--callers", type=int, default=20)
    return report(parser, lambda args, folder: play(Wanted(args.jobs, args.callers, args.seed), folder))


if __name__ == "__main__":
    sys.exit(main())
