"""The desk between callers and the engine: raw values become a request, a request a job, a job news of itself.

Page (`handlers.py`) and programs (`programs.py`) both come here. Values arrive as they were sent (Gradio's own
conversion is off, its messages are not for people): the door is `GenerationRequest.create`, and what it says is what
people read. Of files only those are opened that Gradio took in itself; callers keep ids, never paths.
"""

import asyncio
import functools
import inspect
import logging
import os
import shutil
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from uso.config import ModelConfig
from uso.errors import ImageError, USOError
from uso.images import MAX_PIXELS, upright_size
from uso.request import RANDOM_SEED, GenerationRequest, ReferenceImage
from uso.web.access.identity import Asker, asker_of
from uso.web.jobs.admission import LimitError
from uso.web.jobs.job import NAME_LETTERS, Job, JobStatus, Picture, ServerStatus
from uso.web.jobs.queue import JobQueue
from uso.web.server.metrics import Metrics

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""How often the desk looks for news of a job that runs, or is next."""

WAITING_SECONDS = 0.5
"""And of one that waits."""

WORD_SECONDS = 1.0
"""News are told again after this long, for the seconds that are left have changed."""


READERS = 2
"""Requests whose images are read at the same time: one of them may take a gigabyte for a second."""

SUBMITTERS = 4
"""Requests that are submitted at the same time; a filter of the server's owner may take its time over each."""


class Inputs(NamedTuple):
    """What a person fills in, in the order of the page's fields and of `/generate`'s parameters."""

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


class Calls:
    """One model's configuration, one engine, and whoever counts what was refused."""

    def __init__(self, config: ModelConfig, queue: JobQueue, telemetry: Metrics | None = None) -> None:
        self.config = config
        self.queue = queue
        self.telemetry = telemetry
        self._readers = ThreadPoolExecutor(READERS, "read")
        self._submitters = ThreadPoolExecutor(SUBMITTERS, "submit")

    @property
    def max_pixels(self) -> int:
        """Of one image."""
        return int(self.queue.settings.max_megapixels * 10**6)

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Call what reads or decodes people's images, when it is its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *args)

    async def submit(self, inputs: Inputs, caller: gr.Request | None) -> Job:
        """Put what was filled in into the line.

        Raises:
            USOError: it is refused, in a sentence.
        """
        asker, loop = asker_of(caller), asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self.queue.admit, asker)
            request = await self.read(requested, self.config, inputs, self.max_pixels)
            return await loop.run_in_executor(self._submitters, self._enter, request, asker)
        except USOError as error:
            if self.telemetry is not None:
                self.telemetry.refused(error.kind if isinstance(error, LimitError) else type(error).__name__)
            raise

    def _enter(self, request: GenerationRequest, asker: Asker) -> Job:
        """In a thread, which goes on where the caller is gone before it is done."""
        job = self.queue.submit(request, asker)
        self.queue.expect(job)
        return job

    async def follow(self, job: Job) -> AsyncGenerator[tuple[JobStatus, ServerStatus], None]:
        """Every state of a job, the last one included; what is unchanged is told again once a second.

        As long as it is followed the job is nobody's orphan; closing this before the end gives it up.
        """
        watcher = uuid.uuid4().hex
        self.queue.attach(job, watcher)
        loop = asyncio.get_running_loop()
        seen, told = None, 0.0
        try:
            while True:
                news = job.status, self.queue.status
                if news != seen or loop.time() - told >= WORD_SECONDS:
                    seen, told = news, loop.time()
                    yield news
                    if news[0].over:
                        return
                far = news[0].state == "queued" and news[0].ahead > 0
                await asyncio.sleep(WAITING_SECONDS if far else LOOK_SECONDS)
        finally:
            if not job.status.over:
                self.queue.detach(job, watcher)


def requested(config: ModelConfig, inputs: Inputs, max_pixels: int = MAX_PIXELS) -> GenerationRequest:
    """The request that raw values ask for.

    Raises:
        RequestError: a value is refused, with the reason.
    """
    content = uploaded(inputs.content_image, max_pixels)
    given = [uploaded(value, max_pixels) for value in (inputs.style_image, inputs.extra_style_image)]
    styles = [image for image in given if image is not None]
    request = GenerationRequest.create(
        config,
        prompt="" if inputs.prompt is None else inputs.prompt,
        content_images=[content] if content else [],
        style_images=styles,
        width=inputs.width,
        height=inputs.height,
        keep_input_size=False if inputs.keep_input_size is None else inputs.keep_input_size,
        num_inference_steps=inputs.num_inference_steps,
        guidance_scale=inputs.guidance_scale if config.guidance else None,  # the field is there, but disabled
        content_size=inputs.content_size,
        seed=RANDOM_SEED if inputs.seed is None else inputs.seed,  # an emptied field
    )
    for reference in (*request.content_images, *request.style_images):
        reference.let_pixels_go()
    return request


def uploaded(value: Any, max_pixels: int = MAX_PIXELS) -> ReferenceImage | None:
    """The image that a raw value of an image field stands for.

    Raises:
        ImageError: a file that was not uploaded here, is here no longer, is no picture, or has too many pixels.
    """
    if value is None:
        return None
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or "\x00" in path or not is_in_or_equal(path, get_upload_folder()):
        raise ImageError("The image was not uploaded to this page. Choose its file again.")
    name = Path(str(value.get("orig_name") or path)).name
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{name} is no longer on the server. Choose its file again.") from error
    upright_size(data, name, max_pixels)
    return ReferenceImage(data, name)


def handed_out(picture: Picture) -> str:
    """A copy of the file under a name nobody can guess; Gradio serves it byte for byte, and removes it in time.

    Raises:
        OSError: it cannot be copied.
    """
    folder = Path(get_upload_folder()) / picture.id
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / picture.path.name
    if copy.exists():
        os.utime(copy)  # it is in use again, and not to be swept away by its age
    else:
        part = folder / f".{uuid.uuid4().hex}"
        shutil.copyfile(picture.path, part)
        part.replace(copy)
    return str(copy)


def plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let only sentences out of a handler: of what is unexpected people get a name under which the log has the rest."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                async with aclosing(function(*args, **kwargs)) as news:
                    async for item in news:
                        yield item
            except Exception as error:
                raise _told(error) from error

        return stream

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                raise _told(error) from error

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _told(error) from error

    return call


def _told(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, USOError):
        return gr.Error(str(error), print_exception=False)
    name = uuid.uuid4().hex[:NAME_LETTERS]
    logger.error("Request %s failed.", name, exc_info=error)
    return gr.Error(f"Something unexpected happened; the server's log says more under {name}.", print_exception=False)
