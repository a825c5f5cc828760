"""Behind the door: one pipeline on one GPU, and the request that it runs.

What is asked and answered are plain values (`wire.py`). Tensors stay here. The pipeline takes a step when the page asks
for the next event: it never runs ahead of its page by more than it does by itself.
"""

import argparse
import math
import os
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from uso.cluster import wire
from uso.cluster.address import FILE_FLAGS
from uso.cluster.wire import Value
from uso.config import ModelConfig
from uso.request.request import GenerationRequest, GenerationResult, Progress
from uso.system.garbage import collect_seldom
from uso.system.threads import WAITING, WAITING_BY_USER, processors

if TYPE_CHECKING:
    from uso.pipeline.pipeline import USOPipeline

ASKED = {
    *("load", "begin", "next", "preview", "close", "save_style", "check_prompt", "reading_notes"),
    *("progress", "count"),
}
"""What can be called from outside."""


class Host:
    """
    Args:
        spec: of `address.model_spec`, with `threads` (or None) and `share`, the share of this machine that is its own.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._stage: tuple[Value, float] = ("", 0.0)
        self._pipeline: USOPipeline | None = None
        self._counter: Callable[[str], int] | None = None
        self._request: GenerationRequest | None = None
        self._events: Generator[Progress | GenerationResult, None, None] | None = None
        self._last: Progress | None = None

    def answer(self, name: str, values: Sequence[Any]) -> Value:
        """`{"value": ...}`, or an error as `wire.error_out` makes it. Raises nothing."""
        try:
            assert name in ASKED
            return {"value": getattr(self, name)(*values)}
        except BaseException as error:  # SystemExit of a library too: the process and its model stay
            return wire.error_out(error)

    # In the model's thread.

    def load(self) -> Value:
        """Find the files on this machine and load them.

        Returns:
            provenance, fingerprint of the projector, whether it counts tokens.
        """
        _set_threads(self._spec["threads"], self._spec["share"])
        collect_seldom()
        from uso.weights.flags import own_files
        from uso.weights.loading import load_pipeline

        config = ModelConfig.model_validate(self._spec["config"])
        if self._spec["files"] is not None:
            config = own_files(config, argparse.Namespace(**(dict.fromkeys(FILE_FLAGS) | self._spec["files"])))
        made = load_pipeline(config, **self._spec["options"], on_progress=self._note)
        if self._spec["previews"]:
            self._note("Fitting the preview", 1.0)
            made.fit_preview()
        self._pipeline, self._counter = made, made.prompt_counter()
        return {"provenance": made.provenance, "projector": made.projector, "counts": self._counter is not None}

    def begin(self, request: Value, *images: bytes) -> None:
        """Start a request; one that was not finished is given up."""
        self.close()
        assert self._pipeline is not None
        self._request = wire.request_in(request, images)
        self._events = self._pipeline.stream(self._request)

    def next(self) -> Value:
        """The next event of the request; None when it is done."""
        assert self._events is not None and self._request is not None
        event = next(self._events, None)
        self._last = event if isinstance(event, Progress) else None
        return None if event is None else wire.event_out(event, self._request)

    def preview(self) -> Value:
        """The picture as the last step predicts it; None if it cannot be told."""
        assert self._pipeline is not None
        image = None if self._last is None else self._pipeline.preview(self._last)
        return None if image is None else wire.image_out(image)

    def close(self) -> None:
        """Give the request up, if there is one."""
        if self._events is not None:
            self._events.close()
        self._events = self._request = self._last = None

    def save_style(
        self, images: Sequence[Value], title: str, strength: float, weights: Sequence[float] | None
    ) -> Value:
        assert self._pipeline is not None
        given = [wire.reference_in(image) for image in images]
        return wire.reference_out(self._pipeline.save_style(given, title, strength=strength, weights=weights))

    def check_prompt(self, prompt: str) -> None:
        assert self._pipeline is not None
        self._pipeline.check_prompt(prompt)

    def reading_notes(self, prompt: str) -> Value:
        assert self._pipeline is not None
        return [wire.text_out(note) for note in self._pipeline.reading_notes(prompt)]

    # In another thread.

    def progress(self) -> Value:
        """How far loading is: stage and share."""
        return list(self._stage)

    def count(self, prompt: str) -> int | None:
        return None if self._counter is None else self._counter(prompt)

    def _note(self, stage: str, share: float) -> None:
        self._stage = wire.text_out(stage), share


def _set_threads(wanted: int | None, share: float) -> None:
    """Before torch is imported. Ray has set one thread for each CPU that the actor takes of its count, and an actor
    with a GPU takes none."""
    if not any(os.environ.get(name) for name in WAITING_BY_USER):
        os.environ.update(WAITING)
    os.environ["OMP_NUM_THREADS"] = str(wanted or max(1, math.floor(processors() * share)))
