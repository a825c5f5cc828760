"""How soon the server answers, and what it takes while nothing is asked of it.

`python -m tools.stress.start --idle 30` starts `python app.py --model demo`, prints one JSON line: seconds from the
start of the process to the first `/healthz`, to the page and to the ready model, and the share of a processor core that
it uses when idle, without and with an open tab (a real Chromium).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.browsing import chromium
from tests.support.running import PERSON, Program, listens
from tests.support.scripted import until

PATIENCE = 120.0
SETTLE = 5.0
"""Seconds after which what was begun has ended."""


def measure(folder: Path, idle: float) -> dict[str, float]:
    began = time.monotonic()
    program = Program(folder)
    try:
        until(lambda: listens(program.port) and program.ask("/healthz").status == 200, PATIENCE)
        figures = {"healthz_s": time.monotonic() - began}
        until(lambda: program.ask("/", PERSON).status == 200, PATIENCE)
        figures["page_s"] = time.monotonic() - began
        until(lambda: program.state() == "ready", PATIENCE)
        figures["ready_s"] = time.monotonic() - began
        figures["idle_percent"] = _idle(program, idle)
        with chromium() as browser:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{program.port}")
            page.wait_for_selector("#generate:not([disabled])")
            figures["idle_with_a_tab_percent"] = _idle(program, idle)
    finally:
        program.end()
    return {name: round(value, 2) for name, value in figures.items()}


def _idle(program: Program, seconds: float) -> float:
    """Percent of one core."""
    time.sleep(SETTLE)
    process = psutil.Process(program.process.pid)
    process.cpu_percent()
    time.sleep(seconds)
    used: float = process.cpu_percent()
    return used


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds to look at the idle server (30)")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), wanted.idle)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
