"""`python -m uso style`, and pictures made with saved styles."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import SMALL, Ran, pixels, request_of
from uso.cli import style as style_module
from uso.request.references import ReferenceImage


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uso.request.styles.sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_style_is_saved_used_recorded_and_repeated(
    uso: Callable[..., Ran], picture_file: Callable[..., Path]
) -> None:
    """Catches a name that is not found, and a picture that needs the folder of styles to be repeated."""
    ink = picture_file("ink.png", seed=2)
    model = SMALL[:2]
    saved = uso("style", "save", "Ink", ink, "--strength", 0.5, *model)
    assert saved.status == 0 and saved.pictures[0].parent == Path("data/uso/styles").absolute()
    assert uso("style", "list").out == ["Ink  (strength 0.5, 1 image)"]
    assert "strength: 0.5" in uso("style", "show", "ink").out
    (plain,) = uso("generate", *SMALL, "--seed", 1, "--style", ink, "--style-strength", 0.5, "--output", "a").pictures
    (named,) = uso("generate", *SMALL, "--seed", 1, "--style", "Ink", "--output", "b").pictures
    assert pixels(named) == pixels(plain)
    assert request_of(named)["style_images"][0]["name"] == "Ink.safetensors"
    shutil.rmtree("data")
    assert pixels(uso("generate", "--from", named, "--output", "c").pictures[0]) == pixels(plain)


def test_styles_are_moved_about(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    ink, oil = picture_file("ink.png", seed=2), picture_file("oil.png", seed=3)
    flags = ("--styles", "mine")
    assert uso("style", "save", "Both", ink, oil, *flags, *SMALL[:2]).status == 0
    assert uso("style", "rename", "Both", "Blend", *flags).status == 0
    assert uso("style", "export", "Blend", "blend.safetensors", *flags).out == ["blend.safetensors"]
    assert "exists already" in uso("style", "export", "Blend", "blend.safetensors", *flags).err
    assert uso("style", "import", "blend.safetensors", "--name", "Other", "--styles", "yours").status == 0
    assert uso("style", "list", "--styles", "yours").out == ["Other  (strength 1, 2 images)"]
    assert uso("style", "delete", "blend", *flags).status == 0
    assert uso("style", "list", *flags).out == []
    Path("jobs.json").write_text(json.dumps([{"prompt": "", "image_paths": ["", "other"]}]), encoding="utf-8")
    (made,) = uso("generate", *SMALL, "--batch", "jobs.json", "--styles", "yours", "--output", "o").pictures
    (file,) = uso("generate", *SMALL, "--style", "blend.safetensors", "--style", ink, "--output", "p").pictures
    assert request_of(made)["style_strengths"] == [1.0] and len(request_of(file)["style_images"]) == 2


def test_refusals_come_before_the_model(
    uso: Callable[..., Ran], picture_file: Callable[..., Path], nothing_loads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uso.cli.pictures.request.load", lambda *_: pytest.fail("the model was loaded"))
    assert style_module.style_folder is not None
    ink = picture_file("ink.png")
    for arguments, sentence in (
        (("style", "save", "", ink), "A style needs a name"),
        (("style", "save", "x", "nowhere.png"), "nowhere.png could not be read"),
        (("style", "import", ink), "is an image. Save its style"),
        (("style", "show", "none"), "There is no saved style “none”."),
        (
            ("generate", "--model", "demo", "--style", "Nothing"),
            "no file Nothing, and no saved style of that name",
        ),
        (("generate", "--model", "demo", "--style", "no.png"), "no.png could not be read"),
    ):
        ran = uso(*arguments)
        assert ran.status == 2 and sentence in ran.err
    assert isinstance(ReferenceImage.from_path(ink), ReferenceImage)
