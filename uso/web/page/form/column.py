"""The left column: its components, and which event of `events.py` each one triggers; and the bar below it."""

import json
from typing import NamedTuple

import gradio as gr

from uso.config import ModelConfig
from uso.language import Text
from uso.request.modes import NOTHING
from uso.web.api.calls import Inputs
from uso.web.api.handlers import AT_ONCE, plain_errors
from uso.web.page import html, scripts
from uso.web.page.form import pieces
from uso.web.page.form.events import FormEvents
from uso.web.page.inputs import (
    Size,
    advanced_fields,
    number_field,
    prompt_field,
    reference_field,
    seed_fields,
    size_fields,
    strength_fields,
)
from uso.web.page.kept.gallery import earlier_prompts
from uso.web.page.kept.presets import Presets, preset_parts
from uso.web.page.labels import static_html
from uso.web.page.styles import Panel, panel
from uso.web.page.texts import PASTE, REFERENCE_HINTS, RESTORE


class Form(NamedTuple):
    """What stands around the `Inputs` in the left column."""

    inputs: Inputs
    filled: gr.HTML
    """Says what has just been filled in."""
    tokens: gr.HTML
    look: gr.HTML
    """The dialog in which a reference is looked at."""
    place: gr.HTML
    """Hears of a picture of the page that was dragged to a reference."""
    lenses: list[gr.Button]
    """The buttons that open it, one for each reference."""
    note: gr.HTML
    size: Size
    random: gr.Checkbox
    advanced: gr.Accordion
    file: gr.File
    restored: gr.HTML
    styles: Panel
    earlier: tuple[gr.Accordion, gr.HTML]
    """The list of earlier prompts."""
    presets: Presets


class Bar(NamedTuple):
    """What is always in sight."""

    plan: gr.HTML
    generate: gr.Button
    stop: gr.Button
    status: gr.HTML
    """What the requests do."""
    message: gr.HTML
    """What a click has done, or why not."""


def form(config: ModelConfig) -> Form:
    """The inputs, the advanced ones folded."""
    filled = gr.HTML(
        static_html(lambda: pieces.notice(("generate", Text("Generate now")), ("close", Text("Close")))),
        elem_id="filled",
    )
    with gr.Group(elem_id="prompt-frame"):
        prompt = prompt_field()
        tokens = gr.HTML("", elem_id="tokens")
    earlier = earlier_prompts()
    references: list[gr.Image] = []
    lenses: list[gr.Button] = []
    with gr.Row(elem_id="references"):
        for elem_id, hint in REFERENCE_HINTS.items():
            with gr.Column(min_width=80, elem_classes="uso-reference"):
                references.append(reference_field(elem_id, hint))
                lenses.append(gr.Button(Text("As the model sees it"), size="sm", elem_id=f"look-at-{elem_id}"))
    gr.HTML(static_html(lambda: html.note(PASTE)), elem_id="paste-hint")
    strengths = strength_fields()
    styles = panel()
    gr.HTML(
        static_html(lambda: pieces.notice(("restore", Text("Restore its settings")), ("close", Text("Close")))),
        elem_id="offer",
    )
    note = gr.HTML("", elem_id="note")
    size = size_fields(config)
    number = number_field()
    with gr.Accordion(Text("Advanced"), open=False, elem_id="advanced") as advanced:
        advanced_inputs = advanced_fields(config)
        with gr.Row(elem_id="seed-row"):
            seed, random = seed_fields()
        gr.HTML("", elem_id="last-seed")
    presets = preset_parts()
    with gr.Accordion(Text("Restore from a picture"), open=False, elem_id="restore-frame"):
        gr.HTML(static_html(lambda: html.note(RESTORE)))
        file = gr.File(
            label=Text("A PNG made with USO"), file_types=[".png"], height=120, elem_id="restore", buttons=[]
        )
        restored = gr.HTML("", elem_id="restored", js_on_load=scripts.LIVE)
    look = gr.HTML("", elem_id="look", js_on_load=scripts.OPEN_LOOK)
    place = gr.HTML("", visible="hidden", elem_id="place", js_on_load=scripts.PLACE)
    content, style, extra_style = references
    inputs = Inputs(
        prompt,
        content,
        style,
        extra_style,
        size.width,
        size.height,
        size.keep,
        *advanced_inputs,
        seed,
        number,
        *strengths,
    )
    return Form(
        inputs,
        filled,
        tokens,
        look,
        place,
        lenses,
        note,
        size,
        random,
        advanced,
        file,
        restored,
        styles,
        earlier,
        presets,
    )


def bar() -> Bar:
    """Generate, Stop, what will be made and what is going on. After the inputs, wherever it is on the screen."""
    with gr.Column(elem_id="bar"):
        plan = gr.HTML(
            static_html(lambda: pieces.plan(NOTHING.plan, None)), elem_id="plan", js_on_load=scripts.DESCRIBE
        )
        with gr.Row(elem_id="actions"):
            generate = gr.Button(Text("Generate"), variant="primary", scale=3, min_width=120, elem_id="generate")
            stop = gr.Button(
                Text("Stop"), variant="secondary", scale=1, min_width=80, interactive=False, elem_id="stop"
            )
        status = gr.HTML(static_html(html.nothing_yet), elem_id="status", js_on_load=scripts.LIVE)
        message = gr.HTML("", elem_id="message", js_on_load=scripts.LIVE)
    return Bar(plan, generate, stop, status, message)


def wire(events: FormEvents, form: Form, bar: Bar) -> None:
    """What follows from the fields: the plan, the shapes, the seed's switch, the looks at references."""
    inputs = form.inputs
    described = [inputs.prompt, *inputs.images, inputs.seed, inputs.style_strength, inputs.extra_style_strength]
    gr.on([field.change for field in described], None, None, None, js="() => window.uso?.describe?.()")
    bar.plan.select(
        plain_errors(events.describe),
        list(inputs),
        [bar.plan, form.tokens],
        preprocess=False,
        trigger_mode="always_last",
        **AT_ONCE,
    ).then(None, None, None, js="() => window.uso?.described?.()")
    for lens, field, value in zip(form.lenses, REFERENCE_HINTS, inputs.images, strict=True):
        lens.click(
            plain_errors(events.viewer(field)), [value, inputs.content_size], form.look, preprocess=False, **AT_ONCE
        )
    form.place.select(plain_errors(events.place), None, [bar.message, *inputs.images], **AT_ONCE)
    _wire_size(form.size)
    form.random.input(
        None, [form.random, inputs.seed], [inputs.seed], js="(random, seed) => window.uso?.switchSeed?.(random) ?? seed"
    )
    inputs.seed.change(None, [inputs.seed], [form.random], js="seed => window.uso?.isRandom?.(seed) ?? seed === -1")


def _wire_size(size: Size) -> None:
    """The shapes, the swap, and the sliders while "Keep input size" is on."""
    sides, keep, aspect = [size.width, size.height], size.keep, size.aspect
    own = "(keep, width, height) => window.uso?.ownSize?.(keep, width, height) ?? [width, height]"
    keep.change(None, [keep, *sides], sides, js=own)
    size.swap.click(None, sides, sides, js="(width, height) => [height, width]")
    aspect.input(None, [aspect], sides, js="shape => shape.split('x').map(Number)")
    known = json.dumps([value for _, value in aspect.choices])
    shown = f"{known}.find(size => size === `${{width}}x${{height}}`) ?? null"
    shown = f"(width, height) => {{ window.uso?.noteSize?.(width, height); return {shown} }}"
    gr.on([side.change for side in sides], None, sides, [aspect], js=shown)
