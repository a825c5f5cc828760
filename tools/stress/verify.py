"""What must be true after a run, read from what the server leaves: its log lines, its ledger, its pictures.

Every function returns sentences about what is wrong; none means that all is well. Nothing is started here.
"""

import json
import re
import signal
import sqlite3
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from uso import output
from uso.errors import OutputError
from uso.web.jobs.job import NAME_LETTERS, digest
from uso.web.store import uploads
from uso.web.store.ledger import FOLDER

ENDS = ("done", "cancelled", "failed")

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

TIE = 5e-6
"""Seconds: moments in the log are rounded."""


@dataclass(frozen=True)
class Line:
    """What the log says of one job; moments in seconds since 1970."""

    job: str
    state: str
    person: str
    accepted: float
    ended: float
    worker: int | None
    started: float | None
    pictures: int
    error: str
    lost: tuple[tuple[int, float, float], ...] = ()
    """Earlier turns, on workers that were lost: worker, start, end."""

    @property
    def began(self) -> float | None:
        """When it was its turn. A job whose worker was lost is next without another one."""
        return self.lost[0][1] if self.lost else self.started

    @property
    def turns(self) -> list[tuple[int | None, float, float]]:
        """Whose job it was, from when to when."""
        last = [] if self.started is None else [(self.worker, self.started, self.ended)]
        return [*self.lost, *last]

    @property
    def left_line(self) -> float:
        return self.ended if self.began is None else self.began


@dataclass(frozen=True)
class Entry:
    """A row of the ledger's jobs, with the files of its pictures."""

    id: str
    state: str
    error: str
    files: tuple[str, ...]
    num_images: int = 1
    deleted: int = 0
    """Pictures that their owner deleted."""

    @property
    def made(self) -> int:
        return len(self.files) + self.deleted


def read_lines(log: str) -> list[Line]:
    """The log's line of every job that was over."""
    found = [json.loads(text) for text in re.findall(r"uso\.jobs: (\{.*\})", log)]
    return [
        Line(
            one["job"], one["state"], one["person"], one["accepted"], one["ended"],
            one.get("worker"), one.get("started"), one["pictures"], one.get("error", ""),
            tuple((turn["worker"], turn["started"], turn["ended"]) for turn in one.get("lost", ())),
        )
        for one in found
    ]  # fmt: skip


def read_ledger(pictures: Path) -> list[Entry]:
    """Every job that was ever accepted, in the order in which they were."""
    with closing(sqlite3.connect(pictures / FOLDER / "ledger.sqlite3", timeout=30)) as db:
        files: dict[str, list[str]] = defaultdict(list)
        for job, file in db.execute("SELECT job, file FROM pictures"):
            files[job].append(file)
        rows = db.execute("SELECT id, state, error, num_images, deleted FROM jobs ORDER BY accepted").fetchall()
    return [Entry(id, state, error, tuple(files[id]), *counts) for id, state, error, *counts in rows]


def ends(entries: Sequence[Entry]) -> list[str]:
    """Every accepted job came to one end: done with all its pictures, or cancelled or failed with fewer, and why."""
    wrong = []
    for one in entries:
        name = one.id[:NAME_LETTERS]
        if one.state not in ENDS:
            wrong.append(f"Job {name} is still {one.state}.")
        elif (one.made == one.num_images) != (one.state == "done"):
            wrong.append(f"Job {name} is {one.state} and has {one.made} of {one.num_images} pictures.")
        if one.state == "failed" and not one.error:
            wrong.append(f"Job {name} failed, and nothing says why.")
    return wrong


def told_once(entries: Sequence[Entry], lines: Sequence[Line]) -> list[str]:
    """Log and ledger know the same jobs by the same ends, each once; for a server that ended in order."""
    wrong = []
    times = Counter(line.job for line in lines)
    states = {entry.id[:NAME_LETTERS]: entry.state for entry in entries}
    wrong += [f"Job {job} ended {count} times." for job, count in times.items() if count > 1]
    wrong += [f"Job {job} is in the ledger and has no line in the log." for job in states.keys() - times.keys()]
    wrong += [f"Job {job} is in the log and not in the ledger." for job in times.keys() - states.keys()]
    for line in lines:
        if (state := states.get(line.job, line.state)) != line.state:
            wrong.append(f"Job {line.job} is {line.state} in the log and {state} in the ledger.")
    return wrong


def whole_pictures(pictures: Path, entries: Sequence[Entry]) -> list[str]:
    """Every PNG opens and holds its record, belongs to one job, and every picture of the ledger is there with its
    references; none that was deleted is."""
    wrong, jobs = [], defaultdict[str, list[str]](list)
    for path in pictures.glob("*.png"):
        try:
            saved = output.read(path)
            jobs[str(saved.record.get("job"))].append(path.name)
            named = [entry["sha256"] for kind in output.KINDS for entry in saved.record["request"][kind]]
            lost = [sha256 for sha256 in named if not (pictures / output.REFERENCES / sha256).is_file()]
            wrong += [f"{path.name}: its reference {sha256[:12]} is gone." for sha256 in lost]
        except OutputError as error:
            wrong.append(f"{path.name}: {error}")
        if not path.read_bytes().endswith(PNG_END):  # decoders forgive a missing end
            wrong.append(f"{path.name}: its end is missing.")
    of_ledger = {digest(entry.id): entry for entry in entries}
    for entry in entries:
        for file in entry.files:
            if not (pictures / file).is_file():
                wrong.append(f"{file} of job {entry.id[:NAME_LETTERS]} is not on the disk.")
    for job, files in jobs.items():
        if job not in of_ledger:
            wrong.append(f"A picture names a job ({job[:12]}) that the ledger does not know.")
            continue
        entry = of_ledger[job]
        if len(files) > entry.num_images:
            wrong.append(f"{len(files)} pictures were made for one job ({job[:12]}) of {entry.num_images}.")
        strays = set(files) - set(entry.files)
        wrong += [f"{file} of job {entry.id[:NAME_LETTERS]} is not in the ledger, or deleted." for file in strays]
    strange = [
        path.name
        for path in pictures.iterdir()
        if path.is_file() and path.suffix != ".png" and not path.name.startswith(".")
    ]
    return [*wrong, *(f"{name} is no picture." for name in strange)]


def one_at_a_time(lines: Iterable[Line]) -> list[str]:
    """No worker ever had two jobs."""
    wrong = []
    by_worker: dict[int | None, list[tuple[float, float, str]]] = defaultdict(list)
    for line in lines:
        for worker, started, ended in line.turns:
            by_worker[worker].append((started, ended, line.job))
    for worker, turns in by_worker.items():
        for (_, end, before), (started, _, job) in pairwise(sorted(turns)):
            if started < end - TIE:
                wrong.append(f"Worker {worker} had {before} and {job} at the same time.")
    return wrong


def fair(lines: Sequence[Line], wanted: Mapping[str, int]) -> list[str]:
    """The rules of `uso/web/jobs/fair_queue.py`, job by job as they began.

    From the moment on from which somebody waits with nothing in the making, everybody else begins one job at the most
    before them, and one more for each further picture that their last job asked for; who begins has no more in the
    making than anybody who waits; one's own jobs begin in their order.

    Args:
        wanted: how many pictures a job asked for, where it was more than one.
    """
    began: dict[str, list[tuple[float, Line]]] = defaultdict(list)
    for line in lines:
        if line.began is not None:
            began[line.person].append((line.began, line))
    wrong = []
    starts = {}
    for person, turns in began.items():
        turns.sort(key=lambda turn: turn[0])
        starts[person] = [started for started, _ in turns]
        accepted = [line.accepted for _, line in turns]
        if accepted != sorted(accepted):
            wrong.append(f"Jobs of person {person} began in another order than they came in.")
    for person, turns in began.items():
        for number, (started, line) in enumerate(turns):
            ended = [min(before.ended, started) for _, before in turns[:number]]
            since = max([line.accepted, *ended])
            turns_due = wanted.get(turns[number - 1][1].job, 1) if number else 1
            others = {who: s for who, s in starts.items() if who != person}
            wrong += _overtaken(line, since, started, others, turns_due)
    return wrong + _greedy(lines)


def _overtaken(line: Line, since: float, started: float, others: dict[str, list[float]], most: int) -> list[str]:
    wrong = []
    for who, times in others.items():
        between = bisect_left(times, started - TIE) - bisect_right(times, since + TIE)
        if between > most:
            wrong.append(f"Person {who} began {between} jobs while {line.job} of {line.person} waited for its turn.")
    return wrong


def _greedy(lines: Sequence[Line]) -> list[str]:
    wrong = []
    for line in lines:
        if (at := line.began) is None:
            continue
        making = Counter(
            one.person
            for one in lines
            if one is not line and any(started < at - TIE and at + TIE < ended for _, started, ended in one.turns)
        )
        waiting = {one.person for one in lines if one.accepted < at - TIE and at + TIE < one.left_line}
        passed = [who for who in waiting - {line.person} if making[who] < making[line.person]]
        if passed:
            wrong.append(f"{line.job} of {line.person} began before person {passed[0]}, with fewer in the making.")
    return wrong


def agree(notes: Iterable[dict[str, Any]], entries: Sequence[Entry]) -> list[str]:
    """What callers were told is what the ledger has: a picture that was announced is one that exists.

    Args:
        notes: of the callers; each with `job` (an id, or None if it was refused), `end` ("done", "error" or "gone").
    """
    wrong = []
    known = {entry.id: entry for entry in entries}
    for note in notes:
        if note["job"] is None:
            continue
        entry = known.get(note["job"])
        name = note["job"][:NAME_LETTERS]
        if entry is None:
            wrong.append(f"Job {name} was announced, and the ledger does not know it.")
        elif note["end"] == "done" and entry.state != "done":
            wrong.append(f"Job {name} was announced as done, and the ledger has it as {entry.state}.")
        elif note["end"] == "error" and entry.state == "done":
            wrong.append(f"Job {name} is done, and its caller was told: {note['said']}")
    return wrong


def left_behind(temporary: Path) -> set[str]:
    """Folders of uploads, of servers that live or were killed."""
    return {folder.name for folder in temporary.glob(f"{uploads.PREFIX}*")}


def ended_in_order(status: int, temporary: Path, before: Collection[str] = ()) -> list[str]:
    """A server that SIGTERM ended has tidied up behind it, and then passed the signal on as its exit status.

    Args:
        temporary: where it had its folder of uploads.
        before: what was there before it started.
    """
    wrong = [] if status in (0, -signal.SIGTERM) else [f"SIGTERM ended with status {status}."]
    return wrong + [f"{name} was left behind." for name in left_behind(temporary) - set(before)]
