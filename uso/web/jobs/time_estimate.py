"""How long a picture takes on this machine, estimated from earlier ones. There is no estimate before the first.

The shape of a request (picture size, reference images) decides how long a step takes. For a shape that was not
measured, the nearest measured one is scaled by the number of tokens that the transformer reads.
"""

import threading
from collections import OrderedDict, deque
from statistics import median
from typing import NamedTuple

from uso.images.pixels import TOKEN_SIZE
from uso.request.request import GenerationRequest

REMEMBERED_SHAPES = 256
REMEMBERED_TIMES = 9
"""Measurements kept of each shape. Their median counts, so one slow picture changes nothing."""

STYLE_TOKENS = 192

KINDS = ("before", "step", "after")


class Shape(NamedTuple):
    """What the time of a step depends on."""

    picture_tokens: int
    reference_tokens: int
    style_tokens: int

    @property
    def tokens(self) -> int:
        return sum(self)


def shape_of(request: GenerationRequest) -> Shape:
    """The shape of a request. Content images count as squares of the content size: close enough for an estimate."""
    return Shape(
        request.width * request.height // TOKEN_SIZE**2,
        len(request.content_images) * (request.content_size // TOKEN_SIZE) ** 2,
        len(request.strengths) * STYLE_TOKENS,
    )


class TimeEstimate:
    """Seconds `before` the first step, of a `step`, and `after` the last step, by shape. For any thread."""

    def __init__(self) -> None:
        self._times: dict[str, OrderedDict[Shape, deque[float]]] = {kind: OrderedDict() for kind in KINDS}
        self._medians: dict[str, dict[Shape, float]] = {kind: {} for kind in KINDS}
        self._lock = threading.Lock()

    def note(self, request: GenerationRequest, **measured: float) -> None:
        """Add measurements by kind: seconds."""
        shape = shape_of(request)
        with self._lock:
            for kind, seconds in measured.items():
                times = self._times[kind]
                times.setdefault(shape, deque(maxlen=REMEMBERED_TIMES)).append(seconds)
                times.move_to_end(shape)
                while len(times) > REMEMBERED_SHAPES:
                    times.popitem(last=False)
                # A new dict each time, since other threads read the old one without the lock.
                self._medians[kind] = {known: median(values) for known, values in times.items()}

    def step(self, request: GenerationRequest) -> float | None:
        """Seconds of one step; None if no step was measured yet."""
        return self._expected(shape_of(request), "step")

    def after(self, request: GenerationRequest) -> float:
        """Seconds from the last step to the picture; 0 if not measured yet."""
        return self._expected(shape_of(request), "after") or 0.0

    def seconds(self, request: GenerationRequest) -> float | None:
        """Seconds of a whole request; None if no step was measured yet."""
        step = self.step(request)
        if step is None:
            return None
        one = request.num_inference_steps * step + self.after(request)
        return (self._expected(shape_of(request), "before") or 0.0) + request.num_images * one

    def _expected(self, shape: Shape, kind: str) -> float | None:
        known = self._medians[kind]
        if shape in known or not known:
            return known.get(shape)
        nearest = min(known, key=lambda other: abs(other.tokens - shape.tokens))
        return known[nearest] * shape.tokens / nearest.tokens
