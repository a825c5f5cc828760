"""Presets on the page: saved, picked, renamed, shared; and what is refused."""

import asyncio
import html as markup
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.visitor import ANN, BEN, Events, visitor
from uso.web.api.calls import Inputs
from uso.web.page.inputs import KEEP
from uso.web.page.kept import presets as page
from uso.web.page.kept.presets import NAMES, Changed, PresetEvents
from uso.web.store.presets import FORMAT

VALUES: dict[str, Any] = {"prompt": "a fox", "width": 144, "height": 128, "seed": 7, "num_inference_steps": 3}
VALUES |= {"num_images": 4, "style_strength": 1.5, "extra_style_strength": 0}


@pytest.fixture
def presets(events: Events) -> PresetEvents:
    return PresetEvents(events.calls)


def values(**given: Any) -> list[Any]:
    """The fields as the browser sends them: an emptied one is None."""
    return [(VALUES | given).get(name) for name in NAMES]


def changed(answer: tuple[Any, ...]) -> Changed:
    choice, name, note, *inputs = answer
    return Changed(choice, name, note, Inputs(*inputs))


def saved(presets: PresetEvents, name: Any, key: str | None = ANN, **given: Any) -> Changed:
    return changed(asyncio.run(presets.save(name, visitor(key), *values(**given))))


def picked(presets: PresetEvents, name: Any, key: str | None = ANN) -> Changed:
    return changed(asyncio.run(presets.pick(name, visitor(key))))


def test_a_preset_fills_the_fields_in_and_leaves_the_images(presets: PresetEvents) -> None:
    """Catches a value that comes back otherwise, a field that a preset does not know and changes, and an image that is
    taken out."""
    shown = saved(presets, "foxes")
    assert shown.choice["choices"] == ["foxes"] and shown.choice["value"] == "foxes" and "saved" in shown.note
    filled = picked(presets, "foxes")
    held = {name: value for name, value in filled.inputs._asdict().items() if value != KEEP}
    assert held == VALUES and filled.name == "foxes" and "is filled in." in filled.note
    assert all(value == KEEP for name, value in filled.inputs._asdict().items() if name.endswith("_image"))
    assert "It is replaced." in saved(presets, "foxes", seed=-1).note
    assert picked(presets, "foxes").inputs.seed == -1  # a random one stays random
    assert asyncio.run(presets.unfold(visitor()))["choices"] == ["foxes"]
    assert asyncio.run(presets.unfold(visitor(BEN)))["choices"] == []
    assert "no such preset" in picked(presets, "foxes", BEN).note and picked(presets, None).note == ""


def test_presets_are_renamed_and_deleted(presets: PresetEvents) -> None:
    """Catches a name that is changed for one that is taken, and a deletion that another person can do."""
    saved(presets, "foxes"), saved(presets, "owls", prompt="an owl")
    nothing: Any
    for nothing in (None, "", []):
        for event in (presets.rename(nothing, "birds", visitor()), presets.delete(nothing, visitor())):
            assert "Choose a preset first." in changed(asyncio.run(event)).note
    taken = changed(asyncio.run(presets.rename("owls", "foxes", visitor())))
    assert "already" in taken.note and taken.choice == KEEP
    assert changed(asyncio.run(presets.rename("owls", "birds", visitor()))).choice["choices"] == ["birds", "foxes"]
    assert "no such preset" in changed(asyncio.run(presets.delete("foxes", visitor(BEN)))).note
    assert changed(asyncio.run(presets.delete(False, visitor()))) == Changed()  # the answer was no
    gone = changed(asyncio.run(presets.delete("foxes", visitor())))
    assert gone.choice["choices"] == ["birds"] and gone.choice["value"] is None


def test_what_the_model_does_not_take_is_not_saved(presets: PresetEvents) -> None:
    """Catches a preset that is refused only when it is used."""
    for wrong in (
        {"width": 100},
        {"seed": -7},
        {"num_inference_steps": "many"},
        {"prompt": 5},
        {"width": {"path": "x"}},
    ):
        shown = saved(presets, "wrong", **wrong)
        assert 'role="alert"' in shown.note and shown.choice == KEEP, wrong
    assert "Give the preset a name" in saved(presets, " ").note
    assert "keeps no cookies" in saved(presets, "mine", key=None).note
    assert asyncio.run(presets.unfold(visitor()))["choices"] == []


def test_presets_have_a_rate(presets: PresetEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a stranger who fills the disk with a thousand cookies."""
    monkeypatch.setattr(presets, "_saved", page.Window(2, 600.0))
    said = [saved(presets, "one", key).note for key in (ANN, BEN, ANN)]
    assert ["At most" in note for note in said] == [False, False, True]


def delivered(presets: PresetEvents, name: Any, **given: Any) -> tuple[str, str]:
    note, file = presets.export(name, *values(**given))
    assert note == ""
    found = dict(part.split('="', 1) for part in file.removeprefix("<i ").split('" ')[:2])
    return markup.unescape(found["data-name"]), markup.unescape(found["data-text"])


def test_a_file_takes_a_preset_to_another_person(presets: PresetEvents, uploads: Path) -> None:
    """Catches an export that cannot be imported, one that replaces a preset of that name, and one that is lost where
    nothing can be kept."""
    name, text = delivered(presets, "foxes", prompt='a "fox" & 狐')
    assert name == "foxes.json" and json.loads(text)["fields"]["prompt"] == 'a "fox" & 狐'
    file = uploads / "foxes.json"
    file.write_text(text, encoding="utf-8")
    for key, expected in ((BEN, "foxes"), (BEN, "foxes (2)"), (None, KEEP)):
        brought = changed(asyncio.run(presets.bring({"path": str(file)}, visitor(key))))
        assert brought.inputs.prompt == 'a "fox" & 狐' and brought.inputs.width == 144
        assert brought.choice["value"] == expected if key else brought.choice == KEEP
    for unnamed in (None, " "):
        note, nothing = presets.export(unnamed, *values())
        assert "Choose a preset first, or type a name" in note and nothing == ""


def test_a_file_of_another_model_says_what_does_not_fit(presets: PresetEvents, uploads: Path) -> None:
    """Catches a value that is cut to the model's range in silence, and a field of a newer version that is a fault."""
    file = uploads / "large.json"
    fields = {"width": 1024, "prompt": "a fox", "newer": 1, "content_image": "/etc/passwd"}
    file.write_text(json.dumps({"format": FORMAT, "name": "large", "fields": fields}), encoding="utf-8")
    brought = changed(asyncio.run(presets.bring([{"path": str(file)}], visitor())))
    assert "Width is 1024" in brought.note and brought.inputs.width == KEEP and brought.inputs.prompt == "a fox"
    assert brought.inputs.content_image == KEEP


def test_only_files_that_were_uploaded_are_opened(presets: PresetEvents, tmp_path: Path, uploads: Path) -> None:
    """Catches a path from the browser that is opened as it is."""
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"format": FORMAT, "name": "secret", "fields": {}}), encoding="utf-8")
    named = ({"path": str(path)} for path in (secret, "/etc/passwd", uploads / "gone.json"))
    refused: list[Any] = [*named, None, [], "x"]
    for wrong in refused:
        shown = changed(asyncio.run(presets.bring(wrong, visitor())))
        assert 'role="alert"' in shown.note and shown.choice == KEEP, wrong
