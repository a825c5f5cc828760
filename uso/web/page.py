"""The page: which fields there are, where they stand, and which verb of `handlers.py` each one calls.

No model here, no torch: ranges, defaults and words come from the model's configuration, pictures from the engine.
"""

from typing import Any, NamedTuple

import gradio as gr

from uso.config import ModelConfig
from uso.images import TOKEN_SIZE
from uso.request import MAX_SEED, RANDOM_SEED
from uso.web import snippets
from uso.web.engine import Engine
from uso.web.handlers import Handlers, Inputs, Shown
from uso.web.texts import EXAMPLES, PROMPT_PLACEHOLDER

CACHE_SECONDS = (3600, 24 * 3600)
"""How often Gradio's copies of uploads and pictures are looked at, and the age at which they go; longer than a tab is
likely to stay open. The pictures in the output folder are not touched."""

TICK_SECONDS = 1.0

LIVE = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite')"
"""Set on what stays while its content changes: screen readers announce changes of a region, not new regions."""

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


class Controls(NamedTuple):
    """Everything on the page that a handler is bound to, beside the inputs and what a job shows."""

    model_state: gr.HTML
    note: gr.HTML
    advanced: gr.Accordion
    examples: gr.Dataset
    details: gr.JSON
    timer: gr.Timer


def build_page(config: ModelConfig, reason: str, engine: Engine) -> gr.Blocks:
    """The page for one model; `reason` says why this one runs, as a sentence."""
    handlers = Handlers(config, engine)
    with gr.Blocks(title="USO", analytics_enabled=False, delete_cache=CACHE_SECONDS) as page:
        with gr.Row(elem_id="masthead"):
            gr.HTML(snippets.masthead(), min_width=320, scale=3)
            model_state = gr.HTML(
                handlers.tick(None)[0], min_width=320, scale=2, elem_id="model-state", js_on_load=LIVE
            )
        gr.HTML(snippets.banner(config, reason), elem_id="banner")
        with gr.Row(elem_id="desk"):
            with gr.Column(scale=5, min_width=320):
                inputs, note, advanced, generate, stop = _inputs(config)
            with gr.Column(scale=6, min_width=320, elem_id="result"):
                shown = _result(generate, stop)
        examples = _examples()
        gr.HTML(snippets.heading("Tips") + snippets.tips())
        details = gr.JSON(label="details", visible=False)
        controls = Controls(model_state, note, advanced, examples, details, gr.Timer(TICK_SECONDS))
        _wire(page, handlers, inputs, shown, controls)
    return page


def _inputs(config: ModelConfig) -> tuple[Inputs, gr.HTML, gr.Accordion, gr.Button, gr.Button]:
    """The left column; fields in the order in which they are filled in."""
    prompt = gr.Textbox(
        "", label="Prompt", placeholder=PROMPT_PLACEHOLDER, lines=3, max_lines=8, elem_id="prompt", autofocus=True
    )
    with gr.Row(elem_id="references"):
        content = _reference("Content Reference", "content", "Who or what is shown")
        style = _reference("Style Reference", "style", "How it looks")
        extra_style = _reference("Extra Style Reference", "extra-style", "A second style")
    note = gr.HTML("", elem_id="note")
    width, height, keep = _size(config)
    with gr.Accordion("Advanced", open=False, elem_id="advanced") as advanced:
        steps, guidance, content_size, seed = _advanced(config)
    with gr.Row(elem_id="actions"):
        generate = gr.Button("Generate", variant="primary", scale=3, min_width=160, elem_id="generate")
        stop = gr.Button("Stop", variant="secondary", scale=1, min_width=80, interactive=False, elem_id="stop")
    inputs = Inputs(prompt, content, style, extra_style, width, height, keep, steps, guidance, content_size, seed)
    return inputs, note, advanced, generate, stop


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


def _size(config: ModelConfig) -> tuple[gr.Slider, gr.Slider, gr.Checkbox]:
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
            info="The picture takes shape and size of the content image.",
            elem_id="keep",
        )
    return width, height, keep


def _advanced(config: ModelConfig) -> tuple[gr.Slider, gr.Slider, gr.Slider, gr.Number]:
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
        info="How closely the prompt is followed." if config.guidance else f"{config.title} takes no guidance.",
        interactive=config.guidance,
        elem_id="guidance",
    )
    content_size = gr.Slider(
        limits.min_content_size,
        limits.max_content_size,
        defaults.content_size,
        step=TOKEN_SIZE,
        label="Content reference size",
        info="Long side that the content image is brought to. Larger keeps more of it, and takes longer.",
        elem_id="content-size",
    )
    seed = gr.Number(
        RANDOM_SEED,
        label="Seed",
        info="-1 draws one at random; the same seed and inputs make the same picture.",
        minimum=RANDOM_SEED,
        maximum=MAX_SEED,
        elem_id="seed",
    )
    return steps, guidance, content_size, seed


def _result(generate: gr.Button, stop: gr.Button) -> Shown:
    """The right column."""
    picture = gr.Image(
        label="picture",
        show_label=False,
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id="picture",
        alt_text="The generated picture",
    )
    status = gr.HTML(snippets.idle(), elem_id="status", js_on_load=LIVE)
    facts = gr.HTML("", elem_id="facts")
    with gr.Row(elem_id="afterwards"):
        download = gr.DownloadButton("Download PNG", interactive=False, min_width=140, elem_id="download")
        reuse = gr.Button("Reuse this seed", interactive=False, min_width=140, elem_id="reuse-seed")
    return Shown(picture, status, facts, download, reuse, generate, stop, gr.State(None), gr.State(None))


def _examples() -> gr.Dataset:
    gr.HTML(snippets.heading("Examples", "One for every way of working: a click fills in all the fields."))
    return gr.Dataset(
        show_label=False,
        components=["html"],
        samples=[[snippets.card(example)] for example in EXAMPLES],
        samples_per_page=len(EXAMPLES),
        type="index",
        layout="gallery",
        elem_id="examples",
    )


def _wire(page: gr.Blocks, handlers: Handlers, inputs: Inputs, shown: Shown, controls: Controls) -> None:
    """Which verb each control calls. `preprocess=False`: the door's own words instead of Gradio's."""
    gr.on(
        [shown.generate.click, inputs.prompt.submit],
        handlers.run,
        list(inputs),
        list(shown),
        preprocess=False,
        concurrency_limit=None,
        trigger_mode="once",
        **PRIVATE,
    )
    gr.on(
        [],
        handlers.generate,
        list(inputs),
        [shown.picture, controls.details],
        preprocess=False,
        concurrency_limit=None,
        api_name="generate",
    )
    shown.stop.click(handlers.stop, [shown.job_id], [shown.stop], queue=False, **PRIVATE)
    looked_at = [inputs.content_image, inputs.style_image, inputs.extra_style_image, inputs.keep_input_size]
    gr.on(
        [field.change for field in looked_at],
        handlers.look,
        looked_at,
        [controls.note, inputs.width, inputs.height],
        preprocess=False,
        trigger_mode="always_last",
        concurrency_limit=None,
        **PRIVATE,
    )
    controls.examples.click(handlers.example, [controls.examples], list(inputs), queue=False, **PRIVATE)
    shown.reuse.click(handlers.reuse_seed, [shown.seed], [inputs.seed, controls.advanced], queue=False, **PRIVATE)
    gr.on(
        [page.load, controls.timer.tick],
        handlers.tick,
        [shown.job_id],
        [controls.model_state, shown.generate, controls.timer],
        queue=False,
        **PRIVATE,
    )
