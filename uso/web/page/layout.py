"""The page: where its components stand, and which event of `events/` each one triggers. No model here, no torch."""

from typing import Any, NamedTuple

import gradio as gr

from uso.language import Text
from uso.web.api.calls import Calls, Inputs
from uso.web.api.endpoints import offer
from uso.web.api.handlers import AT_ONCE, PRIVATE, plain_errors
from uso.web.page import examples, html, scripts, styles
from uso.web.page.compare import Compare, CompareEvents, compare_buttons, compare_view, wire_compare
from uso.web.page.events.inputs import InputEvents
from uso.web.page.events.jobs import TICK_SECONDS, JobEvents, Live
from uso.web.page.events.pictures import PictureEvents, Shown
from uso.web.page.form import pieces
from uso.web.page.form.column import Bar, Form, bar, form, wire
from uso.web.page.form.events import FormEvents
from uso.web.page.gradio_fit import name_in_english, refuse_malformed
from uso.web.page.kept.events import GalleryEvents
from uso.web.page.kept.gallery import Gallery, Picked, gallery_parts, picture_buttons, wire_gallery, wire_prompts
from uso.web.page.kept.presets import PresetEvents, wire_presets
from uso.web.page.labels import static_html, translate
from uso.web.page.texts import TIPS

CACHE_SECONDS = (3600, 24 * 3600)
"""How often Gradio checks its copies of uploads and pictures, and the age at which it removes them: longer than a tab
is likely to stay open. The pictures in the output folder are not touched."""


class Controls(NamedTuple):
    """The other components that events read or change, beside `Inputs`, `Live` and `Shown`."""

    generate: gr.Button
    tab: gr.HTML
    """Stands for the tab's id, which JavaScript gives (`scripts.WITH_TAB`)."""
    submitted: gr.HTML
    """Id of the job that Generate made last."""
    model_state: gr.HTML
    account: gr.HTML
    timer: gr.Timer
    form: Form


class Actions(NamedTuple):
    """The buttons under the picture that is shown."""

    repeat: gr.Button
    """All settings, the same seed."""
    remix: gr.Button
    """All settings, a random seed."""
    reuse_seed: gr.Button
    as_content: gr.Button
    as_style: gr.Button
    compare: Compare


def build_page(calls: Calls, reason: str) -> gr.Blocks:
    """The page for one model.

    Args:
        reason: why this model runs, as a sentence.
    """
    config = calls.config
    with gr.Blocks(title="USO", analytics_enabled=False, delete_cache=CACHE_SECONDS) as page:
        with gr.Row(elem_id="masthead"):
            with gr.Column(scale=3, min_width=320):
                gr.HTML(static_html(html.masthead))
            with gr.Column(scale=2, min_width=320, elem_id="who"):
                model_state = gr.HTML(
                    static_html(lambda: JobEvents(calls).tick()[0]),
                    elem_id="model-state",
                    js_on_load=scripts.LIVE + scripts.READY,
                )
                account = gr.HTML("", elem_id="account")
        gr.HTML(static_html(lambda: html.banner(config, reason)), elem_id="banner")
        with gr.Row():
            with gr.Column(scale=5, min_width=320, elem_id="fields"):
                fields = form(config)
                foot = bar()
            with gr.Column(scale=6, min_width=320, elem_id="result"):
                live, shown, actions, gallery, picked = _result(foot)
        offered = examples.offered(config)
        gr.HTML(static_html(lambda: html.heading(Text("Tips")) + html.tips(TIPS[config.examples])))
        gr.HTML(static_html(lambda: pieces.words(fields.inputs)), visible="hidden", elem_id="words")
        gr.HTML(static_html(pieces.drop_zones), elem_id="drop")
        # Ids live in the page, not in the server's memory of the tab: one that slept for an hour still knows them.
        tab = gr.HTML("", visible="hidden", elem_id="tab")
        submitted = gr.HTML("", visible="hidden", elem_id="submitted")
        inputs = fields.inputs
        controls = Controls(
            generate=foot.generate,
            tab=tab,
            submitted=submitted,
            model_state=model_state,
            account=account,
            timer=gr.Timer(TICK_SECONDS),
            form=fields,
        )
        _wire_jobs(page, JobEvents(calls), inputs, live, shown, controls)
        images_changed = _wire_inputs(page, InputEvents(calls), inputs, foot.message, controls)
        examples.wire(page, examples.ExampleEvents(config), offered, inputs, shown.picture)
        wire_compare(CompareEvents(calls), actions.compare, shown.picture_id, shown.message)
        _wire_pictures(page, PictureEvents(calls), inputs, live, shown, controls, actions, gallery)
        wire_gallery(page, GalleryEvents(calls), gallery, live.arrived, shown, picked)
        wire_prompts(GalleryEvents(calls), *fields.earlier, inputs.prompt)
        wire_presets(PresetEvents(calls), fields.presets, inputs)
        wire(FormEvents(calls), fields, foot)
        styles.wire(page, calls, fields.styles, inputs, images_changed)
        offer(calls, inputs)
        translate(page)
    refuse_malformed(page)
    name_in_english(page)
    return page


def _result(bar: Bar) -> tuple[Live, Shown, Actions, Gallery, Picked]:
    """The right column: the picture, its buttons and settings, and the history."""
    with gr.Column(elem_id="stage"):
        picture = gr.Image(
            label="picture",
            show_label=False,
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id="picture",
            alt_text=Text("The generated picture"),
        )
        preview = gr.HTML("", elem_id="preview")
        compare_view()
    jobs = gr.HTML("", elem_id="jobs", js_on_load=scripts.JOBS)
    grid = gr.HTML("", elem_id="grid", js_on_load=scripts.PICK)
    facts = gr.HTML("", elem_id="facts", js_on_load=scripts.LOCAL_TIME)
    with gr.Row(elem_id="afterwards", visible=False) as row:
        download = gr.DownloadButton(Text("Download PNG"), min_width=100, elem_id="download")
        actions = Actions(
            gr.Button(Text("Repeat"), min_width=100, elem_id="reuse-all"),
            gr.Button(Text("Remix"), min_width=100, elem_id="remix"),
            gr.Button(Text("Reuse seed"), min_width=100, elem_id="reuse-seed"),
            gr.Button(Text("Use as content"), min_width=100, elem_id="use-content"),
            gr.Button(Text("Use as style"), min_width=100, elem_id="use-style"),
            compare_buttons(),
        )
        picked = picture_buttons()
    with gr.Accordion(Text("Settings of this picture"), open=False, visible=False, elem_id="settings-frame") as frame:
        settings = gr.HTML("", elem_id="settings")
    gallery = gallery_parts()
    picture_id = gr.HTML("", visible="hidden", elem_id="picture-id", js_on_load=scripts.MARK)
    arrived = gr.HTML("", visible="hidden", elem_id="arrived", js_on_load=scripts.ARRIVED)
    live = Live(jobs=jobs, preview=preview, status=bar.status, stop=bar.stop, arrived=arrived)
    shown = Shown(
        picture=picture,
        message=bar.message,
        grid=grid,
        facts=facts,
        actions=row,
        download=download,
        before=actions.compare.before,
        settings=settings,
        settings_frame=frame,
        picture_id=picture_id,
    )
    return live, shown, actions, gallery, picked


# Which event each control triggers. `preprocess=False`: values arrive raw, so people read our messages, not Gradio's.


def _wire_jobs(
    page: gr.Blocks, events: JobEvents, inputs: Inputs, live: Live, shown: Shown, controls: Controls
) -> None:
    """Generate, the stream that follows the tab's jobs, Stop, and the model's state."""
    tab, submitted = controls.tab, controls.submitted
    gr.on(
        [controls.generate.click, inputs.prompt.submit],
        plain_errors(events.submit),
        [tab, *inputs],
        [shown.message, submitted],
        js=scripts.GENERATE,
        preprocess=False,
        trigger_mode="multiple",
        **AT_ONCE,
    )
    gr.on(
        [page.load, submitted.change],
        plain_errors(events.watch),
        [tab, submitted],
        list(live),
        js=scripts.WITH_TAB,
        concurrency_limit=None,
        trigger_mode="always_last",  # a job that is made while the stream ends is not missed
        **PRIVATE,
    ).failure(events.unlock, None, list(live), **AT_ONCE)
    stop: dict[str, Any] = {"trigger_mode": "multiple", **AT_ONCE}  # several requests, one right after the other
    live.stop.click(plain_errors(events.stop), [tab], None, js=scripts.WITH_TAB, **stop)
    live.jobs.select(plain_errors(events.stop_one), None, None, **stop)
    gr.on(
        [page.load, controls.timer.tick, shown.picture_id.change],  # a picture may be done before the next tick
        plain_errors(events.tick),
        None,
        [controls.model_state, controls.generate, controls.timer],
        **AT_ONCE,
    )


def _wire_inputs(page: gr.Blocks, events: InputEvents, inputs: Inputs, message: gr.HTML, controls: Controls) -> Any:
    """What fills the fields in, checks them, and keeps them over a reload; returns the call that follows a change of
    images.

    All other calls that such a change needs follow that one: where two of the mode "always_last" hear the same event,
    Gradio repeats the event for each that was put off, so both go on for ever.
    """
    form = controls.form
    references = [inputs.content_image, inputs.style_image, inputs.extra_style_image]
    checked = [*references, inputs.keep_input_size]
    images_changed = gr.on(
        [field.change for field in checked],
        plain_errors(events.check_images),
        checked,
        [form.note, inputs.width, inputs.height, message, *references],
        preprocess=False,
        trigger_mode="always_last",
        **AT_ONCE,
    )
    renditions = gr.Textbox(label="renditions", visible="hidden", elem_id="renditions")
    images_changed.then(
        plain_errors(events.renditions),
        references,
        renditions,
        preprocess=False,
        trigger_mode="always_last",
        **AT_ONCE,
    )
    renditions.change(None, [renditions, *references], references, js=scripts.SHOW_RENDITIONS)
    gr.on(
        [form.file.upload, form.file.clear],
        plain_errors(events.restore),
        [form.file, *inputs],
        [form.restored, *inputs],
        preprocess=False,
        js=scripts.FILLING,
        trigger_mode="always_last",  # the next file comes while the server is told that the one before is taken out
        **AT_ONCE,
    ).success(None, [form.restored, *inputs], None, js=scripts.FILLED_OR_REFUSED)
    typed = [inputs.prompt, inputs.width, inputs.height, inputs.num_inference_steps, inputs.content_size, inputs.seed]
    typed += [inputs.num_images, inputs.style_strength, inputs.extra_style_strength]
    if events.config.guidance:
        typed.append(inputs.guidance_scale)
    key = f"uso-draft-{events.config.name}"
    page.load(None, typed, typed, js=scripts.recall_draft(key))
    gr.on([field.change for field in typed], None, typed, None, js=scripts.keep_draft(key))
    page.load(
        plain_errors(events.recall),
        checked,
        [message, *checked],
        js=scripts.recall_images(key),
        preprocess=False,
        **AT_ONCE,
    ).then(None, checked, None, js=scripts.begin_images(key))
    gr.on([field.change for field in checked], None, checked, None, js=scripts.keep_images(key))
    return images_changed


def _wire_pictures(
    page: gr.Blocks,
    events: PictureEvents,
    inputs: Inputs,
    live: Live,
    shown: Shown,
    controls: Controls,
    actions: Actions,
    gallery: Gallery,
) -> None:
    """Clicks on pictures, the pictures that arrive, and the buttons under a picture."""
    message, which, advanced = shown.message, shown.picture_id, controls.form.advanced
    page.load(plain_errors(events.arrive), None, controls.account, **AT_ONCE)
    # What comes during an answer is not missed; a call that Gradio defers would lose which picture it is about.
    latest: dict[str, Any] = {"trigger_mode": "multiple", **AT_ONCE}
    live.arrived.select(plain_errors(events.show), [controls.tab], list(shown), js=scripts.WITH_TAB, **latest)
    chosen = [gallery.listed.tiles.select, shown.grid.select]
    gr.on(chosen, None, None, None, js=scripts.SHOW_RESULT)
    gr.on(chosen, plain_errors(events.select), None, list(shown), **latest).then(None, None, None, js=scripts.OPENED)
    for button, event in ((actions.repeat, events.repeat), (actions.remix, events.remix)):
        button.click(
            plain_errors(event),
            [which, *inputs],
            [message, advanced, *inputs],
            js=scripts.FILLING,
            preprocess=False,
            **AT_ONCE,
        ).success(None, [message, *inputs], None, js=scripts.FILLED_OR_REFUSED)
    actions.reuse_seed.click(plain_errors(events.reuse_seed), [which], [message, inputs.seed, advanced], **AT_ONCE)
    actions.as_content.click(plain_errors(events.as_content), [which], [message, inputs.content_image], **AT_ONCE)
    styles = [inputs.style_image, inputs.extra_style_image]
    actions.as_style.click(
        plain_errors(events.as_style), [which, *styles], [message, *styles], preprocess=False, **AT_ONCE
    )
