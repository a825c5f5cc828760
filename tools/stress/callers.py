"""One caller: a process of its own with a `gradio_client`, an address of its own, and habits drawn from a seed.

It notes what it was told, one JSON line each, and can be killed at any moment: a line that is cut off counts for
nothing. Whether what it notes is true is looked at elsewhere.
"""

import json
import os
import random
import time
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tools.stress.elsewhere import give_way

PATIENCE = 600.0
"""Seconds after which a job that has not ended is a fault: some of 35 people wait for four minutes."""

PROMPTS = 20
"""Different ones: the model remembers what it has encoded, and is to have seen them all soon."""

LOST = "lost"
"""`end` of a job that never ended for its caller."""


@dataclass(frozen=True)
class Habits:
    """Who a caller is."""

    url: str
    address: str
    seed: int
    greedy: bool
    """Sends several requests at once."""
    until: float
    """Seconds since 1970, after which nothing new is sent."""
    notes: Path
    reference: Path
    """An image to send along."""


class Caller:
    def __init__(self, habits: Habits) -> None:
        self._habits = habits
        self._random = random.Random(habits.seed)
        self._notes = habits.notes.open("a", encoding="utf-8", buffering=1)
        self._client = Client(
            habits.url,
            headers={"X-Forwarded-For": habits.address},
            download_files=False,
            verbose=False,
            analytics_enabled=False,
        )

    def live(self) -> None:
        while time.time() < self._habits.until:
            jobs = [self._send() for _ in range(self._random.randint(3, 11) if self._habits.greedy else 1)]
            for job, fate in jobs:
                self._follow(job, fate)
            time.sleep(self._random.uniform(0.0, 2.0))

    def _send(self) -> tuple[Any, str]:
        """A request, and what is going to happen to it."""
        draw = self._random
        fate = draw.choices(("result", "cancel", "look", "refused"), (64, 20, 8, 8))[0]
        values: dict[str, Any] = {
            "prompt": f"a fox, {draw.randrange(PROMPTS)}",
            "width": draw.choice((128, 144, 192)),
            "height": draw.choice((128, 160)),
            "num_inference_steps": draw.randint(1, 5),
            "seed": draw.randint(0, 10**6),
            "num_images": draw.choice((1, 1, 1, 2, 4)),
        }
        if fate == "cancel":
            values["num_inference_steps"] = draw.choice((5, 30, 50))
        if fate == "refused":
            values |= draw.choice(({"width": 100}, {"num_inference_steps": 99}, {"seed": -7}, {"prompt": 5}))
        if draw.random() < 0.15:
            values[draw.choice(("content_image", "style_image"))] = handle_file(str(self._habits.reference))
        return self._client.submit(**values, api_name="/generate"), fate

    def _follow(self, job: Any, fate: str) -> None:
        if fate == "cancel":
            time.sleep(self._random.uniform(0.0, 1.5))
            if (name := _id(job)) is not None:
                self._client.predict(name, api_name="/cancel")
        if fate == "look":
            self._look(job)
        note: dict[str, Any] = {"fate": fate, "said": ""}
        try:
            _, details = job.result(timeout=PATIENCE)
            note |= {"end": "done", "file": details["file"]}
        except AppError as error:
            note |= {"end": "error", "said": str(error)}
        except (FutureTimeout, TimeoutError):
            note |= {"end": LOST}
        self._note(note | {"job": _id(job)})

    def _look(self, job: Any) -> None:
        """Ask after it, and after one that never was."""
        name = _id(job)
        if name is not None:
            self._client.predict(name, api_name="/status")
        try:
            self._client.predict("0" * 32, api_name="/status")
            self._note({"job": None, "end": LOST, "fate": "look", "said": "/status answered for a job that never was"})
        except AppError:
            pass

    def _note(self, note: dict[str, Any]) -> None:
        self._notes.write(json.dumps(note) + "\n")


def _id(job: Any) -> str | None:
    """A job's id as its caller learned it; waits a moment for it."""
    end = time.monotonic() + 10.0
    while not (told := job.outputs()) and not job.done() and time.monotonic() < end:
        time.sleep(0.02)
    return str(told[0][1]["job"]) if (told := job.outputs()) else None


def run(habits: Habits) -> None:
    """The process; ends at once when its time is over, whatever its client's threads still wait for."""
    status = 1
    give_way()
    try:
        Caller(habits).live()
        status = 0
    finally:
        if status:
            import traceback

            traceback.print_exc()
        os._exit(status)


def read_notes(path: Path) -> list[dict[str, Any]]:
    """What a caller noted, but for a line that was cut off."""
    notes = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            notes.append(json.loads(line))
        except ValueError:
            continue
    return notes
