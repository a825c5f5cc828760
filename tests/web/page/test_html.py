"""The pieces of HTML: what the page shows of models, jobs and errors, escaped and announced."""

import time

import pytest

from uso.config import LoraFile, load_model_config
from uso.web.jobs.job import JobStatus, ServerStatus
from uso.web.page import html
from uso.web.page.record import loras_of, settings


def test_the_banner_says_which_model_runs_why_and_how_to_get_the_real_one() -> None:
    """Catches a demo that passes for the real thing, and markup in a reason that would be run."""
    demo = html.banner(load_model_config("demo"), "No GPU <here>.")
    assert "A miniature" in demo and "uso-loud" in demo and "No GPU &lt;here&gt;." in demo
    assert "python app.py --model flux-dev" in demo and "38 GB" in demo
    dev, schnell = (html.banner(load_model_config(name), "") for name in ("flux-dev", "flux-schnell"))
    assert "non-commercial purposes only" in dev and "uso-loud" not in dev and "app.py" not in dev
    assert "Experimental" in schnell and "non-commercial" not in schnell


def test_the_loras_that_are_in_are_shown() -> None:
    """Catches pictures that look unlike the model's, and nothing on the page that says why."""
    config = load_model_config("demo")
    assert "<p>LoRAs: USO&#x27;s own at 1. Their strengths are set when" in html.banner(config, "")
    added = (LoraFile(path="/secret/<ink>.safetensors", strength=0.8), LoraFile(path="b.safetensors"))
    config = config.model_copy(update={"added_loras": added, "lora_scale": 0.7})
    words = "&lt;ink&gt;.safetensors at 0.8, b.safetensors at 1, USO&#x27;s own at 0.7"
    assert f"<p>LoRAs: {words}. Their strengths are set when" in html.banner(
        config, ""
    ) and "secret" not in html.banner(config, "")
    request = {"content_images": [], "style_images": [], "seed": 1}
    model = {"name": "demo", "device": "cpu (x86_64)", **loras_of(config)}
    record = {"request": request, "model": model}
    assert f"<dt>LoRAs</dt><dd>{words}</dd>" in settings(record) and "<dd>CPU</dd>" in settings(record)
    styled = request | {"style_images": [{"name": "<ink>"}, {"name": "oil"}], "style_strengths": [0.5, 1]}
    assert "<dd>&lt;ink&gt; at 0.5, oil</dd>" in settings(record | {"request": styled})
    assert "LoRA" not in settings({"request": request, "model": {"name": "demo"}})
    assert "USO&#x27;s own at 1" in settings({"request": request, "model": {"name": "demo", "lora_scale": 1.0}})


def soon(seconds: float) -> float:
    """A moment that is `seconds` away; a little more, for the test takes time as well."""
    return time.monotonic() + seconds + 0.3


def test_several_workers_are_counted() -> None:
    """Catches a server that seems to be as fast as it will be while half of its GPUs still load."""
    some = ServerStatus(state="ready", workers=2, workers_ready=1)
    assert "Ready on GPU, 1 of 2 workers ready<" in html.model_state(some, 3.0, "cuda")
    every = ServerStatus(state="ready", workers=2, workers_ready=2)
    assert "Ready on GPU, 2 workers<" in html.model_state(every, 3.0, "cuda")
    assert "worker" not in html.model_state(ServerStatus(state="ready", workers_ready=1), 3.0, "cuda")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cpu (x86_64)", "Ready on CPU"),
        ("cuda (NVIDIA H200)", "Ready on NVIDIA H200"),
        ("cuda (NVIDIA A100 (80GB))", "Ready on NVIDIA A100 (80GB)"),
        ("mps (arm64)", "Ready on Apple GPU"),
        ("xpu (x86_64)", "Ready on xpu"),
    ],
)
def test_a_device_is_called_by_its_usual_name(device: str, words: str) -> None:
    """Catches "Ready on cpu (x86_64)"."""
    assert f"{words}</div>" in html.model_state(ServerStatus(state="ready", workers_ready=1), 3.0, device)


def test_what_changes_many_times_a_second_is_not_read_out_each_time() -> None:
    """Catches a screen reader that is talked over by the steps, and one that is not told of the end."""
    running = JobStatus(state="running", stage="denoise", step=3, num_steps=25)
    assert 'aria-live="off"' in html.job_state(running, ServerStatus(state="ready"))
    assert "aria-live" not in html.job_state(JobStatus(state="done"), ServerStatus(state="ready"))
    waiting, loading = JobStatus(pictures_ahead=2, starts_at=soon(41.0)), ServerStatus(state="loading")
    assert 'aria-live="off"' in html.job_state(waiting, loading, moved=False)
    assert "aria-live" not in html.job_state(waiting, loading)
    assert 'aria-live="off"' in html.model_state(loading, 3.0, "cuda")
    assert "aria-live" not in html.model_state(ServerStatus(state="ready"), 3.0, "cuda")


def test_a_preview_says_that_it_is_one() -> None:
    """Catches a preview that passes for the picture, and one that is a file on the server."""
    status = JobStatus(state="running", stage="denoise", step=8, num_steps=25, preview=b"RIFF")
    text = html.preview(status)
    assert "Preview, step 8 of 25" in text
    assert 'src="data:image/webp;base64,UklGRg=="' in text and 'alt="Preview of the picture after step 8 of 25"' in text


def test_who_is_logged_in_can_leave_where_the_server_let_them_in() -> None:
    """Catches a name that is run as markup, and a way out that leads nowhere behind a proxy's login."""
    assert html.account(None, True) == ""
    way_out = '<form method="post" action="logout">'
    assert "&lt;b&gt;" in html.account("<b>", True) and way_out in html.account("ann", True)
    assert "logout" not in html.account("ann", False)


def test_errors_are_escaped_and_announced() -> None:
    """Catches markup from a file's name that would be run in the page."""
    text = html.job_state(JobStatus(state="failed", error="<b>.png is no picture."), ServerStatus())
    assert 'role="alert"' in text and "&lt;b&gt;.png" in text and "<b>" not in text
    assert "<code>a &lt;command&gt;</code>" in html.refusal("Run `a <command>`.")
