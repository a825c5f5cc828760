"""The page: where its components stand, and which event of `events.py` each one triggers. No model here, no torch."""

from typing import Any, NamedTuple

import gradio as gr

from uso.config import ModelConfig
from uso.web.api.calls import Calls, Inputs, plain_errors
from uso.web.api.endpoints import offer
from uso.web.page import html, scripts
from uso.web.page.events import TICK_SECONDS, Events, Shown
from uso.web.page.form import pieces
from uso.web.page.form.column import Bar, Form, bar, form, wire
from uso.web.page.form.events import FormEvents
from uso.web.page.gradio_fit import refuse_malformed
from uso.web.page.texts import EXAMPLES, TIPS

CACHE_SECONDS = (3600, 24 * 3600)
"""How often Gradio checks its copies of uploads and pictures, and the age at which it removes them: longer than a tab
is likely to stay open. The pictures in the output folder are not touched."""

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE: dict[str, Any] = {"queue": False, **PRIVATE}
STREAMED: dict[str, Any] = {"concurrency_limit": None, "trigger_mode": "once", **PRIVATE}


class Controls(NamedTuple):
    """The other components that events read or change, beside `Inputs` and `Shown`."""

    model_state: gr.HTML
    account: gr.HTML
    examples: gr.Dataset
    timer: gr.Timer
    form: Form


class Actions(NamedTuple):
    """The buttons under the picture that is shown."""

    reuse_all: gr.Button
    reuse_seed: gr.Button
    as_content: gr.Button
    as_style: gr.Button


def build_page(calls: Calls, reason: str) -> gr.Blocks:
    """The page for one model.

    Args:
        reason: why this model runs, as a sentence.
    """
    config, events = calls.config, Events(calls)
    with gr.Blocks(title="USO", analytics_enabled=False, delete_cache=CACHE_SECONDS) as page:
        with gr.Row(elem_id="masthead"):
            with gr.Column(scale=3, min_width=320):
                gr.HTML(html.masthead())
            with gr.Column(scale=2, min_width=320, elem_id="who"):
                model_state = gr.HTML(events.tick(None)[0], elem_id="model-state", js_on_load=scripts.LIVE)
                account = gr.HTML("", elem_id="account")
        gr.HTML(html.banner(config, reason), elem_id="banner")
        with gr.Row():
            with gr.Column(scale=5, min_width=320, elem_id="fields"):
                fields = form(config)
                foot = bar()
            with gr.Column(scale=6, min_width=320, elem_id="result"):
                shown, actions = _result(foot)
        examples = _examples(config)
        gr.HTML(html.heading("Tips") + html.tips(TIPS[config.examples]))
        gr.HTML(pieces.words(), visible="hidden", elem_id="words")
        gr.HTML(pieces.drop_zones(), elem_id="drop")
        timer = gr.Timer(TICK_SECONDS)
        inputs, controls = fields.inputs, Controls(model_state, account, examples, timer, fields)
        _wire_jobs(page, events, inputs, shown)
        _wire_inputs(page, events, inputs, shown, controls)
        _wire_pictures(page, events, inputs, shown, controls, actions)
        wire(FormEvents(calls), fields, foot)
        offer(calls, inputs)
    refuse_malformed(page)
    return page


def _result(bar: Bar) -> tuple[Shown, Actions]:
    """The right column: the picture, its buttons and settings, and the history."""
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
    # Ids live in the page, not in the server's memory of the tab: a tab that slept for an hour still knows its picture.
    job_id, picture_id = (gr.HTML("", visible="hidden", elem_id=name) for name in ("job-id", "picture-id"))
    memory = gr.HTML("", visible="hidden", elem_id="memory", js_on_load=scripts.KEEP_JOB)
    shown = Shown(
        picture=picture,
        preview=preview,
        status=bar.status,
        facts=facts,
        actions=row,
        download=download,
        settings=settings,
        settings_frame=frame,
        history=history,
        generate=bar.generate,
        stop=bar.stop,
        job_id=job_id,
        memory=memory,
        picture_id=picture_id,
    )
    return shown, actions


def _examples(config: ModelConfig) -> gr.Dataset:
    """The examples that suit the model."""
    offered = EXAMPLES[config.examples]
    gr.HTML(html.heading("Examples", "One for each mode. Click one to fill in all the fields."))
    return gr.Dataset(
        show_label=False,
        components=["html"],
        samples=[[html.card(example)] for example in offered],
        samples_per_page=len(offered),
        type="index",
        layout="gallery",
        elem_id="examples",
    )


# Which event each control triggers. `preprocess=False`: values arrive raw, so people read our messages, not Gradio's.


def _wire_jobs(page: gr.Blocks, events: Events, inputs: Inputs, shown: Shown) -> None:
    """Generate and Stop, and the return to a job after a reload."""
    run = gr.on(
        [shown.generate.click, inputs.prompt.submit],
        plain_errors(events.run),
        [shown.job_id, *inputs],
        list(shown),
        preprocess=False,
        **STREAMED,
    )
    back = page.load(plain_errors(events.come_back), [shown.memory], list(shown), js=scripts.RECALL_JOB, **STREAMED)
    for stream in (run, back):
        stream.failure(events.unlock, None, list(shown), **AT_ONCE)
    shown.generate.click(None, None, None, js=scripts.SHOW_RESULT)
    shown.stop.click(plain_errors(events.stop), [shown.job_id], [shown.stop], **AT_ONCE)


def _wire_inputs(page: gr.Blocks, events: Events, inputs: Inputs, shown: Shown, controls: Controls) -> None:
    """What fills the fields in, checks them, and keeps them over a reload."""
    form = controls.form
    references = [inputs.content_image, inputs.style_image, inputs.extra_style_image]
    checked = [*references, inputs.keep_input_size]
    gr.on(
        [field.change for field in checked],
        plain_errors(events.check_images),
        checked,
        [form.note, inputs.width, inputs.height],
        preprocess=False,
        trigger_mode="always_last",
        **AT_ONCE,  # a queued event that ends while Generate is clicked would end the tab's stream
    )
    renditions = gr.Textbox(label="renditions", visible="hidden", elem_id="renditions")
    gr.on(
        [field.change for field in references],
        plain_errors(events.renditions),
        references,
        renditions,
        preprocess=False,
        trigger_mode="always_last",
        **AT_ONCE,
    )
    renditions.change(None, [renditions, *references], references, js=scripts.SHOW_RENDITIONS)
    if events.config.limits.trained_size:
        size = [inputs.width, inputs.height]
        gr.on([field.change for field in size], plain_errors(events.sides), size, form.size.sides, **AT_ONCE)
    controls.examples.click(
        plain_errors(events.example), [controls.examples], list(inputs), js=scripts.filling(1), **AT_ONCE
    ).then(None, None, None, js=scripts.FILLED)
    gr.on(
        [form.file.upload, form.file.clear],
        plain_errors(events.restore),
        [form.file],
        [form.restored, *inputs],
        preprocess=False,
        js=scripts.filling(1),
        **AT_ONCE,
    ).success(None, [form.file], None, js="file => file && window.uso.filled()")
    typed = [inputs.prompt, inputs.width, inputs.height, inputs.num_inference_steps, inputs.content_size, inputs.seed]
    typed += [inputs.style_strength, inputs.extra_style_strength]
    if events.config.guidance:
        typed.append(inputs.guidance_scale)
    key = f"uso-draft-{events.config.name}"
    page.load(None, typed, typed, js=scripts.recall_draft(key))
    gr.on([field.change for field in typed], None, typed, None, js=scripts.keep_draft(key))
    gr.on(
        [page.load, controls.timer.tick, shown.picture_id.change],  # a picture may be done before the next tick
        plain_errors(events.tick),
        [shown.job_id],
        [controls.model_state, shown.generate, controls.timer],
        **AT_ONCE,
    )


def _wire_pictures(
    page: gr.Blocks, events: Events, inputs: Inputs, shown: Shown, controls: Controls, actions: Actions
) -> None:
    """The history, and the buttons under a picture."""
    status, which, advanced = shown.status, shown.picture_id, controls.form.advanced
    page.load(plain_errors(events.arrive), None, [controls.account, shown.history], **AT_ONCE)
    shown.history.select(plain_errors(events.select), [shown.job_id], list(shown), **AT_ONCE).then(
        None, None, None, js=scripts.SHOW_RESULT
    )
    actions.reuse_all.click(plain_errors(events.reuse_all), [which], [status, advanced, *inputs], **AT_ONCE)
    actions.reuse_seed.click(plain_errors(events.reuse_seed), [which], [status, inputs.seed, advanced], **AT_ONCE)
    actions.as_content.click(plain_errors(events.as_content), [which], [status, inputs.content_image], **AT_ONCE)
    styles = [inputs.style_image, inputs.extra_style_image]
    actions.as_style.click(
        plain_errors(events.as_style), [which, *styles], [status, *styles], preprocess=False, **AT_ONCE
    )
