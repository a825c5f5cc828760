"""Looks at a running server now and again: how much memory it has, and how long `/healthz` takes."""

import threading
import time
from collections import Counter
from statistics import median
from typing import Any

import psutil

from tests.support.running import Program, ask

EVERY_SECONDS = 0.5
MINUTE = 60.0

FLAT_SHARE, FLAT_MB = 0.10, 30.0
"""By how much memory may grow: a share of what it was, and on top."""


class Watch:
    """A thread that looks from `start` until `stop`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process = psutil.Process(program.process.pid)
        self._began = time.monotonic()
        self._ended = threading.Event()
        self.memory: list[tuple[float, float]] = []
        """(seconds since the start, MB resident)."""
        self.health: list[float] = []
        """Milliseconds."""
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            try:
                self.memory.append((time.monotonic() - self._began, self._process.memory_info().rss / 1e6))
                asked = time.monotonic()
                status = ask(self._program.port, "/healthz").status
                self.health.append(1000 * (time.monotonic() - asked))
            except (OSError, psutil.Error) as error:
                self.wrong.append(f"The server could not be looked at ({type(error).__name__}).")
                return
            if status != 200:
                self.wrong.append(f"/healthz answered {status}.")

    def figures(self) -> dict[str, Any]:
        """Latency in milliseconds, memory in MB."""
        told: dict[str, Any] = {
            "healthz_p50_ms": round(median(self.health), 1),
            "healthz_max_ms": round(max(self.health), 1),
        }
        minutes = sorted({int(moment // MINUTE) for moment, _ in self.memory})
        told_mb = [round(median(mb for at, mb in self.memory if at // MINUTE == minute)) for minute in minutes]
        return told | {"memory_max_mb": round(max(mb for _, mb in self.memory)), "memory_by_minute_mb": told_mb}

    def growth(self) -> tuple[float, float] | None:
        """(MB in the third and fourth minute, MB in the last two), medians; None if it was shorter than six."""
        seconds = self.memory[-1][0] if self.memory else 0.0
        if seconds < 6 * MINUTE:
            return None
        early = [mb for moment, mb in self.memory if 2 * MINUTE <= moment < 4 * MINUTE]
        late = [mb for moment, mb in self.memory if moment >= seconds - 2 * MINUTE]
        return median(early), median(late)


def too_much(growth: tuple[float, float]) -> bool:
    early, late = growth
    return late - early > early * FLAT_SHARE + FLAT_MB


def by_sentence(sentences: list[str]) -> dict[str, int]:
    """How often each was said, numbers in it left out, most frequent first."""
    shapes = Counter("".join("N" if letter.isdigit() else letter for letter in one) for one in sentences)
    while any("NN" in shape for shape in shapes):
        merged: Counter[str] = Counter()
        for shape, count in shapes.items():
            merged[shape.replace("NN", "N")] += count
        shapes = merged
    return dict(shapes.most_common())
