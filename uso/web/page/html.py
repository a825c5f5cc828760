"""Pieces of HTML for the page. Pure functions of what they show. Every text that comes in is escaped."""

import re
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from uso.config import ModelConfig, load_model_config
from uso.language import Text, joined, told, tr
from uso.web.api.downloads import ROUTE as ZIP_ROUTE
from uso.web.api.messages import job_message
from uso.web.jobs.job import Job, JobStatus, ServerStatus
from uso.web.page.record import device_name, loras, loras_of
from uso.web.page.texts import Example, Tip
from uso.web.store.ledger import Remembered

REAL_MODEL = "flux-dev"
"""The model that the demo's page points to."""

EXAMPLES_ROUTE = "examples"
"""Address of the example pictures, relative to the page, so that it works under any root path."""

CAPTION = 80
"""Characters of a prompt that name a picture of the history."""


def masthead() -> str:
    return (
        '<div class="uso-masthead"><h1>USO</h1>'
        f"<p>{tr('Make a picture from a prompt, a content image and style images.')}</p></div>"
    )


def banner(config: ModelConfig, reason: str) -> str:
    """Which model runs, in one line. It unfolds to why, its LoRAs, its licence notice, and in the demo how to start the
    real model."""
    tag = f'<span class="uso-tag">{tr("Experimental")}</span>' if config.experimental else ""
    line = f"{tag}<strong>{escape(tr('{}.', told(config.title)))}</strong> {escape(told(config.description))}"
    more = f"<p>{escape(told(reason))}</p>" if reason else ""
    if config.name == "demo":
        real = load_model_config(REAL_MODEL)
        size = sum(source.size_gb or 0 for source in real.components.values())
        start = Text(
            "For the real model, {}: `python app.py --model {}` (downloads {:.0f} GB once, best on a GPU).",
            real.title,
            REAL_MODEL,
            size,
        )
        more += f"<p>{_marked(start)}</p>"
    words = loras(loras_of(config))
    more += f"<p>{escape(tr('LoRAs: {}. Their strengths are set when the program starts.', words))}</p>"
    if config.licence_notice:
        more += f'<p class="uso-quiet">{escape(told(config.licence_notice))}</p>'
    loud = " uso-loud" if config.experimental or config.name == "demo" else ""
    return f'<details class="uso-banner{loud}"><summary>{line}</summary>{more}</details>'


def model_state(status: ServerStatus, seconds: float, device: str) -> str:
    """A bar while the model loads, its device when it is ready, the reason when it failed.

    Args:
        device: as the model's provenance names it, such as `cuda (NVIDIA H200)`.
    """
    if status.state == "ready":
        words = _line_of(Text("Ready on {}", device_name(device)), _workers(status))
        said = joined(status.error, status.notice)
        why = f'<div class="uso-quiet">{_marked(said)}</div>' if said else ""
        return f'<div class="uso-state"><span class="uso-dot"></span>{escape(told(words))}{why}</div>'
    if status.state == "failed":
        # Messages end with what to do.
        *reasons, remedy = re.split(r"(?<=\.) +(?=[^ a-z0-9])|(?<=。)(?=.)", told(status.error))
        why = f"<p>{_marked(' '.join(reasons))}</p>" if reasons else ""
        return f'<div class="uso-state uso-bad" role="alert"><p><strong>{_marked(remedy)}</strong></p>{why}</div>'
    stage = told(status.stage.removeprefix("Loading "))
    words = Text("Loading the model: {}, {:.0%}, {:.0f} s", stage, status.share, seconds)
    bar = _bar(status.share, tr("Loading the model"))
    shown = escape(told(_line_of(words, _workers(status))))
    return f'<div class="uso-state" aria-live="off"><span>{shown}</span>{bar}</div>'


def job_state(status: JobStatus, server: ServerStatus, moved: bool = True, others: int = 0) -> str:
    """What a job is doing, with a bar while it runs.

    Args:
        moved: whether the position of a queued job has changed since the last call.
        others: requests of the page behind it.
    """
    words = job_message(status, server)
    if others:
        more = Text("1 more request waits.") if others == 1 else Text("{} more requests wait.", others)
        words = told(joined(words, more, between=" · "))
    if status.state == "failed":
        return refusal(words)
    if status.state == "running":
        return _line(words, _share(status), quiet=True)
    return _line(words, quiet=status.state == "queued" and not moved)


def jobs(shown: Mapping[Job, JobStatus], server: ServerStatus) -> str:
    """What runs and waits, each with its own Stop; and what has failed meanwhile."""
    items = "".join(_job(job, status, server) for job, status in shown.items())
    return f'<ul class="uso-jobs" aria-label="{tr("Your requests")}">{items}</ul>'


def _job(job: Job, status: JobStatus, server: ServerStatus) -> str:
    prompt = escape(_caption(job.prompt))
    words = tr("Stopping ...") if job.stop.is_set() and not status.over else job_message(status, server)
    bar = _bar(_share(status), tr("Pictures done")) if status.state == "running" else ""
    label = tr("Stop: {}", prompt)
    stop = f'<button type="button" data-stop="{job.id}" aria-label="{label}">{tr("Stop")}</button>'
    end = "" if status.over else stop
    bad = ' class="uso-bad"' if status.state == "failed" else ""
    return f"<li{bad}><strong>{prompt}</strong><span>{_marked(words)}</span>{bar}{end}</li>"


def refusal(sentence: str, field: str = "") -> str:
    """Why something was not done. Screen readers announce it at once.

    Args:
        field: id of the field that it is about; the browser shows it there too (`static/fields.js`).
    """
    # The time makes it a new one each time: browsers announce and show what changes.
    about = f' data-field="{field}" data-time="{time.time_ns()}"' if field else ""
    return f'<div class="uso-line uso-bad" role="alert"{about}>{_marked(sentence)}</div>'


def idle(words: str) -> str:
    return _line(words)


def nothing_yet() -> str:
    """Before the first request; not shown beside a picture that was made earlier (`bar.css`)."""
    return f'<div data-part="nothing-yet">{_line(Text("No picture yet."))}</div>'


def preview(status: JobStatus) -> str:
    """The picture as predicted so far, in the place of the finished one; the last one of a job that was stopped."""
    steps = status.step, status.num_steps
    words = tr("Preview, step {} of {}", *steps)
    if status.over:
        words = tr("Stopped at step {} of {}, not finished", *steps)
    return (
        f'<figure class="uso-preview"><img src="{webp(status.preview or b"")}" '
        f'alt="{tr("Preview of the picture after step {} of {}", *steps)}"><figcaption>{words}</figcaption></figure>'
    )


def grid(pictures: Sequence[Remembered], current: str) -> str:
    """The pictures of one job, as buttons; nothing for a single one."""
    if len(pictures) < 2:
        return ""
    tiles = "".join(f"<li>{_tile(one, number, len(pictures), current)}</li>" for number, one in enumerate(pictures, 1))
    every = f"{ZIP_ROUTE}?ids={','.join(one.picture.id for one in pictures)}"
    link = tr("Download all {} as a zip file", f'<span data-part="count">{len(pictures)}</span>')
    return (
        f'<ol class="uso-grid" aria-label="{tr("The pictures of this request")}">{tiles}</ol>'
        f'<p class="uso-tools"><a href="{every}" download>{link}</a></p>'
    )


def account(name: str | None, can_log_out: bool) -> str:
    """Who is logged in, with a Log out button where this server has a login of its own."""
    if name is None:
        return ""
    # Relative, so that it works under any root path. A form, because another site's page could follow a mere link.
    who = tr("Logged in as {}.", f"<strong>{escape(name)}</strong>")
    button = f"<button>{tr('Log out')}</button>"
    log_out = f' <form method="post" action="logout">{button}</form>' if can_log_out else ""
    return f'<div class="uso-account">{who}{log_out}</div>'


def note(text: str, bad: bool = False) -> str:
    """A quiet sentence under the inputs that it is about."""
    if not text:
        return ""
    role = ' role="alert"' if bad else ""
    return f'<p class="uso-note{" uso-bad" if bad else ""}"{role}>{escape(told(text))}</p>'


def heading(title: str, text: str = "") -> str:
    return f'<div class="uso-heading"><h2>{escape(told(title))}</h2><p>{escape(told(text))}</p></div>'


def card(example: Example) -> str:
    """An example as its button shows it: pictures, what they give, mode and prompt."""
    pictures = "".join(
        f'<img src="{EXAMPLES_ROUTE}/{escape(name)}" alt="{told(kind)}" loading="lazy">'
        for kind, name in (
            (Text("Content"), example.content),
            (Text("Style"), example.style),
            (Text("Extra style"), example.extra_style),
        )
        if name
    )
    pictures = pictures or '<div class="uso-words" aria-hidden="true">Abc</div>'
    if example.result:
        pictures += '<span class="uso-gives" aria-hidden="true">→</span>'
        pictures += f'<img src="{EXAMPLES_ROUTE}/{escape(example.result)}" alt="{tr("Picture")}" loading="lazy">'
    prompt = f"“{escape(example.prompt)}”" if example.prompt else tr("No prompt.")
    return (
        f'<div class="uso-card"><div class="uso-thumbs">{pictures}</div>'
        f"<strong>{escape(told(example.mode))}</strong><span>{prompt}</span></div>"
    )


def tips(offered: Iterable[Tip]) -> str:
    items = "".join(f"<div><h3>{escape(told(title))}</h3><p>{escape(told(text))}</p></div>" for title, text in offered)
    return f'<div class="uso-tips">{items}</div>'


def webp(data: bytes) -> str:
    """A small picture as a data URL."""
    return f"data:image/webp;base64,{b64encode(data).decode()}"


def _marked(sentence: str) -> str:
    """Escaped, with text between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(told(sentence)))


def _workers(status: ServerStatus) -> str:
    """How many workers there are, if there are several."""
    if status.workers == 1:
        return ""
    if status.workers_ready == status.workers:
        return Text("{} workers", status.workers)
    return Text("{} of {} workers ready", status.workers_ready, status.workers)


def _line_of(*parts: str) -> Text:
    return joined(*parts, between=", ")


def _share(status: JobStatus) -> float:
    """Of all its pictures."""
    one = status.step / max(status.num_steps, 1) if status.stage == "denoise" else float(status.stage == "decode")
    return (status.making - 1 + one) / status.num_images


def _line(text: str, share: float | None = None, quiet: bool = False) -> str:
    """A sentence, with a bar where there is a `share`. Screen readers do not read out the changes of a `quiet` one."""
    bar = "" if share is None else _bar(share, tr("Steps done"))
    off = ' aria-live="off"' if quiet else ""
    return f'<div class="uso-line"{off}>{escape(told(text))}</div>{bar}'


def _bar(share: float, label: str) -> str:
    percent = round(100 * share)
    return (
        f'<div class="uso-bar" role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><span style="width: {percent}%"></span></div>'
    )


def _tile(one: Remembered, number: int, count: int, current: str) -> str:
    name = escape(tr("Picture {} of {}: {}, seed {}", number, count, _caption(one.prompt), one.picture.seed))
    mark = ' aria-current="true"' if one.picture.id == current else ""
    return (
        f'<button type="button" data-picture="{escape(one.picture.id)}" aria-label="{name}" title="{name}"{mark}>'
        f'<img src="{webp(one.thumb)}" alt=""></button>'
    )


def _caption(prompt: str) -> str:
    """A prompt in one short line."""
    prompt = " ".join(prompt.split())
    return (prompt if len(prompt) <= CAPTION else f"{prompt[:CAPTION].rstrip()} ...") or tr("no prompt")
