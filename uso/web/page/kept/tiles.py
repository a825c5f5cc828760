"""HTML of the pictures and prompts that somebody keeps. Every text that comes in is escaped."""

import time
from collections.abc import Iterable, Sequence
from html import escape

from uso.language import Text, joined, told, tr
from uso.web.page.html import CAPTION, heading, webp
from uso.web.store.ledger import Remembered


def confirm() -> str:
    """Asks before anything is deleted: pictures, a style, a preset. `static/confirm.js` fills the question in."""
    return (
        '<dialog aria-labelledby="confirm-question" aria-describedby="confirm-what">'
        '<p id="confirm-question"></p><p id="confirm-what" class="uso-quiet"></p>'
        f'<form method="dialog"><button value="no" autofocus>{tr("Cancel")}</button>'
        f'<button value="yes">{tr("Delete")}</button></form></dialog>'
    )


def chosen(most: int) -> str:
    """How many pictures are chosen, which the browser fills in.

    Args:
        most: that one zip file takes.
    """
    none = tr("Choose pictures, with Shift a whole row of them.")
    some, many = tr("{count} chosen."), tr("{count} chosen; one zip file takes at most {most}.")
    return (
        f'<p role="status" data-none="{none}" data-some="{some}" data-many="{many.replace("{most}", str(most))}" '
        f'data-most="{most}"></p>'
    )


def head(rule: str, remembers: bool, some: bool) -> str:
    """The heading of the history.

    Args:
        rule: how long pictures are kept, as a sentence; empty if for good.
        remembers: whether this browser keeps the cookie by which its pictures are found.
        some: whether there are pictures.
    """
    if not remembers:
        words = Text(
            "This browser keeps no cookies, so your pictures cannot be listed. Download those you want to keep."
        )
    elif some:
        words = Text("Newest first. Click one to see it again. Only you can see them.")
    else:
        words = Text("None yet. The pictures you make appear here. Only you can see them.")
    more = f'<p class="uso-quiet">{escape(told(rule))}</p>' if rule else ""
    if some:
        keys = tr("Keys: arrows go from picture to picture, F marks a favourite, Delete deletes.")
        more += f'<p class="uso-quiet uso-keys">{escape(keys)}</p>'
    return heading(Text("Your pictures"), words) + more


def matches(count: int, missing: bool) -> str:
    """What a search finds.

    Args:
        missing: whether a picture that has just been made is not among them.
    """
    found = Text("1 of your pictures matches.") if count == 1 else Text("{} of your pictures match.", count)
    words = found if count else Text("No picture of yours matches.")
    if missing:
        words = joined(words, Text("The new picture does not match, so it is not listed."))
    return f'<p class="uso-quiet">{escape(told(words))}</p>'


def tiles(pictures: Iterable[Remembered], current: str) -> str:
    """Pictures as buttons, each with its mark as a favourite. Keys reach the buttons alone, Tab one of them
    (`static/rove.js`).

    Args:
        current: id of the picture that is shown.
    """
    # The time makes it a new list each time: browsers take in what changes.
    items = "".join(_tile(one, current) for one in pictures)
    return f'<ol class="uso-history" aria-label="{tr("Your pictures")}" data-time="{time.time_ns()}">{items}</ol>'


def _tile(one: Remembered, current: str) -> str:
    picture_id = escape(one.picture.id)
    name = tr("{}, seed {}", caption(one.prompt) or Text("No prompt"), one.picture.seed)
    star, choose = escape(tr("Favourite: {}", name)), escape(tr("Choose: {}", name))
    name = escape(name)
    mark = ' aria-current="true"' if one.picture.id == current else ""
    on = str(one.favourite).lower()
    return (
        f'<li><button type="button" data-picture="{picture_id}" aria-label="{name}" title="{name}" '
        f'aria-keyshortcuts="Delete F"{mark}>'
        f'<img src="{webp(one.thumb)}" alt=""></button>'
        f'<button type="button" tabindex="-1" data-star="{picture_id}" aria-pressed="{on}" aria-label="{star}">'
        f'</button><input type="checkbox" tabindex="-1" value="{picture_id}" aria-label="{choose}"></li>'
    )


def caption(prompt: str) -> str:
    """A prompt in one short line."""
    line = " ".join(prompt.split())
    return line if len(line) <= CAPTION else f"{line[:CAPTION].rstrip()} ..."


def extra(where: str, listed: str) -> str:
    """For the browser: more pictures, and at which end of the list they belong (as `insertAdjacentHTML` calls it)."""
    return f'<i data-where="{where}" data-html="{escape(listed)}"></i>'


def gone(ids: Sequence[str]) -> str:
    """For the browser: pictures that were deleted."""
    return f'<i data-ids="{escape(" ".join(ids))}" data-time="{time.time_ns()}"></i>'


def starred(picture_id: str, on: bool) -> str:
    """For the browser: whether a picture is a favourite."""
    return f'<i data-id="{escape(picture_id)}" data-on="{str(on).lower()}" data-time="{time.time_ns()}"></i>'


def prompts(earlier: Sequence[tuple[str, str]], remembers: bool) -> str:
    """Earlier prompts as buttons.

    Args:
        earlier: (id of a picture with it, prompt).
    """
    if not remembers:
        words = tr("This browser keeps no cookies, so earlier prompts cannot be listed.")
        return f'<p class="uso-quiet">{words}</p>'
    if not earlier:
        return f'<p class="uso-quiet">{tr("None yet.")}</p>'
    items = "".join(
        f'<li><button type="button" data-prompt="{escape(picture_id)}">{escape(" ".join(prompt.split()))}</button></li>'
        for picture_id, prompt in earlier
    )
    return f'<ul class="uso-prompts" aria-label="{tr("Earlier prompts")}">{items}</ul>'
