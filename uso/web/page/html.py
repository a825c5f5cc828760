"""Small pieces of HTML for the page. Pure functions of what they show; every text that comes in is escaped."""

import re
from base64 import b64encode
from collections.abc import Iterable
from html import escape

from uso.config import ModelConfig, load_model_config
from uso.web.jobs.job import JobStatus, ServerStatus
from uso.web.page.texts import Example, Tip

REAL_MODEL = "flux-dev"
"""What the page of the demo says how to get."""

EXAMPLES_ROUTE = "examples"
"""Where the server has the example pictures, relative to the page, so that it works under any root path."""

_STAGES = {"condition": "Reading the prompt and the images", "decode": "Turning the result into pixels"}


def masthead() -> str:
    return (
        '<div class="uso-masthead"><h1>USO</h1>'
        "<p>A sentence, a picture of the subject and pictures of the style become one picture.</p></div>"
    )


def banner(config: ModelConfig, reason: str) -> str:
    """Which model runs and why; for the demo, the command that gets the real one; licence notice."""
    lines = [f"<strong>{escape(config.title)}.</strong>", escape(config.description), escape(reason)]
    labels = []
    if config.experimental:
        labels.append("Experimental")
    tags = "".join(f'<span class="uso-tag">{label}</span>' for label in labels)
    text = f"<p>{tags}{' '.join(lines)}</p>"
    if config.name == "demo":
        real = load_model_config(REAL_MODEL)
        size = sum(source.size_gb or 0 for source in real.components.values())
        text += (
            f"<p>The real one, {escape(real.title)}: <code>python app.py --model {REAL_MODEL}</code> "
            f"(once {size:.0f} GB to download; wants a GPU).</p>"
        )
    if config.licence_notice:
        text += f'<p class="uso-quiet">{escape(config.licence_notice)}</p>'
    loud = " uso-loud" if labels or config.name == "demo" else ""
    return f'<div class="uso-banner{loud}">{text}</div>'


def model_state(status: ServerStatus, seconds: float, device: str) -> str:
    """The model on its way: a bar while it loads, where it runs when it is ready, why not when it failed."""
    if status.state == "ready":
        words = f"Ready on {device}{_workers(status)}"
        why = f'<div class="uso-quiet">{_marked(status.error)}</div>' if status.error else ""
        return f'<div class="uso-state"><span class="uso-dot"></span>{escape(words)}{why}</div>'
    if status.state == "failed":
        return f'<div class="uso-state uso-bad" role="alert">{_marked(status.error)}</div>'
    words = f"{status.stage.removeprefix('Loading ')}, {status.share:.0%}, {seconds:.0f} s{_workers(status)}"
    bar = _bar(status.share, "Loading the model")
    return f'<div class="uso-state" aria-live="off"><span>Loading the model: {escape(words)}</span>{bar}</div>'


def job_words(status: JobStatus, queue: ServerStatus) -> str:
    """What the job is doing, as a sentence."""
    if status.state == "queued":
        return _waiting(status, queue)
    if status.state == "running":
        return _running(status)
    if status.state == "cancelled":
        return f"Stopped. {status.error}".strip()
    return status.error if status.state == "failed" else "Done."


def job_state(status: JobStatus, queue: ServerStatus, moved: bool = True) -> str:
    """The same for the page, with a bar where there is something to measure.

    Args:
        moved: whether a job that waits has another place in the line than when this was asked last.
    """
    words = job_words(status, queue)
    if status.state == "failed":
        return refusal(words)
    if status.state == "running":
        return _line(words, _share(status), quiet=True)
    return _line(words, quiet=status.state == "queued" and not moved)


def refusal(sentence: str) -> str:
    """Why something was not done; announced at once by screen readers."""
    return f'<div class="uso-line uso-bad" role="alert">{_marked(sentence)}</div>'


def idle(words: str = "No picture yet.") -> str:
    return _line(words)


def preview(status: JobStatus, size: tuple[int, int]) -> str:
    """The picture as it is predicted now, at the place and in the size of the finished one.

    Args:
        size: (width, height) of the finished picture, in pixels.
    """
    width, height = size
    alt = f"Preview of the picture after step {status.step} of {status.num_steps}"
    return (
        f'<figure class="uso-preview"><img src="{webp(status.preview or b"")}" width="{width}" height="{height}" '
        f'alt="{alt}"><figcaption>Preview, step {status.step} of {status.num_steps}</figcaption></figure>'
    )


def account(name: str | None, can_leave: bool) -> str:
    """Who is logged in, if anybody has to; with the way out where this server has let them in itself."""
    if name is None:
        return ""
    # Relative, so that it works under any root path; a form, for a mere link could be followed by another page's order.
    way_out = ' <form method="post" action="logout"><button>Log out</button></form>' if can_leave else ""
    return f'<div class="uso-account">Logged in as <strong>{escape(name)}</strong>.{way_out}</div>'


def note(text: str, bad: bool = False) -> str:
    """A quiet sentence under the inputs it is about."""
    if not text:
        return ""
    role = ' role="alert"' if bad else ""
    return f'<p class="uso-note{" uso-bad" if bad else ""}"{role}>{escape(text)}</p>'


def heading(title: str, text: str = "") -> str:
    return f'<div class="uso-heading"><h2>{escape(title)}</h2><p>{escape(text)}</p></div>'


def card(example: Example) -> str:
    """An example as its button shows it: its pictures, its mode, its prompt."""
    pictures = "".join(
        f'<img src="{EXAMPLES_ROUTE}/{escape(name)}" alt="{kind}" loading="lazy">'
        for kind, name in (("Content", example.content), ("Style", example.style), ("Extra style", example.extra_style))
        if name
    )
    pictures = pictures or '<div class="uso-words" aria-hidden="true">Abc</div>'
    prompt = f"“{escape(example.prompt)}”" if example.prompt else "No prompt."
    return (
        f'<div class="uso-card"><div class="uso-thumbs">{pictures}</div>'
        f"<strong>{escape(example.mode)}</strong><span>{prompt}</span></div>"
    )


def tips(offered: Iterable[Tip]) -> str:
    items = "".join(f"<div><h3>{escape(title)}</h3><p>{escape(text)}</p></div>" for title, text in offered)
    return f'<div class="uso-tips">{items}</div>'


def webp(data: bytes) -> str:
    """A small picture as an address that holds it."""
    return f"data:image/webp;base64,{b64encode(data).decode()}"


def _marked(sentence: str) -> str:
    """Escaped, with what stands between backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence))


def _workers(status: ServerStatus) -> str:
    """How many workers there are, where there are several."""
    if status.workers == 1:
        return ""
    if status.workers_ready == status.workers:
        return f", {status.workers} workers"
    return f", {status.workers_ready} of {status.workers} workers ready"


def _waiting(status: JobStatus, queue: ServerStatus) -> str:
    line = {0: "", 1: "One picture is ahead of yours"}.get(status.ahead, f"{status.ahead} pictures are ahead of yours")
    if line:
        line += f", about {duration(status.seconds_to_start)}." if status.seconds_to_start else "."
    if queue.state in ("starting", "loading"):
        return f"Waiting for the model ({queue.stage}, {queue.share:.0%}). {line}".strip()
    return line or "Your turn is next."


def _running(status: JobStatus) -> str:
    denoising = status.stage == "denoise"
    words = f"Step {status.step} of {status.num_steps}" if denoising else _STAGES.get(status.stage, status.stage)
    if not status.seconds_left:  # unknown before the first step was measured, none when it takes longer than expected
        return words if denoising else f"{words} ..."
    return f"{words}, about {duration(status.seconds_left)} left"


def duration(seconds: float) -> str:
    """In words, to the second or to the minute."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _share(status: JobStatus) -> float:
    if status.stage == "denoise":
        return status.step / max(status.num_steps, 1)
    return 1.0 if status.stage == "decode" else 0.0


def _line(text: str, share: float | None = None, quiet: bool = False) -> str:
    """A sentence with a bar; a `quiet` one, which changes all the time, is not read out at each change."""
    bar = "" if share is None else _bar(share, "Steps done")
    off = ' aria-live="off"' if quiet else ""
    return f'<div class="uso-line"{off}>{escape(text)}</div>{bar}'


def _bar(share: float, label: str) -> str:
    percent = round(100 * share)
    return (
        f'<div class="uso-bar" role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><span style="width: {percent}%"></span></div>'
    )
