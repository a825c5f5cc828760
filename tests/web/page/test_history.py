"""Pictures of the history: whose they are, how they look, and how a tab comes back to its job.

Real queue, ledger and files; the pipeline is a script.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from tests.support.visitor import ANN, BEN, TAB, Events, made, visitor
from uso.config import ModelConfig
from uso.web.access.identity import BROWSER_COOKIE
from uso.web.api.calls import Inputs
from uso.web.page.events.pictures import GONE, Shown
from uso.web.page.inputs import KEEP
from uso.web.page.kept.events import GalleryEvents
from uso.web.page.layout import build_page
from uso.web.server.app import build_app
from uso.web.store import history


@pytest.fixture
def events(serve: Callable[..., Events]) -> Events:
    return serve()


def chosen(picture_id: Any) -> gr.EventData:
    return gr.EventData(None, {"picture": picture_id})


def listed(events: Events, key: str | None = ANN) -> str:
    shown = asyncio.run(GalleryEvents(events.calls).first("", False, "", visitor(key)))
    return f"{shown.head}{shown.tiles}"


# Whose they are.


def test_anothers_picture_is_not_there(events: Events) -> None:
    """Catches an event that takes an id from a browser without checking its owner."""
    picture = made(events, ANN, prompt="a secret", tab=TAB)[1]
    stranger = visitor(BEN)
    shown = asyncio.run(events.pictures.select(chosen(picture.id), stranger))
    assert GONE in shown.message and shown == Shown(message=shown.message)
    assert asyncio.run(events.pictures.show(chosen(picture.id), TAB, stranger)) == Shown()
    status, *rest = asyncio.run(events.pictures.repeat(picture.id, stranger))
    assert GONE in status and all(value == KEEP for value in rest)
    for status, *rest in (
        events.pictures.reuse_seed(picture.id, stranger),
        events.pictures.as_content(picture.id, stranger),
        events.pictures.as_style(picture.id, None, None, stranger),
    ):
        assert GONE in status and all(value == KEEP for value in rest)
    assert "a secret" not in listed(events, BEN)


@pytest.mark.parametrize(
    "wrong", [None, "", 7, "x" * 32, "../" * 10 + "ab", "/etc/passwd", ["a"], {"path": "/etc/passwd"}, "0" * 32 + "\n"]
)
def test_what_is_no_id_is_never_looked_up(events: Events, wrong: Any) -> None:
    """Catches a value from a browser that gets as far as the ledger or a file."""
    assert GONE in asyncio.run(events.pictures.select(chosen(wrong), visitor())).message
    assert GONE in events.pictures.as_content(wrong, visitor())[0] and not history.is_id(wrong)
    assert GONE in asyncio.run(events.pictures.select(gr.EventData(None, wrong), visitor())).message


def test_anothers_picture_cannot_be_had_over_http_either(serve: Any, demo_config: ModelConfig, uploads: Path) -> None:
    """Catches a check that is made in the page and not behind it: private events can be called by anybody."""
    first = serve()
    picture = made(first, ANN, prompt="a secret")[1]

    async def build() -> TestClient:
        return TestClient(build_app(first.queue, first.ledger, build_page(first.calls, "Because.")))

    client = asyncio.run(build())  # not entered: the queue runs already
    config = client.get("/config").json()
    places = {
        component["props"].get("elem_id"): component["id"]
        for component in config["components"]
        if component["props"].get("elem_id")
    }
    select = next(
        event
        for event in config["dependencies"]
        if [places["gallery"], "select"] in event["targets"] and event["backend_fn"]
    )
    body = {"data": [None], "fn_index": select["id"], "event_data": {"picture": picture.id}, "session_hash": "tab"}
    answers = {
        key: client.post("/gradio_api/run/predict", json=body, headers={"Cookie": f"{BROWSER_COOKIE}={key}"}).text
        for key in (ANN, BEN)
    }
    assert "a secret" in answers[ANN] and picture.path.name in answers[ANN]
    assert GONE in answers[BEN] and "a secret" not in answers[BEN] and picture.path.name not in answers[BEN]


# A tab comes back.


def test_a_tab_that_slept_finds_its_picture(serve: Any, uploads: Path) -> None:
    """Catches what a tab can do only as long as the server keeps a state for it: Gradio drops that after an hour."""
    first = serve()
    picture = made(first, ANN, prompt="a fox", seed=42)[1]

    async def build() -> Any:
        page = build_page(first.calls, "Because.")
        return page, build_app(first.queue, first.ledger, page)

    page, app = asyncio.run(build())
    gradio: Any = next(one.app for one in app.routes if hasattr(getattr(one, "app", None), "state_holder"))
    client = TestClient(app, headers={"Cookie": f"{BROWSER_COOKIE}={ANN}"})  # not entered: the queue runs already

    def call(name: str, *values: Any, **more: Any) -> list[Any]:
        (number,) = (number for number, one in page.fns.items() if getattr(one.fn, "__name__", "") == name)
        body = {"data": values, "fn_index": number, "session_hash": "tab", **more}
        answer = client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    shown = Shown(*call("select", event_data={"picture": picture.id}))
    assert shown.picture_id == picture.id  # kept in the page
    gradio.state_holder.session_data.clear()
    gradio.state_holder.time_last_used.clear()
    assert "settings of this picture" in call("repeat", shown.picture_id, *[None] * len(Inputs._fields))[0]
    assert call("reuse_seed", shown.picture_id)[1] == 42
    content = call("as_content", shown.picture_id)[1]
    assert client.get(f"/gradio_api/file={content['path']}").content == picture.path.read_bytes()
    for one in (shown.picture, shown.download["value"]):
        assert client.get(f"/gradio_api/file={one['path']}").content == picture.path.read_bytes()
    assert Shown(*call("select", event_data={"picture": picture.id})).picture_id == picture.id


def test_a_folder_that_is_wiped_costs_no_picture_that_is_being_made(serve: Any, tmp_path: Path) -> None:
    """Catches a page that fails after somebody has emptied the output folder, and a picture that is lost with it."""
    events = serve()
    gone = made(events, ANN, prompt="before")[1]
    shutil.rmtree(tmp_path / "outputs")
    assert "None yet." in listed(events)
    assert GONE in asyncio.run(events.pictures.select(chosen(gone.id), visitor())).message
    picture = made(events, ANN, prompt="after")[1]
    assert picture.path.is_file() and picture.path.parent == tmp_path / "outputs"
    shown = listed(events)
    assert "after" in shown and "before" not in shown


# How they look.


def test_a_picture_of_the_history_is_shown_in_full(events: Events) -> None:
    """Catches facts that are another picture's, and a picture that has lost its record on the way."""
    picture = made(events, prompt="a <fox>", seed=1)[1]
    made(events, prompt="an owl", seed=2)
    shown = asyncio.run(events.pictures.select(chosen(picture.id), visitor()))
    assert Path(shown.picture).read_bytes() == picture.path.read_bytes() and shown.picture_id == picture.id
    assert "<dd>1</dd>" in shown.facts and "<time datetime=" in shown.facts and "&lt;fox&gt;" in shown.settings
    assert shown.download["value"] == shown.picture and shown.grid == ""
    assert shown.before["interactive"] is False  # and in its place


def test_the_pictures_of_one_request_are_shown_together(events: Events) -> None:
    """Catches a picture without its siblings, and a grid with another request's or another person's pictures."""
    made(events, prompt="other")
    made(events, BEN, prompt="a secret")
    job, last = made(events, prompt="four", seed=3, num_images=4)
    shown = asyncio.run(events.pictures.select(chosen(last.id), visitor()))
    ids = [picture.id for picture in job.status.pictures]
    assert [part.split('"')[0] for part in shown.grid.split('data-picture="')[1:]] == ids
    assert "Picture 1 of 4: four, seed 3" in shown.grid and shown.grid.count("aria-current") == 1
    job.status.pictures[1].path.unlink()
    assert asyncio.run(events.pictures.select(chosen(last.id), visitor())).grid.count("<li") == 3


def test_a_new_picture_is_shown_without_the_ledger(events: Events, uploads: Path) -> None:
    """Catches the last picture of a server that shuts down, or has lost its disk, which its page never shows."""
    picture = made(events, tab=TAB)[1]
    events.ledger.close()
    shown = asyncio.run(events.pictures.show(chosen(picture.id), TAB, visitor()))
    assert Path(shown.picture).read_bytes() == picture.path.read_bytes() and shown.picture_id == picture.id
    assert asyncio.run(events.pictures.show(chosen("0" * 32), TAB, visitor())) == Shown()


def test_a_picture_whose_file_is_gone_is_told(events: Events) -> None:
    """Catches a traceback, and a frame that stays empty, after pruning."""
    picture = made(events)[1]
    picture.path.unlink()
    assert GONE in asyncio.run(events.pictures.select(chosen(picture.id), visitor())).message
    assert "None yet." in listed(events)
