"""Small pieces of HTML for the page. Pure functions of what they show; every text that comes in is escaped."""

from html import escape

from uso.config import ModelConfig, load_model_config
from uso.web.engine import EngineStatus, JobStatus, Picture
from uso.web.texts import TIPS, Example

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
    if config.placeholder:
        labels.append("Random weights: pictures mean nothing yet")
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


def model_state(status: EngineStatus, seconds: float, device: str) -> str:
    """The model on its way: a bar while it loads, where it runs when it is ready, why not when it failed."""
    if status.state == "ready":
        return f'<div class="uso-state"><span class="uso-dot uso-good"></span>Ready on {escape(device)}</div>'
    if status.state == "failed":
        return f'<div class="uso-state uso-bad" role="alert">{escape(status.error)}</div>'
    words = f"{status.stage}, {status.share:.0%}, {seconds:.0f} s"
    bar = _bar(status.share, "Loading the model")
    return f'<div class="uso-state"><span>Loading the model: {escape(words)}</span>{bar}</div>'


def job_words(status: JobStatus, engine: EngineStatus) -> str:
    """What the job is doing, as a sentence."""
    if status.state == "queued":
        return _waiting(status, engine)
    if status.state == "running":
        return _running(status)
    if status.state == "cancelled":
        return f"Stopped. {status.error}".strip()
    return status.error if status.state == "failed" else "Done."


def job_state(status: JobStatus, engine: EngineStatus) -> str:
    """The same for the page, with a bar where there is something to measure."""
    words = job_words(status, engine)
    if status.state == "failed":
        return refusal(words)
    return _line(words, _share(status) if status.state == "running" else None)


def refusal(sentence: str) -> str:
    """Why something was not done; announced at once by screen readers."""
    return f'<div class="uso-line uso-bad" role="alert">{escape(sentence)}</div>'


def idle() -> str:
    return _line("No picture yet.")


def facts(picture: Picture) -> str:
    """The seed and size that were used, and how long it took."""
    parts = (
        ("Seed", str(picture.seed)),
        ("Size", f"{picture.width} × {picture.height}"),
        ("Steps", str(picture.num_inference_steps)),
        ("Time", f"{picture.seconds:.1f} s"),
    )
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in parts)
    return f'<dl class="uso-facts">{items}</dl>'


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


def tips() -> str:
    items = "".join(f"<div><h3>{escape(title)}</h3><p>{escape(text)}</p></div>" for title, text in TIPS)
    return f'<div class="uso-tips">{items}</div>'


def _waiting(status: JobStatus, engine: EngineStatus) -> str:
    line = {0: "", 1: "One picture is ahead of yours."}.get(
        status.ahead, f"{status.ahead} pictures are ahead of yours."
    )
    if engine.state in ("starting", "loading"):
        return f"Waiting for the model ({engine.stage}, {engine.share:.0%}). {line}".strip()
    return line or "Your turn is next."


def _running(status: JobStatus) -> str:
    if status.stage != "denoise":
        return f"{_STAGES.get(status.stage, status.stage)} ..."
    words = f"Step {status.step} of {status.num_steps}"
    if not status.seconds_left:  # unknown after the first step, none after the last
        return words
    return f"{words}, about {_duration(status.seconds_left)} left"


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _share(status: JobStatus) -> float:
    if status.stage == "denoise":
        return status.step / max(status.num_steps, 1)
    return 1.0 if status.stage == "decode" else 0.0


def _line(text: str, share: float | None = None) -> str:
    bar = "" if share is None else _bar(share, "Steps done")
    return f'<div class="uso-line">{escape(text)}</div>{bar}'


def _bar(share: float, label: str) -> str:
    percent = round(100 * share)
    return (
        f'<div class="uso-bar" role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><span style="width: {percent}%"></span></div>'
    )
