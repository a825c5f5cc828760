"""The input fields: how they look, and the values that an example fills in. `restore.py` fills them from a picture.

Labels are those of USO's tutorial. Ranges and defaults come from the model's configuration.
"""

from pathlib import Path
from typing import NamedTuple

import gradio as gr

from uso.config import ModelConfig
from uso.errors import RequestError, USOError
from uso.images.pixels import TOKEN_SIZE
from uso.language import Text
from uso.request.checks import MAX_STYLE_STRENGTH
from uso.request.modes import NOTHING, Mode, mode_of
from uso.request.request import MAX_SEED, RANDOM_SEED
from uso.web.api.calls import MAX_IMAGES, Inputs
from uso.web.page.form.aspects import aspects
from uso.web.page.html import note
from uso.web.page.labels import static_html
from uso.web.page.texts import EXAMPLES, PROMPT_PLACEHOLDER, STRENGTHS

KEEP = gr.skip()
"""In place of a value: leaves a component as it is."""

UNCHANGED = Inputs(*[KEEP] * len(Inputs._fields))


def element_of(error: USOError) -> str:
    """Id of the field that a refusal is about; empty if it is about none."""
    field = error.field if isinstance(error, RequestError) else ""
    return _ELEMENTS.get(field, field.replace("_", "-"))


_ELEMENTS = {
    "content_image": "content",
    "content_images": "content",
    "style_image": "style",
    "style_images": "style",
    "extra_style_image": "extra-style",
    "keep_input_size": "keep",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
}
"""Ids of the fields that are not called as they are in a request."""


def prompt_field() -> gr.Textbox:
    return gr.Textbox(
        "", label=Text("Prompt"), placeholder=PROMPT_PLACEHOLDER, lines=3, max_lines=8, elem_id="prompt", autofocus=True
    )


REFERENCES = {
    "content": Text("Content Reference"),
    "style": Text("Style Reference"),
    "extra-style": Text("Extra Style Reference"),
}
"""Labels of content image and both style images, by their ids."""


def reference_field(elem_id: str, placeholder: str) -> gr.Image:
    return gr.Image(
        label=REFERENCES[elem_id],
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        buttons=["fullscreen"],
        height=190,
        min_width=80,
        placeholder=placeholder,
        elem_id=elem_id,
    )


def strength_fields() -> tuple[gr.Slider, gr.Slider]:
    """Strengths of both styles; `page.css` shows each while its style is there."""
    with gr.Group(elem_id="strengths"):
        with gr.Row():
            first, second = (
                gr.Slider(0, MAX_STYLE_STRENGTH, 1, step=0.05, label=label, min_width=150, elem_id=elem_id)
                for label, elem_id in (
                    (Text("Style strength"), "style-strength"),
                    (Text("Extra style strength"), "extra-style-strength"),
                )
            )
        gr.HTML(static_html(lambda: note(STRENGTHS)), elem_id="strengths-note")
    return first, second


class Size(NamedTuple):
    """The fields of the picture's size."""

    width: gr.Slider
    height: gr.Slider
    keep: gr.Checkbox
    aspect: gr.Radio
    """Shapes, by the size that each gives."""
    swap: gr.Button


def size_fields(config: ModelConfig) -> Size:
    """Width, height, Keep input size, and what sets width and height."""
    limits, defaults = config.limits, config.defaults
    with gr.Group(elem_id="size"):
        with gr.Row(elem_id="shapes"):
            aspect = gr.Radio(
                aspects(config),
                value=f"{defaults.width}x{defaults.height}",
                label=Text("Shape"),
                show_label=False,
                container=False,
                elem_id="aspect",
            )
            swap = gr.Button(Text("Swap sides"), size="sm", min_width=90, elem_id="swap")
        with gr.Row():
            width, height = (
                gr.Slider(
                    limits.min_size,
                    limits.max_size,
                    value,
                    step=TOKEN_SIZE,
                    label=label,
                    min_width=150,
                    elem_id=elem_id,
                )
                for label, elem_id, value in (
                    (Text("Generation Width"), "width", defaults.width),
                    (Text("Generation Height"), "height", defaults.height),
                )
            )
        keep = gr.Checkbox(
            False,
            label=Text("Keep input size"),
            info=Text("Give the picture the shape and size of the content image."),
            elem_id="keep",
        )
    return Size(width, height, keep, aspect, swap)


def advanced_fields(config: ModelConfig) -> tuple[gr.Slider, gr.Slider, gr.Slider]:
    """Steps, guidance, content reference size."""
    limits, defaults = config.limits, config.defaults
    steps = gr.Slider(
        1, limits.max_steps, defaults.num_inference_steps, step=1, label=Text("Number of steps"), elem_id="steps"
    )
    guidance = gr.Slider(
        limits.min_guidance,
        limits.max_guidance,
        defaults.guidance_scale,
        step=0.1,
        label=Text("Guidance"),
        info=Text("How closely to follow the prompt.")
        if config.guidance
        else Text("{} does not use guidance.", config.title),
        interactive=config.guidance,
        elem_id="guidance",
    )
    content_size = gr.Slider(
        limits.min_content_size,
        limits.max_content_size,
        defaults.content_size,
        step=TOKEN_SIZE,
        label=Text("Content reference size"),
        info=Text("Long side to which the content image is resized. Larger keeps more detail and takes longer."),
        elem_id="content-size",
    )
    return steps, guidance, content_size


def seed_fields() -> tuple[gr.Number, gr.Checkbox]:
    """The seed, and the switch that makes it a random one."""
    seed = gr.Number(
        RANDOM_SEED,
        label=Text("Seed"),
        info=Text("The same seed and inputs make the same picture."),
        minimum=RANDOM_SEED,
        maximum=MAX_SEED,
        scale=2,
        min_width=160,
        elem_id="seed",
    )
    random = gr.Checkbox(
        True,
        label=Text("Random"),
        info=Text("A new seed for every picture; -1 stands for it."),
        min_width=160,
        elem_id="random-seed",
    )
    return seed, random


def number_field() -> gr.Slider:
    """How many pictures a click makes."""
    return gr.Slider(
        1,
        MAX_IMAGES,
        1,
        step=1,
        label=Text("Number of pictures"),
        info=Text("With the seeds that follow."),
        elem_id="num-images",
    )


def planned(inputs: Inputs) -> Mode:
    """What will be made of the fields."""
    styles = ((inputs.style_image, inputs.style_strength), (inputs.extra_style_image, inputs.extra_style_strength))
    read = [image for image, strength in styles if image is not None and strength != 0]
    prompt = inputs.prompt if isinstance(inputs.prompt, str) else ""
    return mode_of(prompt, int(inputs.content_image is not None), len(read))


def check_something(inputs: Inputs) -> None:
    """Refuse to make a picture of nothing: on the page it is a slip.

    Raises:
        RequestError: nothing is filled in.
    """
    if planned(inputs) is NOTHING:
        raise RequestError(NOTHING.plan, "prompt")


def example_values(config: ModelConfig, index: int) -> Inputs:
    """A value for every field from an example. What the example does not name is the model's default."""
    example, defaults = EXAMPLES[config.examples][index], config.defaults
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
        seed=RANDOM_SEED if example.seed is None else example.seed,
        num_images=1,
        style_strength=1,
        extra_style_strength=1,
    )


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
