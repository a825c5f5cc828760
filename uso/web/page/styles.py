"""The styles that somebody has saved, and those on the shared shelf: used, saved, renamed, removed, exported, imported.

A style that is used becomes the file of a style field, like an upload. Its button beside the picture chooses it for
Rename, Delete and Export without using it. Keys of styles come from the browser and are
checked for their owner (`store/styles.py`).
"""

import asyncio
import json
from concurrent.futures import Future
from typing import Any, NamedTuple

import gradio as gr

from uso.errors import RequestError, USOError
from uso.language import Text, tr
from uso.request.references import MAX_STYLE_NAME, STYLE_SUFFIX, SavedStyle, check_style_name
from uso.web.access.identity import Asker, asker_of
from uso.web.api.calls import Calls, Inputs
from uso.web.api.files import uploaded
from uso.web.api.handlers import AT_ONCE, plain_errors
from uso.web.page import html, scripts
from uso.web.page.inputs import KEEP
from uso.web.page.kept.shelf import PICK_STYLE, is_style_file, key_of, shelf
from uso.web.page.restore import put
from uso.web.store.styles import OWN, OnShelf

WAIT_SECONDS = 45.0
"""How long a click waits for the model, which may be making a picture. Proxies give up after a minute."""


class Panel(NamedTuple):
    """The components; `Changes` has those that events change."""

    shelf: gr.HTML
    message: gr.HTML
    held: gr.Textbox
    """Keys of the styles that the fields hold, as JSON."""
    chosen: gr.HTML
    """Key of the style that was used, saved or chosen last: the one that is renamed, deleted or exported."""
    actions: gr.Row
    name: gr.Textbox
    rename: gr.Button
    delete: gr.Button
    export: gr.DownloadButton
    save: gr.Button
    file: gr.File


class Changes(NamedTuple):
    """What an event changes, in the order of `changed`."""

    message: Any = KEEP
    shelf: Any = KEEP
    chosen: Any = KEEP
    actions: Any = KEEP
    name: Any = KEEP
    rename: Any = KEEP
    delete: Any = KEEP
    export: Any = KEEP


def changes(message: str, bad: bool = False, **others: Any) -> Changes:
    """What an event changes, and says."""
    return Changes(message=html.note(message, bad=bad), **others)


def panel() -> Panel:
    """The accordion near the style fields."""
    with gr.Accordion(Text("Saved styles"), open=False, elem_id="styles"):
        tiles = gr.HTML("", elem_id="style-shelf", js_on_load=PICK_STYLE)
        message = gr.HTML("", elem_id="style-message", js_on_load=scripts.LIVE)
        held = gr.Textbox(label="held", visible="hidden", elem_id="styles-held")
        chosen = gr.HTML("", visible="hidden", elem_id="style-chosen")
        with gr.Row(elem_id="style-naming"):
            name = gr.Textbox(
                "",
                label=Text("Name of the style"),
                max_lines=1,
                max_length=MAX_STYLE_NAME,
                elem_id="style-name",
                min_width=140,
            )
            save = gr.Button(Text("Save current style"), elem_id="style-save", min_width=140)
        with gr.Row(elem_id="style-actions", visible=False) as actions:
            rename = gr.Button(Text("Rename"), elem_id="style-rename", min_width=80)
            delete = gr.Button(Text("Delete"), elem_id="style-delete", min_width=80)
            export = gr.DownloadButton(Text("Export"), elem_id="style-export", min_width=80)
        file = gr.File(
            label=Text("Import a saved style"),
            file_types=[STYLE_SUFFIX],
            height=120,
            elem_id="style-import",
            buttons=[],
        )
    return Panel(tiles, message, held, chosen, actions, name, rename, delete, export, save, file)


CONFIRM = "async (key, ...fields) => [(await window.uso.styles.confirmed(key)) ? key : '', ...fields]"


def wire(page: gr.Blocks, calls: Calls, panel: Panel, inputs: Inputs, images_changed: Any) -> None:
    """Which event each control triggers.

    Args:
        images_changed: the call that follows a change of images.
    """
    events = StyleEvents(calls)
    changed = [getattr(panel, name) for name in Changes._fields]
    styles = [inputs.style_image, inputs.extra_style_image]
    strengths = [inputs.style_strength, inputs.extra_style_strength]
    page.load(plain_errors(events.arrive), None, panel.shelf, **AT_ONCE)
    panel.shelf.select(plain_errors(events.use), styles, [*changed, *styles, *strengths], preprocess=False, **AT_ONCE)
    panel.shelf.edit(plain_errors(events.manage), None, changed, **AT_ONCE).then(
        None, None, None, js="() => window.uso.styles.reveal()"
    )
    images_changed.then(
        plain_errors(events.held),
        styles,
        panel.held,
        preprocess=False,
        trigger_mode="always_last",
        **AT_ONCE,
    )
    panel.held.change(None, panel.held, None, js="held => window.uso.styles.mark(JSON.parse(held || '[]'))")
    gr.on(
        [panel.save.click, panel.name.submit],
        plain_errors(events.save),
        [panel.name, *styles, *strengths],
        changed,
        preprocess=False,
        trigger_mode="once",
        **AT_ONCE,
    )
    gr.on([field.change for field in (panel.name, *styles)], None, panel.message, panel.message, js=scripts.FORGIVE)
    panel.rename.click(plain_errors(events.rename), [panel.chosen, panel.name], changed, **AT_ONCE)
    panel.delete.click(
        plain_errors(events.delete),
        [panel.chosen, *styles],
        [*changed, *styles],
        js=CONFIRM,
        preprocess=False,
        trigger_mode="multiple",  # after a no it may be pressed again at once
        **AT_ONCE,
    ).then(None, None, None, js="() => window.uso.styles.refocus()")
    panel.file.upload(
        plain_errors(events.bring),
        [panel.file],
        [*changed, panel.file],
        preprocess=False,
        trigger_mode="multiple",  # a second file is brought while the first one is
        **AT_ONCE,
    )


class StyleEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.shelves = calls.shelves
        self._saving: set[asyncio.Task[OnShelf]] = set()

    async def arrive(self, request: gr.Request) -> str:
        """When the page loads: all styles."""
        return await asyncio.to_thread(self._shelf, asker_of(request))

    async def use(self, style: Any, extra_style: Any, picked: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Put a style into the first free style field, or else into the first: (changes, style images, strengths)."""
        key = picked._data.get("style") if isinstance(picked._data, dict) else None
        try:
            found = await asyncio.to_thread(self.shelves.get, asker_of(request).owner, key)
            self.calls.check_style(found)
            path = await asyncio.to_thread(put, found, found.name)
            if path is None:
                raise RequestError(Text("The server's disk is full. Tell the one who runs it."))
        except RequestError as error:
            return *changes(str(error), bad=True), *[KEEP] * 4
        second = style is not None and extra_style is None
        field = tr("extra style") if second else tr("style")
        used = changes(tr("“{}” is now the {}.", found.head.title, field), **_chosen(key, found, path))
        first, other = (KEEP, found.strength) if second else (found.strength, KEEP)
        return *used, *((KEEP, path) if second else (path, KEEP)), first, other

    async def manage(self, picked: gr.EventData, request: gr.Request) -> Changes:
        """Choose a style for Rename, Delete and Export, without using it."""
        key = picked._data.get("style") if isinstance(picked._data, dict) else None
        try:
            found = await asyncio.to_thread(self.shelves.get, asker_of(request).owner, key)
        except RequestError as error:
            return changes(str(error), bad=True)
        title = found.head.title
        below = tr("“{}” can be renamed, deleted and exported below.", title)
        words = below if _is_own(key) else tr("“{}” can be exported below.", title)
        return changes(words, **_chosen(key, found, await asyncio.to_thread(put, found, found.name)))

    async def held(self, style: Any, extra_style: Any, request: gr.Request) -> str:
        """When a style field has changed: the keys of the styles in both, which the browser marks."""
        return json.dumps(await asyncio.to_thread(self._held, asker_of(request), style, extra_style))

    def _held(self, asker: Asker, *fields: Any) -> list[str]:
        """Key of the style that each field holds; empty where it holds none of the shelf's."""
        styles = self.shelves.styles(asker.owner) if any(map(is_style_file, fields)) else ()
        return [key_of(value, styles) for value in fields]

    async def save(
        self, title: Any, style: Any, extra_style: Any, strength: Any, extra_strength: Any, request: gr.Request
    ) -> Changes:
        """Keep the styles that are in the fields under a name. The model's own thread makes the tokens."""
        asker = asker_of(request)
        given = Inputs(
            style_image=style,
            extra_style_image=extra_style,
            style_strength=strength,
            extra_style_strength=extra_strength,
        )
        try:
            images, strengths, title = await self.calls.read(request, self._checked, asker, title, given)
            if isinstance(images[0], SavedStyle):
                made = images[0].renamed(title, strengths[0])
                return await self._kept(asker, await asyncio.to_thread(self.shelves.add, asker.owner, made))
            single = len(images) == 1
            strength, weights = (strengths[0], None) if single else (1.0, strengths)
            asked = self.calls.queue.ask(
                lambda model: model.save_style(images, title, strength=strength, weights=weights), asker
            )
            saving = asyncio.create_task(self._save(asker, asked))
            self._saving.add(saving)
            saving.add_done_callback(self._saving.discard)
            kept = await asyncio.wait_for(asyncio.shield(saving), WAIT_SECONDS)
        except USOError as error:
            return changes(str(error), bad=True)
        except TimeoutError:
            return changes(tr("The model is busy. “{}” is saved after the next picture.", title))
        return await self._kept(asker, kept)

    async def _save(self, asker: Asker, asked: "Future[SavedStyle]") -> OnShelf:
        """Keep a style when the model has made it, however long that takes."""
        return await asyncio.to_thread(self.shelves.add, asker.owner, await asyncio.wrap_future(asked))

    def _checked(self, asker: Asker, title: Any, given: Inputs) -> tuple[list[Any], list[float], str]:
        """(images, their strengths, the name), so that nothing is refused after the model has worked."""
        title = check_style_name(title)
        self.shelves.check_new(asker.owner, title)
        found = [uploaded(value, self.calls.max_pixels) for value in (given.style_image, given.extra_style_image)]
        pairs = [
            (image, size) for image, size in zip(found, given.strengths, strict=True) if image is not None and size
        ]
        if not pairs:
            raise RequestError(Text("There is no style to save. Choose a style image first."))
        if len(pairs) > 1 and any(isinstance(image, SavedStyle) for image, _ in pairs):
            raise RequestError(Text("A blend is saved from images, and one of these is a saved style."))
        for image, _ in pairs:
            _ = image.image  # decoded here, where memory is bounded
        return [image for image, _ in pairs], [size for _, size in pairs], title

    async def _kept(self, asker: Asker, kept: OnShelf) -> Changes:
        style, path = await asyncio.to_thread(self._copy, asker, kept.key)
        words = tr("“{}” is saved.", kept.entry.head.title)
        return changes(words, shelf=await asyncio.to_thread(self._shelf, asker), **_chosen(kept.key, style, path))

    def _copy(self, asker: Asker, key: str) -> tuple[SavedStyle, str | None]:
        style = self.shelves.get(asker.owner, key)
        return style, put(style, style.name)

    async def rename(self, key: Any, title: Any, request: gr.Request) -> Changes:
        """Give the style that was used or saved last another name."""
        asker = asker_of(request)
        try:
            await asyncio.to_thread(self.shelves.rename, asker.owner, key, title)
        except RequestError as error:
            return changes(str(error), bad=True)
        return changes(
            tr("The style is now called “{}”.", title.strip()),
            shelf=await asyncio.to_thread(self._shelf, asker),
            export=gr.update(value=(await asyncio.to_thread(self._copy, asker, key))[1]),
        )

    async def delete(self, key: Any, style: Any, extra_style: Any, request: gr.Request) -> tuple[Any, ...]:
        """Remove the style that is chosen, after the browser has asked, from the shelf and from the fields: (changes,
        style images). No key: it stays."""
        if not key:
            return *Changes(), KEEP, KEEP
        asker = asker_of(request)
        try:
            held = await asyncio.to_thread(self._held, asker, style, extra_style)
            await asyncio.to_thread(self.shelves.delete, asker.owner, key)
        except RequestError as error:
            return *changes(str(error), bad=True), KEEP, KEEP
        gone = changes(
            tr("The style is deleted."),
            shelf=await asyncio.to_thread(self._shelf, asker),
            chosen="",
            actions=gr.update(visible=False),
            name="",
        )
        return *gone, *(None if one == key else KEEP for one in held)

    async def bring(self, file: Any, request: gr.Request) -> tuple[Any, ...]:
        """Keep a style from a file: (changes, the file's field)."""
        asker = asker_of(request)
        try:
            style = await self.calls.read(request, self._brought, file)
            kept = await asyncio.to_thread(self.shelves.add, asker.owner, style)
        except RequestError as error:
            return *changes(str(error), bad=True), None
        return *await self._kept(asker, kept), None

    def _brought(self, file: Any) -> SavedStyle:
        style = uploaded(file, self.calls.max_pixels)
        if not isinstance(style, SavedStyle):
            raise RequestError(Text("This is no saved style. Choose a file that was exported here, or an image above."))
        self.calls.check_style(style)
        return style

    def _shelf(self, asker: Asker) -> str:
        return shelf(self.shelves.styles(asker.owner))


def _chosen(key: Any, style: SavedStyle, path: str | None) -> dict[str, Any]:
    """What changes when a style is the one that is renamed, deleted or exported.

    Args:
        path: its file among the uploads.
    """
    own = gr.update(interactive=_is_own(key))
    return {
        "chosen": key,
        "actions": gr.update(visible=True),
        "name": style.head.title,
        "rename": own,
        "delete": own,
        "export": gr.update(value=path),
    }


def _is_own(key: Any) -> bool:
    return str(key).startswith(f"{OWN}:")
