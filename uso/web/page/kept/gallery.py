""" "Your pictures": the components, and the event that each one triggers. `static/gallery.js` is their part in the
browser; the list of earlier prompts is here too."""

from typing import NamedTuple

import gradio as gr

from uso.language import Text
from uso.web.api.handlers import AT_ONCE, plain_errors
from uso.web.page import scripts
from uso.web.page.events.pictures import Shown
from uso.web.page.kept import tiles
from uso.web.page.kept.events import GalleryEvents, Listed
from uso.web.page.labels import static_html
from uso.web.store import archive

LISTEN = """
document.addEventListener('uso-gallery', ({ detail }) => trigger(detail.name, detail.data))
watch('value', () => window.uso?.gallery?.renewed())
"""
"""For the list: what the browser's part wants the server to do, and what it does with another list."""


def _tell(function: str) -> str:
    """For a field that nobody sees: its content is for a function of the browser's part."""
    return f"watch('value', () => window.uso?.gallery?.{function}(element))"


def _call(function: str, argument: str = "") -> str:
    return f"() => window.uso.gallery.{function}({argument})"


SHOW_ALL = """() => {
  document.querySelector('#gallery-search :is(input, textarea)').focus()
  return ['', false]
}"""
"""Ends a search; its button goes with it."""


class Gallery(NamedTuple):
    """The components that events read or change."""

    search: gr.Textbox
    everything: gr.Button
    """Ends the search."""
    only: gr.Checkbox
    listed: Listed
    gone: gr.HTML
    starred: gr.HTML
    anchors: gr.Textbox
    choose: gr.Button
    buttons: dict[str, gr.Button]
    """Of what is chosen, by what they do."""


class Picked(NamedTuple):
    """The buttons under the picture that is shown."""

    favourite: gr.Button
    delete: gr.Button


def gallery_parts() -> Gallery:
    with gr.Column(elem_id="history"):
        head = gr.HTML("", elem_id="gallery-head")
        with gr.Row(visible=False, elem_id="gallery-tools") as tools:
            search = gr.Textbox(
                label=Text("Search"),
                placeholder=Text("Words of the prompt, names of references"),
                scale=3,
                min_width=300,
                elem_id="gallery-search",
            )
            choose = gr.Button(Text("Select"), scale=1, min_width=90, elem_id="gallery-choose")
            only = gr.Checkbox(label=Text("Favourites only"), scale=1, min_width=160, elem_id="gallery-favourites")
        with gr.Row(visible=False, elem_id="gallery-filter") as found:
            matches = gr.HTML("", elem_id="gallery-matches", js_on_load=scripts.LIVE)
            everything = gr.Button(Text("Show all"), size="sm", min_width=90, scale=0, elem_id="gallery-show-all")
        with gr.Column(elem_id="gallery-chosen"):
            gr.HTML(static_html(lambda: tiles.chosen(archive.MOST)), elem_id="gallery-count")
            with gr.Row():
                names = {
                    "all": Text("Select all"),
                    "zip": Text("Download zip"),
                    "delete": Text("Delete"),
                    "everything": Text("Delete all ..."),
                }
                buttons = {
                    name: gr.Button(text, min_width=90, elem_id=f"gallery-{name}") for name, text in names.items()
                }
        listed = gr.HTML("", elem_id="gallery", js_on_load=LISTEN)
        more = gr.Button(Text("Show more"), visible=False, elem_id="gallery-more")
        gr.HTML(static_html(tiles.confirm), elem_id="confirm")
        extra, gone, starred = (
            gr.HTML("", visible="hidden", elem_id=f"gallery-{name}", js_on_load=_tell(name))
            for name in ("extra", "gone", "starred")
        )
        anchors = gr.Textbox(label="anchors", visible="hidden", elem_id="gallery-anchors")
    parts = Listed(head=head, tools=tools, tiles=listed, extra=extra, more=more, filter=found, matches=matches)
    return Gallery(search, everything, only, parts, gone, starred, anchors, choose, buttons)


def picture_buttons() -> Picked:
    return Picked(
        gr.Button(Text("Favourite"), min_width=100, elem_id="favourite"),
        gr.Button(Text("Delete"), min_width=100, elem_id="delete-picture"),
    )


def earlier_prompts() -> tuple[gr.Accordion, gr.HTML]:
    with gr.Accordion(Text("Earlier prompts"), open=False, elem_id="prompts-frame") as frame:
        script = "element.addEventListener('click', ({ target }) => {"
        script += " const one = target.closest('[data-prompt]'); if (one) trigger('select', one.dataset) })"
        prompts = gr.HTML("", elem_id="prompts", js_on_load=script)
    return frame, prompts


def wire_gallery(
    page: gr.Blocks, events: GalleryEvents, gallery: Gallery, arrived: gr.HTML, shown: Shown, picked: Picked
) -> None:
    """
    Args:
        arrived: id of the newest picture.
    """
    which, listed = shown.picture_id, list(gallery.listed)
    asked = [gallery.search, gallery.only, which]
    page.load(plain_errors(events.first), asked, listed, **AT_ONCE)
    gr.on(
        [gallery.search.change, gallery.only.change],
        plain_errors(events.first),
        asked,
        listed,
        trigger_mode="always_last",
        **AT_ONCE,
    )
    gallery.everything.click(None, None, [gallery.search, gallery.only], js=SHOW_ALL)
    for trigger, function, values, end in (
        (arrived.change, events.newest, [*asked, arrived], "top"),
        (gallery.listed.more.click, events.more, asked, "last"),
    ):
        place = f"(...values) => [...values.slice(0, -1), window.uso.gallery.{end}()]"
        trigger(plain_errors(function), [*values, gallery.anchors], listed, js=place, **AT_ONCE)
    which.change(plain_errors(events.look), [which], picked.favourite, **AT_ONCE)
    marked = [picked.favourite, gallery.starred]
    gallery.listed.tiles.like(plain_errors(events.star), [which], marked, **AT_ONCE)
    picked.favourite.click(plain_errors(events.favourite), [which], marked, **AT_ONCE)
    gallery.listed.tiles.delete(plain_errors(events.delete), asked, [*shown, *listed, gallery.gone], **AT_ONCE)
    picked.delete.click(None, None, None, js=_call("ask", "'shown'"))
    gallery.choose.click(None, None, None, js=_call("choose"))
    for name, script in (
        ("all", _call("all")),
        ("zip", _call("zip")),
        ("delete", _call("ask", "'chosen'")),
        ("everything", _call("ask", "'all'")),
    ):
        gallery.buttons[name].click(None, None, None, js=script)


def wire_prompts(events: GalleryEvents, frame: gr.Accordion, prompts: gr.HTML, prompt: gr.Textbox) -> None:
    frame.expand(plain_errors(events.prompts), None, prompts, **AT_ONCE)
    prompts.select(plain_errors(events.pick_prompt), None, [prompt, frame], **AT_ONCE).then(
        None, None, None, js="() => document.querySelector('#prompt textarea').focus()"
    )
