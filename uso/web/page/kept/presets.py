"""Presets: the fields of the page under a name, on the page. They hold no images (`uso/web/store/presets.py`).

Each person has their own, on the server, found by login or cookie as the history is. A browser that keeps no cookies
can still export and import files.
"""

import asyncio
import time
from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from uso.errors import RequestError
from uso.language import Text, joined, text_of
from uso.web.access.identity import asker_of
from uso.web.access.limits import Window, duration
from uso.web.api.calls import Calls, Inputs
from uso.web.api.files import upload_path
from uso.web.api.handlers import AT_ONCE, plain_errors
from uso.web.page import html, scripts
from uso.web.page.inputs import KEEP, UNCHANGED
from uso.web.page.restore import field_values
from uso.web.store import presets

NAMES = [name for name in Inputs._fields if not name.endswith("_image")]
"""The fields that a preset holds."""

MOST_SAVED, SAVED_SECONDS = 60, 600.0
"""Presets that one person may save in ten minutes, imported ones too."""


FORGIVE_TYPED = f"said => document.activeElement?.closest('#preset-name') ? ({scripts.FORGIVE})(said) : said"
"""Not for a name that comes with a preset: what does not fit in it is told at the same time."""

CONFIRM = """async name => {
  if (!name) return name
  return (await window.uso.confirmed('delete-preset', 'with-preset', { name })) && name
}"""

DELIVER = "watch('value', () => window.uso?.deliver(element))"


class Presets(NamedTuple):
    """The components."""

    frame: gr.Accordion
    choice: gr.Dropdown
    name: gr.Textbox
    note: gr.HTML
    file: gr.HTML
    """A file on its way to the browser's downloads."""
    save: gr.Button
    rename: gr.Button
    delete: gr.Button
    export: gr.Button
    bring: gr.UploadButton


class Changed(NamedTuple):
    """What an event changes: the list, the name, the note, and the fields."""

    choice: Any = KEEP
    name: Any = KEEP
    note: Any = KEEP
    inputs: Inputs = UNCHANGED

    @property
    def flat(self) -> tuple[Any, ...]:
        return self.choice, self.name, self.note, *self.inputs


class PresetEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.config = calls.config
        self.ledger = calls.ledger
        self._saved = Window(MOST_SAVED, SAVED_SECONDS)

    async def unfold(self, request: gr.Request) -> Any:
        """The names, when the frame is unfolded."""
        return await asyncio.to_thread(self._list, asker_of(request).owner, KEEP)

    async def pick(self, name: Any, request: gr.Request, *_held: Any) -> tuple[Any, ...]:
        """Fill a preset's values in, whatever the fields held."""
        if not name:
            return Changed(note="").flat
        owner = asker_of(request).owner
        return await self._answer(request, lambda: self._filled(name, presets.preset(self.ledger, owner, name)))

    async def save(self, name: Any, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        """Keep the fields under the name."""
        owner = asker_of(request).owner

        def save() -> Changed:
            before = presets.presets(self.ledger, owner)
            kept = presets.save(self.ledger, owner, name, self._fields(values))
            said = (
                Text("“{}” was there already. It is replaced.", kept)
                if kept in before
                else Text("“{}” is saved.", kept)
            )
            return Changed(self._list(owner, kept), kept, html.note(said))

        return await self._answer(request, save, saves=True)

    async def rename(self, picked: Any, name: Any, request: gr.Request) -> tuple[Any, ...]:
        """Give the preset that is picked the name in the field."""
        owner = asker_of(request).owner

        def rename() -> Changed:
            new = presets.rename(self.ledger, owner, picked, name)
            return Changed(self._list(owner, new), new, html.note(Text("“{}” is now “{}”.", picked, new)))

        return await self._answer(request, rename)

    async def delete(self, picked: Any, request: gr.Request) -> tuple[Any, ...]:
        """Delete the preset that is picked; False: the browser has asked, and it stays. The fields stay as they are."""
        if picked is False:
            return Changed().flat
        owner = asker_of(request).owner

        def delete() -> Changed:
            presets.delete(self.ledger, owner, picked)
            return Changed(
                self._list(owner, None), KEEP, html.note(Text("“{}” is deleted. The fields are as they were.", picked))
            )

        return await self._answer(request, delete)

    def export(self, name: Any, *values: Any) -> tuple[str, str]:
        """The fields as a file: (note, file)."""
        try:
            if not isinstance(name, str) or not name.strip():
                raise RequestError(Text("Choose a preset first, or type a name for these settings."))
            text = presets.to_file(name, self._fields(values))
        except RequestError as error:
            return html.note(text_of(error), bad=True), ""
        return "", _delivery(f"{name}.json", text)

    async def bring(self, file: Any, request: gr.Request) -> tuple[Any, ...]:
        """A file that somebody chose: kept under its name, or the next that is free, and filled in."""
        owner = asker_of(request).owner

        def bring() -> Changed:
            path = upload_path(file[0] if isinstance(file, list) and file else file)
            if path is None:
                raise RequestError(Text("Choose the file of a preset."))
            with path.open("rb") as opened:
                name, fields = presets.from_file(opened.read(2 * presets.MAX_BYTES + 1))
            fields = {one: value for one, value in fields.items() if one in NAMES}
            if owner is None:
                return self._filled(name, fields)
            name = presets.save(self.ledger, owner, presets.free_name(self.ledger, owner, name), fields)
            return self._filled(name, fields)._replace(choice=self._list(owner, name))

        return await self._answer(request, bring, saves=True)

    async def _answer(self, request: gr.Request, change: Callable[[], Changed], saves: bool = False) -> tuple[Any, ...]:
        """What an event changes, made in a thread; a refusal becomes the note."""
        person = asker_of(request).person
        if saves and (wait := self._saved.take(person)):
            limit = Text(
                "At most {} presets in {} are taken from one person. Try again in {}.",
                MOST_SAVED,
                duration(SAVED_SECONDS),
                duration(wait),
            )
            return Changed(note=html.note(limit, bad=True)).flat
        try:
            return (await asyncio.to_thread(change)).flat
        except RequestError as error:
            return Changed(note=html.note(text_of(error), bad=True)).flat
        except OSError:
            gone = Text("The file is no longer on the server. Choose it again.")
            return Changed(note=html.note(gone, bad=True)).flat

    def _list(self, owner: str | None, picked: Any) -> Any:
        names = list(presets.presets(self.ledger, owner))
        return gr.update(choices=names) if picked is KEEP else gr.update(choices=names, value=picked)

    def _filled(self, name: str, fields: presets.Fields) -> Changed:
        remarks: list[str] = []
        inputs = field_values(self.config, fields, remarks)
        note = html.note(joined(Text("“{}” is filled in.", name), *remarks), bad=bool(remarks))
        return Changed(name=name, note=note, inputs=inputs)

    def _fields(self, values: tuple[Any, ...]) -> presets.Fields:
        """The fields' values, held to what the model takes.

        Raises:
            RequestError: one is refused, in a sentence.
        """
        fields = {name: value for name, value in zip(NAMES, values, strict=True) if value is not None}
        remarks: list[str] = []
        field_values(self.config, fields, remarks)
        if remarks:
            raise RequestError(remarks[0])
        return fields


def _delivery(name: str, text: str) -> str:
    """For the browser: a file to download. The time makes it a new one each time."""
    return f'<i data-name="{escape(name)}" data-text="{escape(text)}" data-time="{time.time_ns()}"></i>'


def preset_parts() -> Presets:
    with gr.Accordion(Text("Presets"), open=False, elem_id="presets") as frame:
        choice = gr.Dropdown([], value=None, label=Text("Preset"), info=Text("Fills the fields in."), elem_id="preset")
        with gr.Row():
            name = gr.Textbox(
                label=Text("Preset name"),
                info=Text("Settings and prompt, without the images."),
                max_lines=1,
                max_length=presets.MAX_NAME,
                scale=3,
                elem_id="preset-name",
            )
            save = gr.Button(Text("Save"), scale=1, min_width=80, elem_id="preset-save")
        with gr.Row(elem_id="preset-buttons"):
            texts = {"rename": Text("Rename"), "delete": Text("Delete"), "export": Text("Export")}
            rename, delete, export = (
                gr.Button(text, size="sm", min_width=80, elem_id=f"preset-{name}") for name, text in texts.items()
            )
            bring = gr.UploadButton(
                Text("Import"), file_types=[".json"], size="sm", min_width=80, elem_id="preset-import"
            )
        note = gr.HTML("", elem_id="preset-note", js_on_load=scripts.LIVE)
    file = gr.HTML("", visible="hidden", elem_id="preset-file", js_on_load=DELIVER)
    return Presets(frame, choice, name, note, file, save, rename, delete, export, bring)


def wire_presets(events: PresetEvents, parts: Presets, inputs: Inputs) -> None:
    changed = [parts.choice, parts.name, parts.note, *inputs]
    fields = [getattr(inputs, name) for name in NAMES]
    raw: dict[str, Any] = {"preprocess": False, **AT_ONCE}
    parts.frame.expand(plain_errors(events.unfold), None, parts.choice, **AT_ONCE)
    parts.choice.input(plain_errors(events.pick), [parts.choice, *inputs], changed, js=scripts.FILLING, **raw).then(
        None, [parts.note, *inputs], None, js=scripts.FILLED_OR_REFUSED
    )
    parts.name.change(None, parts.note, parts.note, js=FORGIVE_TYPED)
    gr.on([parts.save.click, parts.name.submit], plain_errors(events.save), [parts.name, *fields], changed, **raw)
    parts.rename.click(plain_errors(events.rename), [parts.choice, parts.name], changed, **raw)
    asked = {"js": CONFIRM, "trigger_mode": "multiple"}  # after a no it may be pressed again at once
    parts.delete.click(plain_errors(events.delete), [parts.choice], changed, **asked, **raw)
    parts.export.click(plain_errors(events.export), [parts.name, *fields], [parts.note, parts.file], **raw)
    parts.bring.upload(plain_errors(events.bring), [parts.bring], changed, **raw)
