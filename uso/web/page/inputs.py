"""The input fields: how they look, and the values that an example fills in. `restore.py` fills them from a picture.

Labels are those of USO's tutorial. Ranges and defaults come from the model's configuration.
"""

from pathlib import Path

import gradio as gr

from uso.config import ModelConfig
from uso.images import TOKEN_SIZE
from uso.request import MAX_SEED, RANDOM_SEED
from uso.web.api.calls import Inputs
from uso.web.page.texts import EXAMPLES, PROMPT_PLACEHOLDER

KEEP = gr.skip()
"""In place of a value: leaves a component as it is."""

UNCHANGED = Inputs(*[KEEP] * len(Inputs._fields))


def prompt_field() -> gr.Textbox:
    return gr.Textbox(
        "", label="Prompt", placeholder=PROMPT_PLACEHOLDER, lines=3, max_lines=8, elem_id="prompt", autofocus=True
    )


def reference_fields() -> tuple[gr.Image, gr.Image, gr.Image]:
    """Content image and both style images."""
    return (
        _reference("Content Reference", "content", "Who or what to show"),
        _reference("Style Reference", "style", "How it should look"),
        _reference("Extra Style Reference", "extra-style", "A second style"),
    )


def _reference(label: str, elem_id: str, placeholder: str) -> gr.Image:
    return gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        buttons=[],
        height=190,
        min_width=80,
        placeholder=placeholder,
        elem_id=elem_id,
    )


def size_fields(config: ModelConfig) -> tuple[gr.Slider, gr.Slider, gr.Checkbox]:
    """Width, height, Keep input size."""
    limits, defaults = config.limits, config.defaults
    with gr.Group():
        with gr.Row():
            width, height = (
                gr.Slider(
                    limits.min_size,
                    limits.max_size,
                    value,
                    step=TOKEN_SIZE,
                    label=f"Generation {name}",
                    min_width=150,
                    elem_id=name.lower(),
                )
                for name, value in (("Width", defaults.width), ("Height", defaults.height))
            )
        keep = gr.Checkbox(
            False,
            label="Keep input size",
            info="Give the picture the shape and size of the content image.",
            elem_id="keep",
        )
    return width, height, keep


def advanced_fields(config: ModelConfig) -> tuple[gr.Slider, gr.Slider, gr.Slider, gr.Number]:
    """Steps, guidance, content reference size, seed."""
    limits, defaults = config.limits, config.defaults
    steps = gr.Slider(
        1, limits.max_steps, defaults.num_inference_steps, step=1, label="Number of steps", elem_id="steps"
    )
    guidance = gr.Slider(
        limits.min_guidance,
        limits.max_guidance,
        defaults.guidance_scale,
        step=0.1,
        label="Guidance",
        info="How closely to follow the prompt." if config.guidance else f"{config.title} does not use guidance.",
        interactive=config.guidance,
        elem_id="guidance",
    )
    content_size = gr.Slider(
        limits.min_content_size,
        limits.max_content_size,
        defaults.content_size,
        step=TOKEN_SIZE,
        label="Content reference size",
        info="Long side to which the content image is resized. Larger keeps more detail and takes longer.",
        elem_id="content-size",
    )
    seed = gr.Number(
        RANDOM_SEED,
        label="Seed",
        info="-1 picks a random seed. The same seed and inputs make the same picture.",
        minimum=RANDOM_SEED,
        maximum=MAX_SEED,
        elem_id="seed",
    )
    return steps, guidance, content_size, seed


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
        seed=RANDOM_SEED,
    )


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
