"""A worker's pipeline, seen from the page: what a page needs of a model, made elsewhere.

`stream` asks for one event at a time, so Stop acts within a step. Images of a request go through Ray's object store,
finished pictures and previews come back as pixels, tensors stay where they are.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from PIL import Image

from uso.cluster import wire
from uso.cluster.cluster import Cluster, OnProgress, kill
from uso.cluster.reasons import reason
from uso.errors import DeviceError, WorkerLost
from uso.language import Text, text_of
from uso.request.references import ReferenceImage, SavedStyle
from uso.request.request import GenerationRequest, GenerationResult, Progress

logger = logging.getLogger(__name__)


class RemotePipeline:
    """Any method raises `WorkerLost` when the actor, its machine or the connection is gone.

    Args:
        door: the actor, with its model loaded.
        generation: of the cluster's connection.
        node: the machine that it is on.
        loaded: its answer to `load`.
        on_lost: called when it is lost, once, with a stage and 0: it is to be loaded again.
    """

    def __init__(
        self, cluster: Cluster, generation: int, door: Any, node: str, loaded: dict[str, Any], on_lost: OnProgress
    ) -> None:
        self.provenance: dict[str, Any] = loaded["provenance"] | {"node": node}
        self.projector: str = loaded["projector"]
        self.node = node
        self._counts: bool = loaded["counts"]
        self._cluster = cluster
        self._generation = generation
        self._door = door
        self._on_lost = on_lost
        self._losing = threading.Lock()
        self._lost = ""
        """Why, as a sentence."""
        self._end = door.stay.remote().future()
        self._end.add_done_callback(self._ended)

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]:
        """As `USOPipeline.stream`, without tensors in its `Progress`."""
        import ray

        with self._in_sentences():
            images = [ray.put(reference.data) for reference in wire.references_of(request)]
        self._call("begin", wire.request_out(request), *images)
        done = False
        try:
            while (event := self._call("next")) is not None:
                yield wire.event_in(event, request, self.node)
            done = True
        finally:
            if not done and not self._lost:
                with suppress(WorkerLost):
                    self._call("close")

    def preview(self, progress: Progress) -> Image.Image | None:
        image = self._call("preview")
        return None if image is None else wire.image_in(image)

    def save_style(
        self, images: Sequence[ReferenceImage], title: str, *, strength: float, weights: Sequence[float] | None
    ) -> SavedStyle:
        given = [wire.reference_out(image) for image in images]
        style = wire.reference_in(self._call("save_style", given, title, strength, weights))
        assert isinstance(style, SavedStyle)
        return style

    def check_prompt(self, prompt: str) -> None:
        """As `USOPipeline.check_prompt`."""
        self._call("check_prompt", prompt)

    def reading_notes(self, prompt: str) -> tuple[str, ...]:
        """As `USOPipeline.reading_notes`."""
        return tuple(wire.text_in(note) for note in self._call("reading_notes", prompt))

    def prompt_counter(self) -> Callable[[str], int | None] | None:
        return self._count if self._counts else None

    def _count(self, prompt: str) -> int | None:
        """None when it is lost: whoever asks can do without."""
        try:
            found: int | None = self._answer(self._door.ask, "count", prompt)
        except WorkerLost:
            return None
        return found

    def _call(self, name: str, *values: Any) -> Any:
        return self._answer(self._door.call, name, *values)

    def _answer(self, method: Any, name: str, *values: Any) -> Any:
        """
        Raises:
            WorkerLost: there is none.
            USOError: the error that is the answer.
        """
        with self._in_sentences():
            answer = method.remote(name, *values).future().result()
        if "error" not in answer:
            return answer["value"]
        error = wire.error_in(answer, self.node)
        if isinstance(error, DeviceError):  # a process of its own has it, and can be started again
            raise self._lose(error) from error
        raise error

    @contextmanager
    def _in_sentences(self) -> Iterator[None]:
        """Ray's errors mean that it is lost."""
        if self._lost:
            raise WorkerLost(self._lost)
        try:
            yield
        except Exception as error:
            raise self._lose(error) from error

    def _ended(self, end: "Future[Any]") -> None:
        # Not in the client's own thread, which must go on.
        error = end.exception() or WorkerLost()
        threading.Thread(target=self._lose, args=(error,), name="lost", daemon=True).start()

    def _lose(self, error: BaseException) -> WorkerLost:
        """It is gone: tell its worker, once, and free what it had."""
        dead = isinstance(error, DeviceError)
        with self._losing:
            first = not self._lost
            if first:
                why = text_of(error).rstrip(".") if dead else reason(error)
                self._lost = Text("The worker on {} was lost: {}.", self.node, why)
            news = first and not self._cluster.ended
            if news:
                logger.warning("%s", self._lost)
                logger.debug("%s", error)
                self._on_lost(Text("starting another worker"), 0.0)
        if news:
            self._cluster.lost(self._generation, error)
            kill(self._door)
        return WorkerLost(self._lost)
