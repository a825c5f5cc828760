"""How pictures that are there look on the page: their facts, their settings, and the history. Every text is escaped."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from uso.web.page.html import heading, webp
from uso.web.store.ledger import Remembered

CAPTION = 80
"""Characters of a prompt by which a picture is called."""


def facts(remembered: Remembered) -> str:
    """The seed and size that were used, how long it took, and when."""
    picture = remembered.picture
    parts = [
        ("Seed", str(picture.seed)),
        ("Size", f"{picture.width} × {picture.height}"),
        ("Steps", str(picture.num_inference_steps)),
        ("Time", f"{picture.seconds:.1f} s"),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in parts)
    if remembered.made:
        items += f"<div><dt>Made</dt><dd>{_time(remembered.made)}</dd></div>"
    return f'<dl class="uso-facts">{items}</dl>'


def history(pictures: Sequence[Remembered], rule: str, current: str, remembers: bool) -> str:
    """All that one person made, newest first, as buttons.

    Args:
        rule: how long pictures are kept, in words; empty if for good.
        current: the id of the picture that is shown.
        remembers: whether this browser can be told from others.
    """
    if not remembers:
        words = "This browser keeps no cookies, so what it makes is not remembered here. Download your pictures."
    elif pictures:
        words = "Newest first; a click shows one again. Only you see them."
    else:
        words = "None yet. What you make stays here for you, and only you see it."
    tiles = "".join(
        f"<li>{_tile(one, number, len(pictures), current)}</li>" for number, one in enumerate(pictures, start=1)
    )
    album = f'<ol class="uso-history">{tiles}</ol>' if tiles else ""
    kept = f'<p class="uso-quiet">{escape(rule)}</p>' if rule else ""
    return f"{heading('Your pictures', words)}{album}{kept}"


def settings(record: Mapping[str, Any]) -> str:
    """Everything that a picture's file says about how it was made, to read and to copy."""
    request, model = record["request"], record["model"]
    kept = " (from the content image)" if request.get("keep_input_size") else ""
    rows = [
        ("Prompt", request.get("prompt") or "(none)"),
        ("Content image", ", ".join(entry["name"] for entry in request["content_images"]) or "(none)"),
        ("Style images", ", ".join(entry["name"] for entry in request["style_images"]) or "(none)"),
        ("Size", f"{request.get('width')} × {request.get('height')}{kept}"),
        ("Number of steps", request.get("num_inference_steps")),
        ("Guidance", request.get("guidance_scale") or "(none)"),
        ("Content reference size", request.get("content_size")),
        ("Seed", request.get("seed")),
        ("Schedule", request.get("schedule")),
        ("Model", model.get("title") or model["name"]),
        ("Device", model.get("device")),
        ("Numbers", model.get("dtype")),
        ("Seconds", ", ".join(f"{stage} {seconds}" for stage, seconds in (record.get("timings") or {}).items())),
    ]
    items = "".join(
        f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in rows if value is not None and value != ""
    )
    return f'<dl class="uso-settings">{items}</dl>'


def _tile(one: Remembered, number: int, count: int, current: str) -> str:
    prompt = " ".join(one.prompt.split())
    called = prompt if len(prompt) <= CAPTION else f"{prompt[:CAPTION].rstrip()} ..."
    name = escape(f"Picture {number} of {count}: {called or 'no prompt'}, seed {one.picture.seed}")
    mark = ' aria-current="true"' if one.picture.id == current else ""
    return (
        f'<button type="button" data-picture="{escape(one.picture.id)}" aria-label="{name}" title="{name}"{mark}>'
        f'<img src="{webp(one.thumb)}" alt=""></button>'
    )


def _time(seconds: float) -> str:
    """A moment, by the world's clock; the page shows it by the person's own."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f'<time datetime="{moment.isoformat(timespec="seconds")}">{moment:%Y-%m-%d %H:%M} UTC</time>'
