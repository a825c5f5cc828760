"""What programs may call: `/generate`, `/status` and `/cancel`, by HTTP, `gradio_client` or MCP.

Names, parameters, types, ranges, descriptions and results here are a contract (`tests/web/api/test_endpoints.py`).
The page has its own verbs (`page/events.py`); who is let in, and how often, is decided elsewhere.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.utils import get_function_description

from uso.errors import RequestError, USOError
from uso.request import RANDOM_SEED
from uso.web.api.calls import Calls, Inputs, handed_out, plain_errors
from uso.web.jobs.job import JobStatus, Picture, ServerStatus
from uso.web.page import html
from uso.web.store import history

logger = logging.getLogger(__name__)


NO_JOB = "There is no job of that id here. Give the 32 letters and digits that /generate answered as `job`."

MALFORMED = "A value does not have the form of its field. An image is a file that was uploaded here before."

Answer = tuple[str | None, dict[str, Any]]
"""The picture's file, once there is one, and the details."""


class Endpoints:
    """The endpoints, bound to one desk."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.queue = calls.queue

    async def generate(
        self,
        prompt: str = "",
        content_image: Any = None,
        style_image: Any = None,
        extra_style_image: Any = None,
        width: int | None = None,
        height: int | None = None,
        keep_input_size: bool = False,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        content_size: int | None = None,
        seed: int = RANDOM_SEED,
        request: gr.Request = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds its progress by this default
    ) -> AsyncIterator[Answer]:
        """Make a picture from a sentence, a content image (who or what is shown) and style images (how it looks); any
        of them may be left out. Takes seconds to minutes. Gives a PNG, which holds its whole request, and details. It
        answers at once with the job's id and state, then whenever something has changed, and at last with the picture
        and the seed and size that were used.

        Args:
            prompt: what the picture shows, in a natural sentence; empty keeps the layout of the content image.
            content_image: who or what is shown: a person, an animal, a thing, or a scene to restyle.
            style_image: how it looks: a picture in the style that is wanted.
            extra_style_image: a second style, mixed with the first.
            width: of the picture in pixels, a multiple of 16.
            height: of the picture in pixels, a multiple of 16.
            keep_input_size: take shape and size from the content image instead of width and height.
            num_inference_steps: more steps make finer pictures and take longer.
            guidance_scale: how closely the prompt is followed.
            content_size: long side that the content image is read at, in pixels; larger keeps more of it.
            seed: the same seed and inputs make the same picture; -1 draws one.
        """
        given = Inputs(
            prompt,
            content_image,
            style_image,
            extra_style_image,
            width,
            height,
            keep_input_size,
            num_inference_steps,
            guidance_scale,
            content_size,
            seed,
        )
        job = await self.calls.submit(given, request)
        async with aclosing(self.calls.follow(job)) as news:
            async for status, queue in news:
                progress((status.step, status.num_steps or 1), desc=html.job_words(status, queue))
                if not status.over:
                    yield None, details(job.id, status, queue)
        yield await asyncio.to_thread(finished, job.id, job.status, self.queue.status)

    async def status(self, job: str) -> Answer:
        """Look at a job: how far it is, and its picture once it is done. Answers at once.

        Args:
            job: the id that /generate gave, 32 letters and digits; one of an earlier run of the server will do.
        """
        return await asyncio.to_thread(self._status, job)

    async def cancel(self, job: str) -> dict[str, Any]:
        """Stop a job: at once if it waits, after the step it is at if it runs. Answers at once, with
        "cancelled": false where the job was over already.

        Args:
            job: the id that /generate gave, 32 letters and digits.
        """
        return await asyncio.to_thread(self._cancel, job)

    def _status(self, job: str) -> Answer:
        outcome, queue = self._outcome(job), self.queue.status
        told = details(job, outcome, queue)
        if not outcome.pictures:
            return None, told
        try:
            return handed_out(outcome.pictures[-1]), told
        except OSError:
            return None, told | {"message": "Done, but the picture is no longer on the server's disk."}

    def _cancel(self, job: str) -> dict[str, Any]:
        self._outcome(job)
        cancelled = self.queue.cancel(job)
        told = details(job, self._outcome(job), self.queue.status) | {"cancelled": cancelled}
        return told | {"message": "It stops after the step it is at."} if told["state"] == "running" else told

    def _outcome(self, job: str) -> JobStatus:
        """What a job has reached; the ids of all jobs have one form, and nothing else is looked for."""
        found = history.outcome(self.queue, self.calls.ledger, job)
        if found is None:
            raise RequestError(NO_JOB)
        return found


def details(job_id: str, status: JobStatus, queue: ServerStatus) -> dict[str, Any]:
    """What a job has reached, as JSON: `job`, `state`, `message` (a sentence), and what there is to say of that state.

    Seconds are rounded to tenths, and None where they cannot be told yet.
    """
    told: dict[str, Any] = {"job": job_id, "state": status.state, "message": html.job_words(status, queue)}
    if status.state == "queued":
        told |= {"ahead": status.ahead, "seconds_to_start": _tenths(status.seconds_to_start)}
    if status.state == "running":
        told |= {"stage": status.stage, "step": status.step, "num_steps": status.num_steps}
        told |= {"seconds_left": _tenths(status.seconds_left)}
    if status.state == "done":
        told |= _facts(status.pictures[-1]) if status.pictures else {"message": "Done; the picture was removed since."}
    return told


def finished(job_id: str, status: JobStatus, queue: ServerStatus) -> Answer:
    """The last answer of a job that is over.

    Raises:
        USOError: it has no picture: why, or that it was stopped; or the picture cannot be handed out.
    """
    if status.state != "done" or not status.pictures:
        raise USOError(status.error if status.state == "failed" else f"The job was stopped. {status.error}".strip())
    picture = status.pictures[-1]
    try:
        return handed_out(picture), details(job_id, status, queue)
    except OSError as error:
        raise USOError(
            f"The picture is saved as {picture.path.name} on the server, but cannot be handed out ({error.strerror})."
        ) from error


def _facts(picture: Picture) -> dict[str, Any]:
    return {
        "seed": picture.seed,
        "width": picture.width,
        "height": picture.height,
        "num_inference_steps": picture.num_inference_steps,
        "seconds": round(picture.seconds, 3),
        "file": picture.path.name,
    }


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def offer(calls: Calls, inputs: Inputs) -> None:
    """Add the endpoints to the page that is being built; its fields give types, ranges and defaults.

    Args:
        inputs: the page's components.
    """
    programs = Endpoints(calls)
    _refuse_malformed(Context.root_block)
    picture = gr.Image(label="picture", format="png", visible=False)
    told = gr.JSON(label="details", visible=False)
    generate = plain_errors(programs.generate)
    _document(generate, inputs._asdict())
    gr.on(
        [],
        generate,
        list(inputs),
        [picture, told],
        preprocess=False,
        concurrency_limit=None,
        api_name="generate",
    )
    job = gr.Textbox(label="job", visible=False)
    for verb, outputs in ((programs.status, [picture, told]), (programs.cancel, [told])):
        function = plain_errors(verb)
        _document(function, {"job": job})
        gr.on([], function, [job], outputs, preprocess=False, concurrency_limit=None, api_name=function.__name__)


def _refuse_malformed(page: Any) -> None:
    """Say in a sentence what is wrong with the form of a call; what Gradio says of it is for those who build pages."""
    preprocess = page.preprocess_data

    async def checked(block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        given, wanted = len(inputs), len(block_fn.inputs)
        if given < wanted or (given > wanted and block_fn.api_visibility == "public"):
            raise gr.Error(f"The call has {given} values in `data`; there must be {wanted}.", print_exception=False)
        try:
            return await preprocess(block_fn, inputs, *rest, **named)
        except gr.Error:
            raise
        except Exception as error:
            logger.info("A call of %s was malformed: %s", block_fn.api_name, type(error).__name__)
            raise gr.Error(MALFORMED, print_exception=False) from error

    page.preprocess_data = checked


def _document(function: Callable[..., Any], fields: dict[str, Any]) -> None:
    """Add the fields' ranges to a function's docstring, where MCP reads it, and its words to the fields' descriptions,
    where the API page and `view_api` do."""
    _, texts, _ = get_function_description(function)
    lines = (function.__doc__ or "").splitlines()
    for name, field in fields.items():
        text = texts[name]
        if getattr(field, "maximum", None) is not None:
            text = f"{text.rstrip('.')}; {_plain(field.minimum)} to {_plain(field.maximum)}."
            lines = [line.replace(f"{name}: {texts[name]}", f"{name}: {text}") for line in lines]
        field.api_info_as_input = functools.partial(_described, field.api_info, text)
    function.__doc__ = "\n".join(lines)


def _described(info: Callable[[], dict[str, Any]], text: str) -> dict[str, Any]:
    return {**info(), "additional_description": text}


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
