"""What happens when somebody does something on the page, or calls `/generate`.

Values arrive as the browser sent them (Gradio's own conversion is off, its messages are not for people): the door is
`GenerationRequest.create`, and what it says is what the page shows. Of files only those are opened that Gradio took in
itself; the browser keeps ids, never paths.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from uso.config import ModelConfig
from uso.errors import ImageError, RequestError, USOError
from uso.request import RANDOM_SEED, GenerationRequest, ReferenceImage, keep_input_size_of
from uso.web import snippets
from uso.web.engine import Engine, EngineStatus, Job, JobStatus, Picture
from uso.web.texts import EXAMPLES

LOOK_SECONDS = 0.1
"""How often a waiting page looks for news of its job."""

KEEP = gr.skip()
"""Leaves a component as it is."""


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


class Shown(NamedTuple):
    """What a running job changes on the page."""

    picture: Any = KEEP
    status: Any = KEEP
    facts: Any = KEEP
    download: Any = KEEP
    reuse: Any = KEEP
    generate: Any = KEEP
    stop: Any = KEEP
    job_id: Any = KEEP
    seed: Any = KEEP


class Handlers:
    """The page's verbs, bound to one model's configuration and one engine."""

    def __init__(self, config: ModelConfig, engine: Engine) -> None:
        self.config = config
        self.engine = engine

    async def run(self, *values: Any) -> AsyncIterator[Shown]:
        """The Generate button: from the first look at a request to its picture."""
        try:
            job = await self._submitted(Inputs(*values))
        except USOError as error:
            yield Shown(status=snippets.refusal(str(error)))
            return
        yield Shown(generate=gr.update(interactive=False), stop=gr.update(interactive=True), job_id=job.id)
        async for status, engine in self._follow(job):
            if status.pictures and status.over:
                yield self._finished(job, status.pictures[-1])
            else:
                yield Shown(status=snippets.job_state(status, engine))
        yield Shown(generate=gr.update(interactive=True), stop=gr.update(interactive=False, value="Stop"), job_id=None)

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
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds its progress by this default
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Make a picture. Returns the PNG, which holds its request, and the seed and size that were used.

        Args:
            prompt: a sentence; empty keeps the layout of the content image.
            content_image: who or what is shown.
            style_image: how it looks.
            extra_style_image: a second style, mixed in.
            width: in pixels, a multiple of 16.
            height: in pixels, a multiple of 16.
            keep_input_size: take the size from the content image.
            num_inference_steps: more steps, finer pictures, longer waiting.
            guidance_scale: how closely the prompt is followed.
            content_size: long side that the content image is brought to, in pixels.
            seed: 0 to 4294967295; the same seed and inputs make the same picture; -1 draws one.
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
        try:
            job = await self._submitted(given)
        except USOError as error:
            raise gr.Error(str(error), print_exception=False) from error
        async for status, engine in self._follow(job):
            progress((status.step, status.num_steps or 1), desc=snippets.job_words(status, engine))
        picture = job.status.pictures[-1] if job.status.pictures else None
        if picture is None:
            raise gr.Error(job.status.error or "The picture was stopped.", print_exception=False)
        yield _handed_out(job, picture), _details(picture)

    def stop(self, job_id: str | None) -> Any:
        """The Stop button; the job's own stream says when it has stopped."""
        if job_id is not None and self.engine.cancel(job_id):
            return gr.update(interactive=False, value="Stopping ...")
        return KEEP

    def look(self, content: Any, style: Any, extra_style: Any, keep: Any) -> tuple[str, Any, Any]:
        """Say at once what is wrong with an image, and which size will be used; (note, width, height)."""
        free = gr.update(interactive=not keep)
        try:
            reference = uploaded(content)
            for image in (reference, uploaded(style), uploaded(extra_style)):
                _ = image and image.image
            if not keep:
                return "", free, free
            if reference is None:
                return snippets.note("Keep input size needs a content image."), free, free
            width, height = keep_input_size_of(self.config, reference)
        except RequestError as error:
            return snippets.note(str(error), bad=True), free, free
        was = "{} × {}".format(*reference.image.size)
        return snippets.note(f"The picture will be {width} × {height}; the content image is {was}."), free, free

    def tick(self, job_id: str | None) -> tuple[str, Any, Any]:
        """Once a second until the model is ready: (its state, the Generate button, the timer)."""
        status = self.engine.status
        state = snippets.model_state(status, self.engine.loading_seconds, str(self.engine.provenance.get("device", "")))
        settled = status.state in ("ready", "failed")
        words = "Generate" if settled else "Generate when the model is ready"
        button = gr.update(value=words, interactive=status.state != "failed")
        return state, KEEP if job_id else button, gr.update(active=not settled)

    def example(self, index: int) -> Inputs:
        """All inputs of an example; what it does not name goes back to the model's default."""
        example, defaults = EXAMPLES[index], self.config.defaults
        return Inputs(
            prompt=example.prompt,
            content_image=_path(example.path(example.content)),
            style_image=_path(example.path(example.style)),
            extra_style_image=_path(example.path(example.extra_style)),
            width=defaults.width,
            height=defaults.height,
            keep_input_size=example.keep_input_size,
            num_inference_steps=defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale,
            content_size=defaults.content_size,
            seed=RANDOM_SEED,
        )

    def reuse_seed(self, seed: int | None) -> tuple[Any, Any]:
        """Put the seed that was used into its field and unfold the place where it is."""
        return (KEEP, KEEP) if seed is None else (seed, gr.update(open=True))

    async def _submitted(self, inputs: Inputs) -> Job:
        request = await asyncio.to_thread(requested, self.config, inputs)
        return self.engine.submit(request)

    async def _follow(self, job: Job) -> AsyncIterator[tuple[JobStatus, EngineStatus]]:
        """Every state of a job, the last one included; while it waits, also the model's."""
        seen = None
        while True:
            news = job.status, self.engine.status
            if news != seen:
                seen = news
                yield news
                if news[0].over:
                    return
            await asyncio.sleep(LOOK_SECONDS)

    def _finished(self, job: Job, picture: Picture) -> Shown:
        try:
            path = _handed_out(job, picture)
        except OSError as error:
            sentence = (
                f"The picture is saved as {picture.path.name} on the server, but cannot be shown ({error.strerror})."
            )
            return Shown(status=snippets.refusal(sentence), facts=snippets.facts(picture))
        return Shown(
            picture=path,
            status=snippets.job_state(job.status, self.engine.status),
            facts=snippets.facts(picture),
            download=gr.update(value=path, interactive=True),
            reuse=gr.update(interactive=True),
            seed=picture.seed,
        )


def requested(config: ModelConfig, inputs: Inputs) -> GenerationRequest:
    """The request that raw values ask for.

    Raises:
        RequestError: a value is refused, with the reason.
    """
    content = uploaded(inputs.content_image)
    styles = [image for value in (inputs.style_image, inputs.extra_style_image) if (image := uploaded(value))]
    return GenerationRequest.create(
        config,
        prompt="" if inputs.prompt is None else inputs.prompt,
        content_images=[content] if content else [],
        style_images=styles,
        width=inputs.width,
        height=inputs.height,
        keep_input_size=bool(inputs.keep_input_size),
        num_inference_steps=inputs.num_inference_steps,
        guidance_scale=inputs.guidance_scale if config.guidance else None,  # the field is there, but disabled
        content_size=inputs.content_size,
        seed=RANDOM_SEED if inputs.seed is None else inputs.seed,  # an emptied field
    )


def uploaded(value: Any) -> ReferenceImage | None:
    """The image that a raw value of an image field stands for.

    Raises:
        ImageError: a file that was not uploaded here, or is here no longer.
    """
    if value is None:
        return None
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not is_in_or_equal(path, get_upload_folder()):
        raise ImageError("The image was not uploaded to this page. Choose its file again.")
    name = Path(str(value.get("orig_name") or path)).name
    try:
        return ReferenceImage(Path(path).read_bytes(), name)
    except OSError as error:
        raise ImageError(f"{name} is no longer on the server. Choose its file again.") from error


def _handed_out(job: Job, picture: Picture) -> str:
    """A copy of the file under a name nobody can guess; Gradio serves it byte for byte, and removes it in time."""
    folder = Path(get_upload_folder()) / job.id
    folder.mkdir(parents=True, exist_ok=True)
    return str(shutil.copyfile(picture.path, folder / picture.path.name))


def _details(picture: Picture) -> dict[str, Any]:
    return {
        "seed": picture.seed,
        "width": picture.width,
        "height": picture.height,
        "num_inference_steps": picture.num_inference_steps,
        "seconds": round(picture.seconds, 3),
        "file": picture.path.name,
    }


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
