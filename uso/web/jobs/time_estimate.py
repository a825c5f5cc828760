"""How long pictures take here, learnt from those that were made. What was not measured is not guessed.

A request's shape (size, references) decides how long a step takes. Shapes that were measured count; for others the
nearest one is scaled by the number of tokens that the transformer reads.
"""

import threading
from collections import OrderedDict, deque
from statistics import median
from typing import NamedTuple

from uso.images import TOKEN_SIZE
from uso.request import GenerationRequest

REMEMBERED_SHAPES = 256
REMEMBERED_TIMES = 9
"""Of each shape; their median is what counts, so that one slow picture tells nothing."""

STYLE_TOKENS = 192

KINDS = ("before", "step", "after")


class Shape(NamedTuple):
    """What a step's time depends on."""

    picture_tokens: int
    reference_tokens: int
    style_tokens: int

    @property
    def tokens(self) -> int:
        return sum(self)


def shape_of(request: GenerationRequest) -> Shape:
    """References count as squares of the content reference size: near enough for a waiting time."""
    return Shape(
        request.width * request.height // TOKEN_SIZE**2,
        len(request.content_images) * (request.content_size // TOKEN_SIZE) ** 2,
        len(request.style_images) * STYLE_TOKENS,
    )


class TimeEstimate:
    """Measured seconds, by shape, `before` the first step, of a `step`, and `after` the last one.

    May be asked and told from any thread.
    """

    def __init__(self) -> None:
        self._times: dict[str, OrderedDict[Shape, deque[float]]] = {kind: OrderedDict() for kind in KINDS}
        self._medians: dict[str, dict[Shape, float]] = {kind: {} for kind in KINDS}
        self._lock = threading.Lock()

    def note(self, request: GenerationRequest, **measured: float) -> None:
        """Remember what was measured, by kind."""
        shape = shape_of(request)
        with self._lock:
            for kind, seconds in measured.items():
                times = self._times[kind]
                times.setdefault(shape, deque(maxlen=REMEMBERED_TIMES)).append(seconds)
                times.move_to_end(shape)
                while len(times) > REMEMBERED_SHAPES:
                    times.popitem(last=False)
                # A new dict each time: whoever reads the old one is not disturbed.
                self._medians[kind] = {known: median(values) for known, values in times.items()}

    def step(self, request: GenerationRequest) -> float | None:
        """Seconds of one step; None if no step was ever measured."""
        return self._expected(shape_of(request), "step")

    def after(self, request: GenerationRequest) -> float:
        """Seconds from the last step to the picture; 0 if that was never measured."""
        return self._expected(shape_of(request), "after") or 0.0

    def seconds(self, request: GenerationRequest) -> float | None:
        """Of a whole request; None if no step was ever measured."""
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
