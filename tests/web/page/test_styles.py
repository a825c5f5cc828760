"""Saved styles on the page: each person's own, the shared shelf, and nothing of another's."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.support.scripted import Script, until
from tests.support.visitor import ANN, BEN, Events, visitor
from uso.errors import RequestError, USOError
from uso.request.references import ReferenceImage, SavedStyle, read_reference
from uso.request.styles import StyleFolder
from uso.web.access.identity import asker_of
from uso.web.api.calls import Inputs, request_from
from uso.web.page.inputs import KEEP
from uso.web.page.styles import Changes, StyleEvents
from uso.web.store import styles as store

NONE = [None, None, 1, 1]


@pytest.fixture
def image(uploads: Path) -> Callable[..., dict[str, Any]]:
    def make(name: str = "a.png", seed: int = 0) -> dict[str, Any]:
        Image.new("RGB", (20, 20), (seed, 9, 9)).save(uploads / name)
        return {"path": str(uploads / name), "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    return make


def save(events: StyleEvents, title: Any, values: Any, key: str | None = ANN) -> Changes:
    return asyncio.run(events.save(*(title, *values, visitor(key))))


def delete(
    events: StyleEvents, key: Any, who: str | None = ANN, fields: Any = (None, None)
) -> tuple[Changes, list[Any]]:
    """(changes, style images)."""
    *rest, first, second = asyncio.run(events.delete(key, fields[0], fields[1], visitor(who)))
    return Changes._make(rest), [first, second]


def use(events: StyleEvents, key: Any, who: str | None = ANN, fields: Any = (None, None)) -> tuple[Changes, list[Any]]:
    """(changes, style images and strengths)."""
    picked: Any = SimpleNamespace(_data={"style": key})
    changes, rest = Changes._make, asyncio.run(events.use(*(*fields, picked, visitor(who))))
    return changes(rest[: len(Changes._fields)]), list(rest[len(Changes._fields) :])


@pytest.fixture
def styles(serve: Callable[..., Events]) -> StyleEvents:
    return StyleEvents(serve().calls)


def test_a_style_is_saved_used_renamed_and_deleted(styles: StyleEvents, image: Any) -> None:
    """Catches a strength that is lost, a style that lands in the wrong field, and one that is deleted though the
    answer was no."""
    saved = save(styles, "Ink", [image(), None, 0.5, 1])
    assert "“Ink” is saved." in saved.message and saved.chosen == "own:ink" and "Ink" in saved.shelf
    used, (first, second, strength, other) = use(styles, "own:ink")
    assert "now the style" in used.message and (second, strength, other) == (KEEP, 0.5, KEEP)
    assert isinstance(ReferenceImage.from_path(first), SavedStyle) and used.export["value"] == first
    _, (first, second, strength, other) = use(styles, "own:ink", fields=(image(), None))
    assert first == KEEP and Path(second).exists() and (strength, other) == (KEEP, 0.5)
    request = request_from(styles.calls.config, Inputs(style_image={"path": second}, style_strength=0.5))
    assert request.style_images[0].name == "Ink.safetensors" and request.style_strengths == (0.5,)
    renamed = asyncio.run(styles.rename("own:ink", "Oil", visitor()))
    assert "now called “Oil”" in renamed.message and "Oil" in renamed.shelf and "Ink" not in renamed.shelf
    assert delete(styles, "") == (Changes(), [KEEP, KEEP])
    assert "deleted" in delete(styles, "own:ink")[0].message
    assert "None yet" in asyncio.run(styles.arrive(visitor()))


def test_a_style_is_managed_without_being_used_and_leaves_the_fields_that_hold_it(
    styles: StyleEvents, image: Any
) -> None:
    """Catches a style that has to be used before it can be deleted, a mark on one that no field holds, a field that
    goes on with a style that was deleted, and one that loses another image."""
    save(styles, "Ink", [image("a.png", 1), None, 0.5, 1])
    save(styles, "Oil", [image("b.png", 2), None, 1, 1])
    picked: Any = SimpleNamespace(_data={"style": "own:oil"})
    managed = asyncio.run(styles.manage(picked, visitor()))
    assert "“Oil” can be renamed" in managed.message and (managed.chosen, managed.name) == ("own:oil", "Oil")
    assert managed.delete["interactive"] and ReferenceImage.from_path(managed.export["value"]).name == "Oil.safetensors"
    assert "uso-bad" in asyncio.run(styles.manage(picked, visitor(BEN))).message
    ink, oil = ({"path": use(styles, key)[1][0]} for key in ("own:ink", "own:oil"))

    def held(first: Any, second: Any) -> Any:
        return json.loads(asyncio.run(styles.held(first, second, visitor())))

    assert held(ink, None) == ["own:ink", ""] and held(image("c.png"), oil) == ["", "own:oil"]
    assert held({"path": "/etc/x.safetensors"}, {"path": ink["path"] + "/gone.safetensors"}) == ["", ""]
    asyncio.run(styles.rename("own:ink", "Brush", visitor()))
    assert held(oil, ink) == ["own:oil", "own:ink"]
    assert delete(styles, "own:ink", fields=(ink, oil))[1] == [None, KEEP]
    assert held(ink, oil) == ["", "own:oil"]
    assert delete(styles, "own:oil", fields=(image("c.png"), None))[1] == [KEEP, KEEP]


def test_two_styles_are_saved_as_their_blend(styles: StyleEvents, image: Any) -> None:
    save(styles, "Blend", [image("a.png", 1), image("b.png", 2), 1.4, 0.6])
    found = styles.shelves.get(asker_of(visitor()).owner, "own:blend")
    assert (found.weights, found.strength) == ((1.4, 0.6), 1.0)
    save(styles, "One", [image("a.png", 1), image("b.png", 2), 0, 0.6])
    found = styles.shelves.get(asker_of(visitor()).owner, "own:one")
    assert (found.weights, found.strength) == ((1.0,), 0.6)


def test_a_style_is_its_owners_alone(styles: StyleEvents, image: Any) -> None:
    """Catches a person who sees, uses, renames or deletes what another saved, by its key or by a forged one."""
    save(styles, "Secret", [image(), None, 1, 1], ANN)
    assert "Secret" not in asyncio.run(styles.arrive(visitor(BEN)))
    theirs = next((styles.calls.queue.settings.output / ".server" / "styles").rglob("*.safetensors"))
    forged = ["own:secret", f"own:{theirs}", f"own:../{theirs.parent.name}/secret", "shared:secret", "secret", None, 7]
    for key in forged:
        for who in (BEN, None):
            changes, fields = use(styles, key, who)
            assert "uso-bad" in changes.message and fields == [KEEP] * 4 and str(theirs.parent) not in changes.message
            assert "uso-bad" in asyncio.run(styles.rename(key, "Mine", visitor(who))).message
            if key:
                assert "uso-bad" in delete(styles, key, who)[0].message
    assert "Secret" in asyncio.run(styles.arrive(visitor(ANN))) and theirs.exists()


def test_what_cannot_be_saved(styles: StyleEvents, image: Any, uploads: Path) -> None:
    """Catches a value that is refused only after the model has worked, and a disk that strangers can fill."""
    save(styles, "Ink", [image(), None, 1, 1])
    text = uploads / "text.png"
    text.write_text("no picture")
    for title, values, sentence in (
        ("Ink", [image(), None, 1, 1], "There is a style “Ink” already"),
        ("", [image(), None, 1, 1], "A style needs a name"),
        ("x", NONE, "There is no style to save"),
        ("x", [image(), None, 0, 1], "There is no style to save"),
        ("x", [image(), None, 3, 1], "Style strength is 3"),
        ("x", [{"path": "/etc/passwd"}, None, 1, 1], "was not uploaded"),
        ("x", [{"path": str(text)}, None, 1, 1], "not a picture"),
    ):
        assert sentence in save(styles, title, values).message
    assert "keeps no cookies" in save(styles, "x", [image(), None, 1, 1], None).message
    for limit, sentence in (("MAX_SHELF_BYTES", "Your styles take"), ("MAX_BYTES", "no room for more styles")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, limit, 1)
            assert sentence in save(styles, "x", [image(), None, 1, 1]).message


def test_the_shared_shelf_is_everybodys_and_nobody_changes_it(
    serve: Callable[..., Events], image: Any, tmp_path: Path
) -> None:
    style = Script().save_style([ReferenceImage.from_path(image()["path"])], "House", strength=1.0, weights=None)
    StyleFolder(tmp_path / "shared").add(style)
    events = StyleEvents(serve(styles=tmp_path / "shared").calls)
    for who in (ANN, BEN, None):
        assert "House" in asyncio.run(events.arrive(visitor(who)))
        used, fields = use(events, "shared:house", who)
        assert Path(fields[0]).read_bytes() == style.data and used.delete["interactive"] is False
        assert "uso-bad" in delete(events, "shared:house", who)[0].message
        assert "uso-bad" in asyncio.run(events.rename("shared:house", "x", visitor(who))).message


def test_styles_are_imported_and_strangers_files_refused(styles: StyleEvents, image: Any, uploads: Path) -> None:
    style = Script().save_style([ReferenceImage.from_path(image()["path"])], "Ink <b>", strength=1.0, weights=None)

    def bring(data: bytes, key: str | None = ANN) -> tuple[Any, ...]:
        (uploads / "x.safetensors").write_bytes(data)
        return asyncio.run(styles.bring({"path": str(uploads / "x.safetensors")}, visitor(key)))

    assert "“Ink &lt;b&gt;” is saved." in bring(style.data)[0]
    assert "<b>" not in asyncio.run(styles.arrive(visitor()))
    assert "already" in bring(style.data)[0]
    other = style.renamed("Other").data.replace(b"ab" * 32, b"cd" * 32)
    assert "another style projector" in bring(other)[0]
    assert "damaged" in bring(style.data[:-1])[0]
    assert "This is no saved style" in bring((uploads / "a.png").read_bytes())[0]
    assert asyncio.run(styles.bring({"path": "/etc/passwd"}, visitor()))[0].count("uso-bad") == 1


def test_another_models_style_is_refused_at_the_door(serve: Callable[..., Events], image: Any, uploads: Path) -> None:
    """Not by the model, after the wait. Catches a check that is made in the worker alone."""
    events = serve()
    until(lambda: events.queue.projector)
    style = Script().save_style([ReferenceImage.from_path(image()["path"])], "Ink", strength=1.0, weights=None)
    (uploads / "s.safetensors").write_bytes(style.data.replace(b"ab" * 32, b"cd" * 32))
    value = {"path": str(uploads / "s.safetensors")}
    with pytest.raises(RequestError, match="another style projector"):
        asyncio.run(events.calls.submit(Inputs(prompt="x", style_image=value), visitor()))
    message, content, style, _ = asyncio.run(events.inputs.check_images(None, value, None, False, visitor()))[3:]
    assert "another style projector" in message and content == KEEP and style is None
    message, content, style, _ = asyncio.run(events.inputs.check_images(value, None, None, False, visitor()))[3:]
    assert "is a saved style. The content must be an image" in message and content is None and style == KEEP
    assert asyncio.run(events.inputs.renditions(None, {"path": str(uploads / "s.safetensors")}, None, visitor()))


def test_errands_take_turns_with_jobs_and_are_bounded(serve: Callable[..., Events]) -> None:
    """Catches styles that hold up all pictures, a person who fills the queue, and a waiter whom nobody answers."""
    events = serve()
    queue = events.queue
    ann, ben = asker_of(visitor(ANN, host="1.1.1.1")), asker_of(visitor(BEN, host="2.2.2.2"))
    until(lambda: queue.status.state == "ready")
    assert queue.ask(lambda model: model.projector, ann).result(timeout=60) == Script.projector
    failing = queue.ask(lambda model: 1 / 0, ann)
    with pytest.raises(ZeroDivisionError):
        failing.result(timeout=60)
    assert queue.ask(lambda model: 7, ann).result(timeout=60) == 7  # the worker goes on
    queue.close()
    with pytest.raises(USOError):
        queue.ask(lambda model: 7, ben)


def test_a_waiting_errand_is_refused_at_the_end(queue: Any) -> None:
    ann = asker_of(visitor(ANN))
    waiting = queue.ask(lambda model: 7, ann)
    with pytest.raises(USOError, match="A style is being saved"):
        queue.ask(lambda model: 7, ann)
    queue.close()
    with pytest.raises(USOError, match="shutting down"):
        waiting.result(timeout=1)


def test_styles_are_read_by_what_they_are(styles: StyleEvents, image: Any) -> None:
    save(styles, "墨", [image(), None, 1, 1])
    (path,) = (styles.calls.queue.settings.output / ".server" / "styles").rglob("*.safetensors")
    assert read_reference(path.read_bytes(), "x").name == "墨.safetensors"
