"""How long a model waits between two pictures: `python -m tools.stress.between`.

A server's queue with a pipeline that sleeps for a second, as if a GPU computed, and hands out a picture of 1024 x 1024
with grain. Prints one line of JSON: seconds for each picture beside that second, which go to saving it and to all else
between two jobs.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.scripted import ANN, Script, ledger_of, queue_of, submit, until
from uso.config import load_model_config
from uso.request.request import GenerationRequest, GenerationResult, Progress
from uso.web.settings import ServerSettings

SIDE = 1024
STEP = 1.0
"""Seconds that the picture takes."""


class Sleeper(Script):
    """A pipeline whose time passes elsewhere."""

    def __init__(self, image: Image.Image) -> None:
        super().__init__()
        self.image = image

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]:
        time.sleep(STEP)
        yield GenerationResult(
            image=self.image.copy(),
            request=request,
            model=self.provenance,
            timings={"condition": 0.0, "denoise": STEP, "decode": 0.0},
            peak_memory_gib=None,
        )


def drawn() -> Image.Image:
    """Smooth shapes with a little grain: a PNG of 1.9 MB."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(smooth + draw.integers(-2, 3, smooth.shape), 0, 255).astype(np.uint8))


def measure(pictures: int) -> float:
    """Seconds beside `STEP`, for each picture."""
    config = load_model_config("flux-dev")
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Sleeper(drawn())
        queue = queue_of([lambda on_progress: pipeline], ServerSettings(output=Path(folder)))
        queue.start()
        until(lambda: queue.status.state == "ready")
        began = time.monotonic()
        jobs = [
            submit(queue, GenerationRequest.create(config, width=SIDE, height=SIDE, seed=seed), ANN)
            for seed in range(pictures)
        ]
        until(lambda: all(job.status.over for job in jobs))
        seconds = time.monotonic() - began
        queue.close()
        queue.join(STEP)
        ledger_of(queue).close()
    return seconds / pictures - STEP


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8, metavar="N", help="how many are made (8)")
    print(json.dumps({"between_s": round(measure(parser.parse_args().pictures), 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
