"""The page: which fields there are, where they stand, and which verb of `handlers.py` each one calls.

No model here, no torch: ranges, defaults and words come from the model's configuration, pictures from the engine.
"""

from typing import Any, NamedTuple

import gradio as gr

from uso.config import ModelConfig
from uso.images import TOKEN_SIZE
from uso.request import MAX_SEED, RANDOM_SEED
from uso.web.api.calls import Calls, Inputs, plain_errors
from uso.web.api.endpoints import offer
from uso.web.page import html, scripts
from uso.web.page.events import TICK_SECONDS, Events, Shown
from uso.web.page.texts import EXAMPLES, PROMPT_PLACEHOLDER, RESTORE, TIPS

CACHE_SECONDS = (3600, 24 * 3600)
"""How often Gradio's copies of uploads and pictures are looked at, and the age at which they go; longer than a tab is
likely to stay open. The pictures in the output folder are not touched."""

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE: dict[str, Any] = {"queue": False, **PRIVATE}
STREAMED: dict[str, Any] = {"concurrency_limit": None, "trigger_mode": "once", **PRIVATE}


class Controls(NamedTuple):
    """Everything on the page that a handler is bound to, beside the inputs and what a job shows."""

    model_state: gr.HTML
    account: gr.HTML
    note: gr.HTML
    advanced: gr.Accordion
    examples: gr.Dataset
    file: gr.File
    restored: gr.HTML
    timer: gr.Timer


class Actions(NamedTuple):
    """What can be done with the picture that is shown."""

    reuse_all: gr.Button
    reuse_seed: gr.Button
    as_content: gr.Button
    as_style: gr.Button


def build_page(calls: Calls, reason: str) -> gr.Blocks:
    """The page for one model; `reason` says why this one runs, as a sentence."""
    config, handlers = calls.config, Events(calls)
    with gr.Blocks(title="USO", analytics_enabled=False, delete_cache=CACHE_SECONDS) as page:
        with gr.Row(elem_id="masthead"):
            with gr.Column(scale=3, min_width=320):
                gr.HTML(html.masthead())
            with gr.Column(scale=2, min_width=320, elem_id="who"):
                model_state = gr.HTML(handlers.tick(None)[0], elem_id="model-state", js_on_load=scripts.LIVE)
                account = gr.HTML("", elem_id="account")
        gr.HTML(html.banner(config, reason), elem_id="banner")
        with gr.Row(elem_id="desk"):
            with gr.Column(scale=5, min_width=320):
                inputs, note, advanced, generate, stop = _inputs(config)
                file, restored = _restore()
            with gr.Column(scale=6, min_width=320, elem_id="result"):
                shown, actions = _result(generate, stop)
        examples = _examples(config)
        gr.HTML(html.heading("Tips") + html.tips(TIPS[config.examples]))
        timer = gr.Timer(TICK_SECONDS)
        controls = Controls(model_state, account, note, advanced, examples, file, restored, timer)
        _wire_jobs(page, handlers, inputs, shown)
        _wire_inputs(page, handlers, inputs, shown, controls)
        _wire_pictures(page, handlers, inputs, shown, controls, actions)
        offer(calls, inputs)
    return page


def _inputs(config: ModelConfig) -> tuple[Inputs, gr.HTML, gr.Accordion, gr.Button, gr.Button]:
    """The left column: what is asked for, the buttons, and what seldom needs a change."""
    prompt = gr.Textbox(
        "", label="Prompt", placeholder=PROMPT_PLACEHOLDER, lines=3, max_lines=8, elem_id="prompt", autofocus=True
    )
    with gr.Row(elem_id="references"):
        content = _reference("Content Reference", "content", "Who or what is shown")
        style = _reference("Style Reference", "style", "How it looks")
        extra_style = _reference("Extra Style Reference", "extra-style", "A second style")
    note = gr.HTML("", elem_id="note")
    width, height, keep = _size(config)
    with gr.Row(elem_id="actions"):
        generate = gr.Button("Generate", variant="primary", scale=3, min_width=160, elem_id="generate")
        stop = gr.Button("Stop", variant="secondary", scale=1, min_width=80, interactive=False, elem_id="stop")
    with gr.Accordion("Advanced", open=False, elem_id="advanced") as advanced:
        steps, guidance, content_size, seed = _advanced(config)
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


def _restore() -> tuple[gr.File, gr.HTML]:
    """Where a PNG is dropped that holds its settings."""
    with gr.Accordion("Restore from a picture", open=False, elem_id="restore-frame"):
        gr.HTML(html.note(RESTORE))
        file = gr.File(
            label="A PNG that this program made", file_types=[".png"], height=120, elem_id="restore", buttons=[]
        )
        restored = gr.HTML("", elem_id="restored", js_on_load=scripts.LIVE)
    return file, restored


def _result(generate: gr.Button, stop: gr.Button) -> tuple[Shown, Actions]:
    """The right column: the picture, what is going on, what can be done with it, and those before it."""
    with gr.Column(elem_id="stage"):
        picture = gr.Image(
            label="picture",
            show_label=False,
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id="picture",
            alt_text="The generated picture",
        )
        preview = gr.HTML("", elem_id="preview")
    status = gr.HTML(html.idle(), elem_id="status", js_on_load=scripts.LIVE)
    facts = gr.HTML("", elem_id="facts", js_on_load=scripts.LOCAL_TIME)
    with gr.Row(elem_id="afterwards", visible=False) as row:
        download = gr.DownloadButton("Download PNG", min_width=100, elem_id="download")
        actions = Actions(
            gr.Button("Reuse all settings", min_width=100, elem_id="reuse-all"),
            gr.Button("Reuse seed", min_width=100, elem_id="reuse-seed"),
            gr.Button("Use as content", min_width=100, elem_id="use-content"),
            gr.Button("Use as style", min_width=100, elem_id="use-style"),
        )
    with gr.Accordion("Settings of this picture", open=False, visible=False, elem_id="settings-frame") as frame:
        settings = gr.HTML("", elem_id="settings")
    history = gr.HTML("", elem_id="history", js_on_load=scripts.PICK)
    memory = gr.HTML("", visible="hidden", elem_id="memory", js_on_load=scripts.KEEP_JOB)
    shown = Shown(
        picture=picture,
        preview=preview,
        status=status,
        facts=facts,
        actions=row,
        download=download,
        settings=settings,
        settings_frame=frame,
        history=history,
        generate=generate,
        stop=stop,
        job_id=gr.State(None),
        memory=memory,
        picture_id=gr.State(None),
    )
    return shown, actions


def _examples(config: ModelConfig) -> gr.Dataset:
    """Those that suit the model."""
    offered = EXAMPLES[config.examples]
    gr.HTML(html.heading("Examples", "One for every way of working: a click fills in all the fields."))
    return gr.Dataset(
        show_label=False,
        components=["html"],
        samples=[[html.card(example)] for example in offered],
        samples_per_page=len(offered),
        type="index",
        layout="gallery",
        elem_id="examples",
    )


# Which verb each control calls. `preprocess=False`: the door's own words instead of Gradio's.


def _wire_jobs(page: gr.Blocks, handlers: Events, inputs: Inputs, shown: Shown) -> None:
    """From a request to its picture, and back to it after a reload."""
    run = gr.on(
        [shown.generate.click, inputs.prompt.submit],
        plain_errors(handlers.run),
        [shown.job_id, *inputs],
        list(shown),
        preprocess=False,
        **STREAMED,
    )
    back = page.load(plain_errors(handlers.come_back), [shown.memory], list(shown), js=scripts.RECALL_JOB, **STREAMED)
    for stream in (run, back):
        stream.failure(handlers.unlock, None, list(shown), **AT_ONCE)
    shown.generate.click(None, None, None, js=scripts.SHOW_RESULT)
    shown.stop.click(plain_errors(handlers.stop), [shown.job_id], [shown.stop], **AT_ONCE)


def _wire_inputs(page: gr.Blocks, handlers: Events, inputs: Inputs, shown: Shown, controls: Controls) -> None:
    """What fills the fields in, looks at them, and keeps them over a reload."""
    looked_at = [inputs.content_image, inputs.style_image, inputs.extra_style_image, inputs.keep_input_size]
    gr.on(
        [field.change for field in looked_at],
        plain_errors(handlers.look),
        looked_at,
        [controls.note, inputs.width, inputs.height],
        preprocess=False,
        trigger_mode="always_last",
        **AT_ONCE,  # an event in the queue that ends while Generate is clicked would take the tab's stream along
    )
    controls.examples.click(plain_errors(handlers.example), [controls.examples], list(inputs), **AT_ONCE)
    gr.on(
        [controls.file.upload, controls.file.clear],
        plain_errors(handlers.restore),
        [controls.file],
        [controls.restored, *inputs],
        preprocess=False,
        **AT_ONCE,
    )
    typed = [inputs.prompt, inputs.width, inputs.height, inputs.num_inference_steps, inputs.content_size, inputs.seed]
    if handlers.config.guidance:
        typed.append(inputs.guidance_scale)
    key = f"uso-draft-{handlers.config.name}"
    page.load(None, typed, typed, js=scripts.recall_draft(key))
    gr.on([field.change for field in typed], None, typed, None, js=scripts.keep_draft(key))
    gr.on(
        [page.load, controls.timer.tick, shown.picture_id.change],  # a picture may be done before the next tick
        plain_errors(handlers.tick),
        [shown.job_id],
        [controls.model_state, shown.generate, controls.timer],
        **AT_ONCE,
    )


def _wire_pictures(
    page: gr.Blocks, handlers: Events, inputs: Inputs, shown: Shown, controls: Controls, actions: Actions
) -> None:
    """What can be done with pictures that are there."""
    said, which, advanced = shown.status, shown.picture_id, controls.advanced
    page.load(plain_errors(handlers.arrive), None, [controls.account, shown.history], **AT_ONCE)
    shown.history.select(plain_errors(handlers.select), [shown.job_id], list(shown), **AT_ONCE).then(
        None, None, None, js=scripts.SHOW_RESULT
    )
    actions.reuse_all.click(plain_errors(handlers.reuse_all), [which], [said, advanced, *inputs], **AT_ONCE)
    actions.reuse_seed.click(plain_errors(handlers.reuse_seed), [which], [said, inputs.seed, advanced], **AT_ONCE)
    actions.as_content.click(plain_errors(handlers.as_content), [which], [said, inputs.content_image], **AT_ONCE)
    styles = [inputs.style_image, inputs.extra_style_image]
    actions.as_style.click(
        plain_errors(handlers.as_style), [which, *styles], [said, *styles], preprocess=False, **AT_ONCE
    )
