"""What the tests of the judge share: small tasks, requests and pictures."""

from typing import Any

import numpy as np

from tools.demo.judge.material import CONDITIONS, FIRST
from tools.demo.world.triplets import Pixels
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest

SIZE = 32


BY_NAME = {condition.name: condition for condition in CONDITIONS}


def small_request(pipeline: USOPipeline, **values: Any) -> GenerationRequest:
    sizes = {"width": SIZE, "height": SIZE, "content_size": SIZE, "num_inference_steps": 4, "guidance_scale": 3.0}
    return GenerationRequest.create(pipeline.model_config, **(sizes | {"seed": FIRST} | values))


def differing(first: Pixels, second: Pixels) -> float:
    """The share of values that are not the same in two pictures."""
    return float((first != second).mean())


SAME, OTHER = 0.01, 0.05
"""At most so many values differ by float32's rounding, at the edge between two levels; at least so many otherwise."""


def colour(value: int, side: int = 20) -> Pixels:
    return np.full((side, side, 3), value, np.uint8)
