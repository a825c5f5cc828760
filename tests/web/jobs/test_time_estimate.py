"""What is known about how long a picture takes: measured shapes, scaled ones, and none."""

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from uso.config import ModelConfig
from uso.request.request import GenerationRequest
from uso.web.jobs.time_estimate import TimeEstimate, shape_of


@pytest.fixture
def request_of(demo_config: ModelConfig) -> Callable[..., GenerationRequest]:
    def make(**values: Any) -> GenerationRequest:
        return GenerationRequest.create(demo_config, **{"width": 128, "height": 128, **values})

    return make


def test_nothing_measured_nothing_said(request_of: Any) -> None:
    """Catches a waiting time out of thin air."""
    assert TimeEstimate().seconds(request_of()) is None


def test_a_request_takes_what_its_parts_take(request_of: Any) -> None:
    """Catches an estimate that is blind to the number of steps or pictures."""
    time_estimate = TimeEstimate()
    time_estimate.note(request_of(), before=1.0, step=0.5, after=2.0)
    assert time_estimate.seconds(request_of(num_inference_steps=10)) == 1.0 + 10 * 0.5 + 2.0
    assert time_estimate.seconds(request_of(num_inference_steps=10, num_images=3)) == 1.0 + 3 * (10 * 0.5 + 2.0)


def test_one_slow_picture_tells_nothing(request_of: Any) -> None:
    """Catches a mean: one picture made while the machine was busy would make everybody wait on paper."""
    time_estimate = TimeEstimate()
    for seconds in (0.5, 0.5, 60.0, 0.5):
        time_estimate.note(request_of(), step=seconds)
    assert time_estimate.step(request_of()) == 0.5


def test_other_shapes_are_scaled_by_their_tokens(request_of: Any, picture: Callable[..., Image.Image]) -> None:
    """Catches a large picture that is promised in the time of a small one, and references that count nothing."""
    time_estimate, small = TimeEstimate(), request_of()
    time_estimate.note(small, step=1.0)
    large = request_of(width=256, height=256)
    assert time_estimate.step(large) == pytest.approx(256 * 256 / (128 * 128))
    with_content = request_of(content_images=[picture(100, 100)], style_images=[picture(50, 50)])
    expected = shape_of(with_content).tokens / shape_of(small).tokens
    assert expected > 1 and time_estimate.step(with_content) == pytest.approx(expected)
    time_estimate.note(large, step=7.0)
    assert time_estimate.step(large) == 7.0 and time_estimate.step(small) == 1.0
