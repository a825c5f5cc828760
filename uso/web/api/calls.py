"""From raw values to a job and its status. The page (`page/events/`) and programs (`endpoints.py`) both call this.

Values arrive as they were sent: Gradio's own conversion is off, because its messages are not written for people.
`GenerationRequest.create` checks them, and its messages are shown. Only files that were uploaded to this server are
opened. Callers keep ids, never paths.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar

import gradio as gr

from uso.config import ModelConfig
from uso.errors import USOError, about
from uso.images.pixels import MAX_PIXELS
from uso.request.checks import check_style_strength, check_tokens, check_whole
from uso.request.readable import check_script
from uso.request.references import ReferenceImage, SavedStyle
from uso.request.request import RANDOM_SEED, GenerationRequest
from uso.web.access.identity import Asker, asker_of
from uso.web.api.files import upload_size, uploaded
from uso.web.api.turns import Turns
from uso.web.jobs.admission import LimitError
from uso.web.jobs.job import Job, JobStatus, ServerStatus
from uso.web.jobs.queue import JobQueue
from uso.web.store.ledger import Ledger
from uso.web.store.styles import Shelves

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""How often a job that runs or is next is looked at for news."""

WAITING_SECONDS = 0.5
"""The same for a job further back in the queue."""

REPEAT_SECONDS = 1.0
"""News is repeated after this long, because the seconds that are left have changed."""

READERS = 2
"""People whose images are read at the same time: each may take a gigabyte for a second."""

FILTERED = 4
"""People whose requests are submitted at the same time. The server's own filter may take its time over each."""

SPARE_THREADS = 8
"""Threads beyond one for each place in the queue, so that a full queue still refuses at once."""

MAX_IMAGES = 8
"""Pictures of one request."""


FIRST_INPUTS = 11
"""How many of `Inputs` a call by position must have. Those that were added later may be left out."""


class Inputs(NamedTuple):
    """One value for each input, in the order of the page's fields and of `/generate`'s parameters."""

    prompt: Any = ""
    content_image: Any = None
    style_image: Any = None
    extra_style_image: Any = None
    width: Any = None
    height: Any = None
    keep_input_size: Any = False
    num_inference_steps: Any = None
    guidance_scale: Any = None
    content_size: Any = None
    seed: Any = RANDOM_SEED
    num_images: Any = 1
    style_strength: Any = 1.0
    extra_style_strength: Any = 1.0

    @property
    def images(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in IMAGE_FIELDS)

    @property
    def strengths(self) -> list[float]:
        """Strengths of both style images, given or not; an emptied field means 1.

        Raises:
            RequestError: one is refused, with the reason.
        """
        given = {name: getattr(self, name) for name in STRENGTH_FIELDS}
        return [check_style_strength(name, 1.0 if value is None else value) for name, value in given.items()]


IMAGE_FIELDS = ("content_image", "style_image", "extra_style_image")
STRENGTH_FIELDS = ("style_strength", "extra_style_strength")


class Calls:
    """Requests to one queue, for one model's configuration.

    Args:
        on_refused: called with the reason of each refusal, for the metrics.
    """

    def __init__(
        self,
        config: ModelConfig,
        queue: JobQueue,
        ledger: Ledger,
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.config = config
        self.queue = queue
        self.ledger = ledger
        self.shelves = Shelves(queue.settings)
        self._on_refused = on_refused
        self._requests = ThreadPoolExecutor(queue.settings.max_waiting + SPARE_THREADS, "request")
        self._readers = Turns(READERS, "read")
        self._filtered = Turns(FILTERED, "submit")

    @property
    def max_pixels(self) -> int:
        """Limit of one image."""
        return int(self.queue.settings.max_megapixels * 10**6)

    async def read(self, caller: gr.Request | None, function: Callable[..., T], *args: Any) -> T:
        """Call a function that reads or decodes the caller's images, in one of the few threads for that."""
        return await asyncio.wrap_future(self._readers.submit(asker_of(caller).person, function, *args))

    async def submit(self, inputs: Inputs, caller: gr.Request | None, tab: str = "") -> Job:
        """Put a request into the queue.

        Args:
            tab: of the page that it comes from, under an unguessable id.

        Raises:
            USOError: it is refused, in a sentence.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._requests, self._submit, inputs, asker_of(caller), tab)
        except USOError as error:
            self._on_refused(error.kind if isinstance(error, LimitError) else type(error).__name__)
            raise

    def _submit(self, inputs: Inputs, asker: Asker, tab: str) -> Job:
        """Admit, read and submit one request, in one thread: it goes on to the end where the caller leaves meanwhile,
        and always gives its place up. Images are read by the few readers, for they take memory; a request without any
        waits for none of them."""
        place = self.queue.admit(asker, sum(map(upload_size, inputs.images)), number_of_images(inputs))
        typed = ""
        try:
            if self.queue.translator.active and inputs.prompt is not None:
                english = self._filtered.submit(asker.person, self.queue.translator.english, inputs.prompt).result()
                if english != inputs.prompt:
                    typed, inputs = inputs.prompt, inputs._replace(prompt=english)
            if any(image is not None for image in inputs.images):
                reading = self._readers.submit(asker.person, request_from, self.config, inputs, self.max_pixels)
                request = reading.result()
            else:
                request = request_from(self.config, inputs)
            for style in request.style_images:
                self.check_style(style)
            tokens = self.queue.count_tokens(request.prompt)
            check_tokens(tokens or 0, self.config.max_sequence_length)
            job = self._filtered.submit(asker.person, self.queue.submit, request, place, typed, tab).result()
        finally:
            self.queue.release(place)
        self.queue.followers.expect(job)
        return job

    def check_style(self, reference: ReferenceImage | None) -> None:
        """
        Raises:
            RequestError: it is a saved style that another model's projector made, as far as that is known by now.
        """
        if isinstance(reference, SavedStyle) and self.queue.projector:
            reference.check_projector(self.queue.projector)

    async def follow(self, job: Job) -> AsyncGenerator[tuple[JobStatus, ServerStatus], None]:
        """Every state of a job, the last one included; as `follow_all`."""
        async with aclosing(self.follow_all(lambda: (job,))) as news:
            async for statuses, server in news:
                yield statuses[job], server

    async def follow_all(
        self, jobs: Callable[[], Iterable[Job]]
    ) -> AsyncGenerator[tuple[dict[Job, JobStatus], ServerStatus], None]:
        """Every state of some jobs, until all are over; the last one of each once. Unchanged states are repeated once a
        second.

        A job that nobody follows is stopped after a while, so close this to give the jobs up.

        Args:
            jobs: names them, again and again: others may join.
        """
        follower = uuid.uuid4().hex
        followed: dict[Job, JobStatus | None] = {}
        """With the last state, of those that are over."""
        loop = asyncio.get_running_loop()
        seen, sent = None, 0.0
        try:
            while True:
                for job in jobs():
                    if job not in followed:
                        followed[job] = None
                        self.queue.followers.attach(job, follower)
                news = {job: job.status for job, last in followed.items() if last is None}, self.queue.status
                if not news[0]:
                    return
                now = news, [job for job in news[0] if job.stop.is_set()]
                if now != seen or loop.time() - sent >= REPEAT_SECONDS:
                    seen, sent = now, loop.time()
                    yield news
                    followed |= {job: status for job, status in news[0].items() if status.over}
                going_on = [status for status in news[0].values() if not status.over]
                if going_on:
                    far = all(status.state == "queued" and status.ahead > 0 for status in going_on)
                    await asyncio.sleep(WAITING_SECONDS if far else LOOK_SECONDS)
        finally:
            for job in followed:
                if not job.status.over:
                    self.queue.followers.detach(job, follower)


def number_of_images(inputs: Inputs) -> int:
    """How many pictures raw values ask for.

    Raises:
        RequestError: none, or too many.
    """
    given = 1 if inputs.num_images is None else inputs.num_images
    return check_whole("num_images", given, 1, MAX_IMAGES)


def request_from(config: ModelConfig, inputs: Inputs, max_pixels: int = MAX_PIXELS) -> GenerationRequest:
    """The request that raw values describe. It reads and decodes the images.

    Raises:
        RequestError: a value is refused, with the reason.
    """
    strengths = inputs.strengths
    content, *styles = (_decoded(name, getattr(inputs, name), max_pixels) for name in IMAGE_FIELDS)
    given = [(style, size) for style, size in zip(styles, strengths, strict=True) if style is not None]
    request = GenerationRequest.create(
        config,
        prompt="" if inputs.prompt is None else inputs.prompt,
        content_images=[content] if content else [],
        style_images=[style for style, _ in given],
        style_strengths=[size for _, size in given],
        width=inputs.width,
        height=inputs.height,
        keep_input_size=False if inputs.keep_input_size is None else inputs.keep_input_size,
        num_inference_steps=inputs.num_inference_steps,
        guidance_scale=inputs.guidance_scale if config.guidance else None,  # the field is there, but disabled
        content_size=inputs.content_size,
        seed=RANDOM_SEED if inputs.seed is None else inputs.seed,  # an emptied field
        num_images=number_of_images(inputs),
    )
    check_script(request.prompt, config.title)
    for reference in (*request.content_images, *request.style_images):
        reference.let_pixels_go()
    return request


def _decoded(field: str, value: Any, max_pixels: int) -> ReferenceImage | None:
    """The image of a field, decoded here, so that a refusal names the field."""
    with about(field):
        reference = uploaded(value, max_pixels)
        if reference is not None:
            _ = reference.image
    return reference
