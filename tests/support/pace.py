"""Pictures that take their time without the processor's: what a test needs that looks at one in the making."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

LASTING_STEPS = 20
"""Steps of a picture from which it takes its time."""

PACE = 0.4
"""Seconds of each step besides the model's: eight in all, long enough to be looked at, queued behind and stopped on a
machine that is busy. Few long steps, because the page and the server work at each."""


def keep_pace() -> None:
    """Let the pipelines of this process wait at each step of a picture of so many."""
    from uso.pipeline.denoising import Denoising

    denoise = Denoising.denoise

    def paced(self: Denoising, *values: Any, num_inference_steps: int, **named: Any) -> Iterator[Any]:
        with closing(denoise(self, *values, num_inference_steps=num_inference_steps, **named)) as steps:
            for step in steps:
                if num_inference_steps >= LASTING_STEPS:
                    time.sleep(PACE)
                yield step

    Denoising.denoise = paced  # type: ignore[method-assign, assignment]
