"""Strangers with bad intentions: `python -m tools.stress.hostile --examples 5000 --seed 1`.

Calls drawn by hypothesis (`calls.py`) go to two servers, one of which asks for a login, and schemathesis goes through
our own routes by our own schema. Then small requests that are dear to answer hit the open one (`stalls.py`). Nothing
that is nobody's business may come back, nothing of ours may answer 500, nobody may wait for a stranger, and at the end
the server must live and make the same picture as before. Prints one JSON line; exit status 1 and a sentence for each
fault if there is any.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.configuration
import psutil
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

from tests.support.running import Program
from tools.stress import verify, wire
from tools.stress.calls import Call, World, calls
from tools.stress.report import report
from tools.stress.scene import Scene, Watcher
from tools.stress.schema import by_schema
from tools.stress.sender import Sent
from tools.stress.stalls import stalls
from uso.config import ROOT

THREADS = 4
LOGIN_SHARE = 0.15
"""Of the calls, that go to the server with accounts."""

SCHEMA_SHARE = 0.1
"""Of the calls, that are drawn from our schema."""

MORE_MB = 400.0
"""By which memory may grow: what people have uploaded and what still waits is in it."""


def attack(program: Program, world: World, watcher: Watcher, examples: int, seed: int) -> None:
    """That many calls, in a few threads."""

    def one_thread(number: int, count: int) -> None:
        draw = 0

        @hypothesis.seed(seed * 100 + number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(calls(world))
        def strike(call: Call) -> None:
            nonlocal draw
            draw += 1
            try:
                for answer in wire.send(program.port, call, f"198.18.{number}.{draw % 250}"):
                    watcher.look(call, answer)
            except OSError as error:
                watcher.faults.append(f"The server could not be reached ({type(error).__name__}) with {call!r}")

        strike()

    threads = [
        threading.Thread(target=one_thread, args=[number, max(1, examples // THREADS)]) for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _picture(program: Program) -> bytes:
    """The pixels of one request, always the same."""
    before = set(program.pictures())
    note = Sent(program.port, prompt="the same fox", seed=77, width=160).note()
    if note["end"] != "done":
        raise AssertionError(f"No picture was made: {note}")
    (made,) = [path for path in set(program.pictures()) - before if "the-same-fox" in path.name]
    with Image.open(made, formats=["PNG"]) as image:
        return image.tobytes()


def in_the_open(folder: Path, examples: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """A server for everybody."""
    scene = Scene(folder, "--log-prompts")
    program = scene.program
    try:
        world, watcher, top = scene.ready(), scene.watcher(), set(ROOT.iterdir())
        scene.somebody_uploads()
        first = _picture(program)
        process = psutil.Process(program.process.pid)
        before = process.memory_info().rss / 1e6
        drawn = round(examples * SCHEMA_SHARE)
        attack(program, world, watcher, examples - drawn, seed)
        tried, wrong = by_schema(f"http://127.0.0.1:{program.port}", drawn, seed)
        stalled, slow = stalls(program)
        wrong += slow
        _wait_until_idle(program)
        after = process.memory_info().rss / 1e6
        wrong += watcher.faults + scene.strewn() + [f"{path.name} is new." for path in set(ROOT.iterdir()) - top]
        try:
            if _picture(program) != first:
                wrong.append("The same request makes another picture than before.")
        except AssertionError as error:
            wrong.append(str(error))
        if after - before > MORE_MB:
            wrong.append(f"Memory grew from {before:.0f} MB to {after:.0f} MB.")
        entries = verify.read_ledger(program.outputs)
        wrong += verify.ends(entries) + verify.whole_pictures(program.outputs, entries)
        status = program.signal()
        wrong += verify.ended_in_order(status, program.scratch)
    finally:
        program.end()
    return {
        "calls": sum(watcher.statuses.values()),
        "by_schema": tried,
        "healthz_and_picture_s": stalled,
        "answers": dict(watcher.statuses),
        "gradio_5xx": dict(watcher.failed_at.most_common(12)),
        "jobs": len(entries),
        "memory_mb": [round(before), round(after)],
        "log": _unexpected(program),
    }, wrong


def behind_a_login(folder: Path, examples: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """A server that strangers are not let into at all."""
    people = folder / "people"
    folder.mkdir(parents=True)
    account = [sys.executable, "-m", "uso", "account", str(people), "ann"]
    subprocess.run(account, cwd=ROOT, input="correct horse battery\n", text=True, check=True, capture_output=True)
    scene = Scene(folder, "--auth", str(people))
    try:
        world, watcher = scene.ready(), scene.watcher()
        watcher.secrets["A password"] = people.read_bytes().split(b"$")[-1].strip()[:20]
        attack(scene.program, world, watcher, examples, seed)
        wrong = watcher.faults + scene.strewn()
        if verify.read_ledger(scene.program.outputs):
            wrong.append("Somebody who has not logged in got a job.")
        if scene.program.ask("/healthz").status != 200:
            wrong.append("The server is dead.")
        wrong += verify.ended_in_order(scene.program.signal(), scene.program.scratch)
    finally:
        scene.program.end()
    return {"calls": sum(watcher.statuses.values()), "answers": dict(watcher.statuses)}, wrong


def _wait_until_idle(program: Program) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        page = program.ask("/metrics").body
        if b"uso_jobs_waiting 0.0" in page and b"uso_jobs_running 0.0" in page:
            return
        time.sleep(0.2)
    raise AssertionError("jobs still wait")


def _unexpected(program: Program) -> dict[str, int]:
    """What the log calls an error, by its last line."""
    found: Counter[str] = Counter()
    lines = program.log().splitlines()
    for line in lines:
        if re.match(r"[A-Za-z_.]+(Error|Exception|Warning)\b", line):
            found[re.sub(r"'[^']*'|\d+", "_", line)[:90]] += 1
    return dict(found.most_common(15))


Part = Callable[[Path, int, int], tuple[dict[str, Any], list[str]]]


def hostile(examples: int, seed: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """(figures, faults) of so many calls."""
    strangers = round(examples * LOGIN_SHARE)
    hypothesis.configuration.set_hypothesis_home_dir(folder / "hypothesis")  # else it is new beside the program
    open_figures, wrong = in_the_open(folder / "open", examples - strangers, seed)
    login_figures, more = behind_a_login(folder / "login", strangers, seed + 1)
    return {"open": open_figures, "login": login_figures}, wrong + more


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000)
    return report(parser, lambda args, folder: hostile(args.examples, args.seed, folder))


if __name__ == "__main__":
    sys.exit(main())
