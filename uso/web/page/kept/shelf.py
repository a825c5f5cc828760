"""The shelf of saved styles as HTML, and which of them a field holds. Every text that comes in is escaped."""

from collections.abc import Sequence
from html import escape
from typing import Any

from uso.errors import ImageError
from uso.language import tr
from uso.request.references import STYLE_SUFFIX, SavedStyle
from uso.web.api.files import upload_path, uploaded
from uso.web.page.html import webp
from uso.web.store.styles import OnShelf

PICK_STYLE = """
element.addEventListener('click', ({ target }) => {
  const { style, manage } = target.closest('[data-style], [data-manage]')?.dataset ?? {}
  if (style) trigger('select', { style })
  if (manage) trigger('edit', { style: manage })
})
watch('value', () => window.uso?.styles?.mark())
"""
"""For the shelf: a click on a style asks the server for it, one on its other button chooses it."""


def shelf(styles: Sequence[OnShelf]) -> str:
    """The styles as buttons, one's own first. The browser marks those that the fields hold (`static/styles.js`)."""
    words = tr("None yet. Choose a style image, give it a name and save it.")
    if styles:
        words = tr("Click one to use it, or its ⋯ to rename, delete or export it.")
    parts = [f'<p class="uso-quiet">{escape(words)}</p>']
    for own, title in ((True, tr("Yours")), (False, tr("For everybody"))):
        tiles = "".join(_tile(style) for style in styles if style.own == own)
        if tiles:
            name = escape(title)
            parts.append(
                f'<p class="uso-styles-title">{name}</p><ul class="uso-styles" aria-label="{name}">{tiles}</ul>'
            )
    return "".join(parts)


def _tile(style: OnShelf) -> str:
    head, key = style.entry.head, escape(style.key)
    title = escape(head.title)
    strength = "" if head.strength == 1 else f" · {head.strength:g}"
    label = escape(tr("Use the style “{}”", head.title))
    words = tr("Rename, delete or export “{}”", head.title) if style.own else tr("Export “{}”", head.title)
    manage = f'data-manage="{key}" aria-label="{escape(words)}" title="{escape(words)}"'
    return (
        f'<li><button type="button" data-style="{key}" data-name="{title}" aria-label="{label}" title="{label}">'
        f'<img src="{webp(style.entry.thumbnail)}" alt=""><span>{title}{strength}</span></button>'
        f'<button type="button" {manage}></button></li>'
    )


def is_style_file(value: Any) -> bool:
    """Whether a field's raw value is a saved style by its name, and no picture."""
    path = upload_path(value)
    return path is not None and path.suffix == STYLE_SUFFIX


def key_of(value: Any, styles: Sequence[OnShelf]) -> str:
    """Key of the style that a field holds; empty if it holds none of these. A style that was renamed since is still the
    same; of several that are alike it is the one of that name.

    Args:
        value: of the field, raw.
    """
    if not is_style_file(value):
        return ""
    try:
        held = uploaded(value)
    except ImageError:
        return ""
    if not isinstance(held, SavedStyle):
        return ""
    alike = [one for one in styles if _look(one) == (held.thumbnail, held.head.weights, held.head.projector)]
    named = [one for one in alike if one.entry.head.title == held.head.title]
    return next((one.key for one in (*named, *alike)), "")


def _look(style: OnShelf) -> tuple[bytes, tuple[float, ...], str]:
    return style.entry.thumbnail, style.entry.head.weights, style.entry.head.projector
