"""The endpoints for programs: `/generate`, `/status` and `/cancel`, by HTTP, `gradio_client` or MCP.

Names, parameters, types, ranges, descriptions and results here are a contract (`tests/contract.json`). The page has
events of its own (`page/events/`). Access and limits are checked elsewhere (`access/`, `jobs/admission.py`).
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.utils import get_function_description

from uso import output
from uso.errors import OutputError, RequestError, USOError
from uso.language import Text, joined, told, tr
from uso.request.request import RANDOM_SEED
from uso.web.access.asgi import API
from uso.web.api.calls import Calls, Inputs
from uso.web.api.files import handed_out
from uso.web.api.handlers import plain_errors
from uso.web.api.messages import job_message
from uso.web.jobs.job import JobStatus, Picture, ServerStatus
from uso.web.store import history

NO_JOB = Text("There is no job with that id. Give the 32 letters and digits that /generate returned as `job`.")

Answer = tuple[str | None, dict[str, Any]]
"""The picture's file, once there is one, and the details."""

Files = dict[str, dict[str, Any] | None]
"""Pictures' files by their ids, as Gradio names files; None for one that is gone."""

FILE = {"_type": "gradio.FileData"}
"""By which Gradio knows a file, and its client fetches it."""


class Endpoints:
    """The endpoints, bound to one `Calls`."""

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
        num_images: int = 1,
        style_strength: float = 1.0,
        extra_style_strength: float = 1.0,
        request: gr.Request = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds its progress by this default
    ) -> AsyncIterator[Answer]:
        """Make a picture from a sentence, a content image (who or what is shown) and style images (how it looks); any
        of them may be left out. Takes seconds to minutes. Gives a PNG, which holds its whole request, and details. It
        answers at once with the job's id and state, then whenever something has changed, and at last with the picture
        and the seed and size that were used. Of several pictures it gives the first, and all of them among the details.

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
            num_images: how many pictures, with the seeds that follow.
            style_strength: how much the style image counts; 0 leaves it out, 2 equals giving it twice.
            extra_style_strength: the same for the extra style image.
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
            num_images,
            style_strength,
            extra_style_strength,
        )
        job = await self.calls.submit(given, request)
        files: Files = {}
        async with aclosing(self.calls.follow(job)) as news:
            async for status, server in news:
                progress((status.step, status.num_steps or 1), desc=told(job_message(status, server)))
                if not status.over:
                    if len(status.pictures) > len(files):
                        await asyncio.to_thread(hand_out, status, files)
                    yield None, details(job.id, status, server, files)
        yield await asyncio.to_thread(finished, job.id, job.status, self.queue.status)

    async def status(self, job: str, request: gr.Request = None) -> Answer:
        """Look at a job: how far it is, and its picture once it is done. Answers at once.

        Args:
            job: the id that /generate gave, 32 letters and digits; one of an earlier run of the server will do.
        """
        return await asyncio.to_thread(self._status, job)

    async def cancel(self, job: str, request: gr.Request = None) -> dict[str, Any]:
        """Stop a job: at once if it waits, after the step it is at if it runs. Answers at once, with
        "cancelled": false where the job was over already.

        Args:
            job: the id that /generate gave, 32 letters and digits.
        """
        return await asyncio.to_thread(self._cancel, job)

    def _status(self, job: str) -> Answer:
        status = self._job_status(job)
        if not status.pictures:
            return None, details(job, status, self.queue.status)
        answer = details(job, status, self.queue.status, hand_out(status, {}))
        try:
            return handed_out(status.pictures[0]), answer | _loras(status.pictures[0])
        except OSError:
            return None, answer | {"message": tr("Done, but the picture is no longer on the server's disk.")}

    def _cancel(self, job: str) -> dict[str, Any]:
        self._job_status(job)
        cancelled = self.queue.cancel(job)
        answer = details(job, self._job_status(job), self.queue.status) | {"cancelled": cancelled}
        stopping = cancelled and answer["state"] == "running"
        return answer | {"message": tr("It stops after the current step.")} if stopping else answer

    def _job_status(self, job: str) -> JobStatus:
        """Status of a job. Only what has the form of an id is looked up.

        Raises:
            RequestError: there is no such job.
        """
        found = history.outcome(self.queue, self.calls.ledger, job)
        if found is None:
            raise RequestError(NO_JOB)
        return found


def hand_out(status: JobStatus, files: Files) -> Files:
    """Copy the pictures of a request for several to where they can be fetched; adds to `files` what is not there."""
    for picture in status.pictures if status.num_images > 1 else ():
        if picture.id not in files:
            try:
                path = handed_out(picture)
            except OSError:  # removed
                files[picture.id] = None
            else:
                address = f"{API}/file={quote(path)}"  # below that of the page, wherever that is
                files[picture.id] = {"path": path, "url": address, "orig_name": picture.path.name, "meta": FILE}
    return files


def details(job_id: str, status: JobStatus, server: ServerStatus, files: Files | None = None) -> dict[str, Any]:
    """Status of a job as JSON: `job`, `state`, `message` (a sentence), and the facts of that state. In a request for
    several pictures also `pictures`: the facts of each that is finished, with its file as Gradio gives it.

    Seconds are rounded to tenths, and None while they are unknown.
    """
    facts: dict[str, Any] = {"job": job_id, "state": status.state, "message": told(job_message(status, server))}
    if status.state == "queued":
        facts |= {
            "ahead": None if status.elsewhere else status.ahead,
            "seconds_to_start": _tenths(status.seconds_to_start),
        }
    if status.state == "running":
        facts |= {"stage": status.stage, "step": status.step, "num_steps": status.num_steps}
        facts |= {"seconds_left": _tenths(status.seconds_left)}
    if status.state == "done":
        facts |= (
            _facts(status.pictures[0]) if status.pictures else {"message": tr("Done; the picture has been removed.")}
        )
        facts |= {"notes": [told(note) for note in status.notes]} if status.notes else {}
    if status.num_images > 1:
        files = files or {}
        facts["pictures"] = [_facts(picture) | {"picture": files.get(picture.id)} for picture in status.pictures]
    return facts


def finished(job_id: str, status: JobStatus, server: ServerStatus) -> Answer:
    """The last answer about a job that is over.

    Raises:
        USOError: it failed or was stopped, with the reason, or its picture cannot be handed out.
    """
    if status.state != "done" or not status.pictures:
        raise USOError(status.error if status.state == "failed" else joined(Text("The job was stopped."), status.error))
    picture = status.pictures[0]
    try:
        return handed_out(picture), details(job_id, status, server, hand_out(status, {})) | _loras(picture)
    except OSError as error:
        raise USOError(
            Text(
                "The picture is saved as {} on the server, but cannot be handed out ({}).",
                picture.path.name,
                error.strerror,
            )
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


def _loras(picture: Picture) -> dict[str, Any]:
    """The LoRAs that were used, if any were added or USO's own had another strength than 1, as the PNG records them."""
    try:
        model = output.read(picture.path).model
    except OutputError:
        return {}
    loras = {"added_loras": model["added_loras"]} if model.get("added_loras") else {}
    return loras | ({"lora_scale": model["lora_scale"]} if model.get("lora_scale", 1) != 1 else {})


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def offer(calls: Calls, inputs: Inputs) -> None:
    """Add the endpoints to the page that is being built. Its fields give types, ranges and defaults.

    Args:
        inputs: the page's components.
    """
    endpoints = Endpoints(calls)
    picture = gr.Image(label="picture", format="png", visible=False)
    answer = gr.JSON(label="details", visible=False)
    generate = plain_errors(endpoints.generate)
    _document(generate, inputs._asdict())
    gr.on(
        [],
        generate,
        list(inputs),
        [picture, answer],
        preprocess=False,
        concurrency_limit=None,
        api_name="generate",
    )
    job = gr.Textbox(label="job", visible=False)
    for endpoint, outputs in ((endpoints.status, [picture, answer]), (endpoints.cancel, [answer])):
        function = plain_errors(endpoint)
        _document(function, {"job": job})
        gr.on([], function, [job], outputs, preprocess=False, concurrency_limit=None, api_name=function.__name__)


def _document(function: Callable[..., Any], fields: dict[str, Any]) -> None:
    """Add the fields' ranges to a function's docstring, which MCP shows, and its descriptions to the fields, which the
    API page and `view_api` show."""
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
