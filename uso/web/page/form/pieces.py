"""Pieces of HTML of the left column. Every text that comes in is escaped."""

import time
from html import escape

from uso.language import told, tr
from uso.request.modes import NOTHING
from uso.web.api.calls import Inputs
from uso.web.page.form.views import View, data_url
from uso.web.page.texts import DROP_ANYWHERE, DROP_ZONES, SCRIPT_WORDS


def words(inputs: Inputs) -> str:
    """What scripts in the browser say (`static/words.js`), where names in braces are filled in; and what each field is
    called, in the order of `Inputs`: those in folded parts of the page are not there to be read.

    Args:
        inputs: the components.
    """
    said = "".join(f'<span data-word="{name}">{escape(told(text))}</span>' for name, text in SCRIPT_WORDS.items())
    return said + "".join(f'<span data-name-of="{one.elem_id}">{escape(told(one.label))}</span>' for one in inputs)


def notice(*buttons: tuple[str, str]) -> str:
    """A line that scripts show when there is something to say, with buttons: (what it does, its words)."""
    made = "".join(f'<button type="button" data-do="{does}">{escape(told(text))}</button>' for does, text in buttons)
    return f'<div class="uso-notice" data-notice hidden><span role="status"></span><span>{made}</span></div>'


def drop_zones() -> str:
    """What lies over the page while a file is dragged over it."""
    zones = "".join(f'<div data-zone="{zone}">{escape(told(text))}</div>' for zone, text in DROP_ZONES.items())
    return f"<div data-zones hidden>{zones}<p>{escape(told(DROP_ANYWHERE))}</p></div>"


def plan(sentence: str, seed: int | None) -> str:
    """What will be made of what is there, and whether it was made before.

    Args:
        seed: the one that is filled in; None for a random one.
    """
    waits = " uso-nothing" if sentence is NOTHING.plan else ""
    again = "" if seed is None else f" <strong>{escape(tr('Seed {}, not a random one.', seed))}</strong>"
    return f'<p class="uso-plan{waits}">{escape(told(sentence))}{again}</p>'


def tokens(count: int | None, most: int) -> str:
    """How much of what the model reads a prompt takes.

    Args:
        count: None if it is not known, as while the model loads.
    """
    if count is None:
        return ""
    if count > most:
        return f'<p class="uso-tokens uso-bad">{tr("{} of {} tokens: shorten the prompt.", count, most)}</p>'
    return f'<p class="uso-tokens">{tr("{} of {} tokens", count, most)}</p>'


def look(field: str, title: str, inside: str) -> str:
    """The dialog in which a reference is looked at; `static/lens.js` opens it.

    Args:
        field: id of the reference's field.
        inside: HTML.
    """
    # The time makes it a new one each time: the browser opens what is new.
    return (
        f'<dialog class="uso-look" data-field-of="{field}" data-time="{time.time_ns()}" aria-labelledby="look-title">'
        f'<form method="dialog"><h2 id="look-title">{escape(told(title))}</h2><button>{tr("Close")}</button></form>'
        f"{inside}</dialog>"
    )


def views(given: str, view: View) -> str:
    """A reference twice: the file's own picture, which is in the browser already, and what the model sees.

    Args:
        given: a caption.
    """
    seen, url = view.image, data_url(view.image)
    return (
        f'<div class="uso-views"><figure><img data-original alt="">'
        f"<figcaption>{escape(told(given))}</figcaption></figure>"
        f'<figure><img src="{url}" width="{seen.width}" height="{seen.height}" '
        f'alt="{tr("The image as the model sees it")}">'
        f"<figcaption>{escape(tr('As the model sees it: {}', view.words))}</figcaption></figure></div>"
    )
