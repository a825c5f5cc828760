"""How many workers one page feeds: `python -m tools.stress.page --workers 2,8,24`.

The real page before workers that only wait: a step takes 0.2 s, a picture of 1024 x 1024 has 25 of them and 8 previews,
as on a fast GPU. Two callers for each worker ask all the time. Prints a line for each number of workers: pictures and
previews a second, what share of the possible that is, processor time of the page, and how long `/healthz` takes.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

import app
from tests.support.running import LONG, Started, ask, free_port
from tests.support.scripted import until
from tools.stress.cluster import ready_at
from tools.stress.sender import Sent
from uso.config import ROOT
from uso.request.request import GenerationRequest, GenerationResult, Progress

STEP_SECONDS = 0.2
STEPS = 25
SIDE = 1024
PREVIEWS = 8
RUN_SECONDS = 30.0


class Idle:
    """A pipeline that takes its time and computes nothing."""

    provenance: dict[str, Any] = {"name": "idle", "device": "cpu"}  # noqa: RUF012
    projector = "ab" * 32
    save_style: Any = None

    def __init__(self) -> None:
        # As much detail as a picture has: noise alone would not compress, a gradient too well.
        self._image = Image.effect_mandelbrot((SIDE, SIDE), (-1.5, -1, 0.5, 1), 100).convert("RGB")
        self._image = Image.blend(self._image, Image.effect_noise((SIDE, SIDE), 40).convert("RGB"), 0.2)
        self._small = self._image.resize((256, 256))

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]:
        for step in range(1, STEPS + 1):
            time.sleep(STEP_SECONDS)
            yield Progress(
                stage="denoise",
                step=step,
                num_steps=STEPS,
                image_index=0,
                num_images=1,
                seconds=step * STEP_SECONDS,
                width=SIDE,
                height=SIDE,
            )
        yield GenerationResult(
            image=self._image, request=request, model=self.provenance, timings={"denoise": 5.0}, peak_memory_gib=None
        )

    def preview(self, progress: Progress) -> Image.Image | None:
        return self._small

    def prompt_counter(self) -> Callable[[str], int] | None:
        return None


def serve(flags: list[str]) -> int:
    """The page, in a process of its own."""
    app.load = lambda *_: Idle()  # type: ignore[assignment]
    sys.argv = ["app.py", *flags]
    return app.main()


def measure(workers: int, folder: Path) -> dict[str, Any]:
    port = free_port()
    flags = ["--model", "demo", "--devices", ",".join(["cpu"] * workers), "--rate", "0", "--port", str(port)]
    flags += ["--output", str(folder / "outputs"), "--max-waiting", "1000", "--orphan-grace", "60"]
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "tools.stress.page", "--serve", json.dumps(flags)]
        process = Started(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        until(lambda: ready_at(port) == workers, LONG)
        end = time.monotonic() + RUN_SECONDS
        threads = [threading.Thread(target=call, args=(port, number, end)) for number in range(2 * workers)]
        page = psutil.Process(process.pid)
        before, began, waits = page.cpu_times(), time.monotonic(), []
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            asked = time.monotonic()
            ask(port, "/healthz")
            waits.append(time.monotonic() - asked)
            time.sleep(0.1)
        after, seconds, memory = page.cpu_times(), time.monotonic() - began, page.memory_info().rss
        pictures = len(list((folder / "outputs").glob("*.png"))) / seconds
        for thread in threads:
            thread.join()
    finally:
        process.end()
    waits.sort()
    return {
        "workers": workers,
        "callers": len(threads),
        "pictures_a_second": round(pictures, 2),
        "previews_a_second": round(PREVIEWS * pictures, 1),
        "of_what_is_possible": round(pictures * STEPS * STEP_SECONDS / workers, 2),
        "processor_seconds_a_picture": round(
            (after.user + after.system - before.user - before.system) / seconds / pictures, 2
        ),
        "processors": round((after.user + after.system - before.user - before.system) / seconds, 2),
        "healthz_p50_ms": round(1000 * waits[len(waits) // 2]),
        "healthz_max_ms": round(1000 * waits[-1]),
        "memory_mb": round(memory / 2**20),
    }


def call(port: int, number: int, end: float) -> None:
    """Ask for one picture after the other."""
    while time.monotonic() < end:
        Sent(port, address=f"198.51.100.{number + 1}", steps=STEPS, seed=number).note()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="2,8,24")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(json.loads(args.serve))
    for workers in map(int, args.workers.split(",")):
        with tempfile.TemporaryDirectory(prefix="uso-page-") as folder:
            print(json.dumps(measure(workers, Path(folder))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
