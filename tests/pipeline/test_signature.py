"""How the pipeline is called from Python: signatures, help, progress bar, and what notebooks show."""

import inspect
from typing import Any

import pytest

from uso import USOPipeline
from uso.request.request import GenerationRequest, GenerationResult, Progress

QUICK: dict[str, Any] = {"width": 128, "height": 128, "num_inference_steps": 2, "content_size": 64, "seed": 7}


@pytest.mark.parametrize("method", [USOPipeline.__call__, USOPipeline.stream], ids=["call", "stream"])
def test_the_methods_take_what_a_request_takes(method: Any) -> None:
    """A value that `create` gains would be missing from completion and help."""
    _, *created = inspect.signature(GenerationRequest.create).parameters.values()
    _, *taken = inspect.signature(method).parameters.values()
    assert [(one.name, one.default, one.kind) for one in taken] == [
        (one.name, one.default, one.kind) for one in created
    ]
    assert [one.annotation for one in taken[1:]] == [one.annotation for one in created[1:]]
    described = inspect.getdoc(method) or ""
    assert not [one.name for one in created if f"    {one.name}" not in described.replace(", ", ":\n    ")]
    assert described.index("Args:") < described.index("Raises:")


def test_stream_takes_a_request_or_its_values(demo_pipeline: USOPipeline) -> None:
    request = GenerationRequest.create(demo_pipeline.model_config, "A fox.", **QUICK)
    pictures = []
    for events in (demo_pipeline.stream(request), demo_pipeline.stream("A fox.", **QUICK)):
        pictures += [event.image.tobytes() for event in events if isinstance(event, GenerationResult)]
    assert pictures[0] == pictures[1]
    with pytest.raises(TypeError, match="change them in it: seed"):
        demo_pipeline.stream(request, seed=8)  # type: ignore[call-overload]


def test_a_call_shows_a_bar_and_a_stream_none(
    demo_pipeline: USOPipeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar that ignored diffusers' setting could not be switched off; one in `stream` would fill a server's log."""
    monkeypatch.setattr(demo_pipeline, "_progress_bar_config", {}, raising=False)
    demo_pipeline("A fox.", **QUICK, num_images=2)
    assert "4/4" in capsys.readouterr().err
    list(demo_pipeline.stream("A fox.", **QUICK))
    demo_pipeline.set_progress_bar_config(disable=True)
    demo_pipeline("A fox.", **QUICK)
    assert not capsys.readouterr().err


def test_notebooks_show_pictures_and_short_words(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt is text of other people: unescaped it would run as a script in whoever's notebook shows it."""
    prompt = "<script>x</script> A fox."
    monkeypatch.setattr(demo_pipeline, "_progress_bar_config", {"disable": True}, raising=False)
    output = demo_pipeline(prompt, **QUICK, num_images=2)
    page = output._repr_html_()
    assert page.count("<img ") == 2 and "<script" not in page and "seed 8" in page
    assert output.results[0]._repr_png_().startswith(b"\x89PNG")
    assert str(demo_pipeline) == "USOPipeline(demo, cpu, float32, plan full)"
    assert repr(output.results[0].request).endswith("128 x 128, 2 steps, seed 7)")
    assert len(repr(output.results[0])) < 200
    step = Progress(stage="denoise", step=1, num_steps=2, image_index=0, num_images=1, seconds=0.1, latents=prompt)
    assert prompt not in repr(step)
