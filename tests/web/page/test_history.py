"""The history: whose pictures they are, how they look, and how a tab comes back to its job.

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

from tests.support.scripted import Script, ledger_of, queue_of, submit, until
from tests.support.visitor import ANN, BEN, made, visitor
from uso.config import ModelConfig
from uso.request import GenerationRequest
from uso.web.access.identity import BROWSER_COOKIE, asker_of
from uso.web.api.calls import Calls
from uso.web.jobs.job import Job
from uso.web.page import html
from uso.web.page.events import FORGET, GONE, Events, Shown
from uso.web.page.inputs import KEEP
from uso.web.page.layout import build_page
from uso.web.server.app import build_app
from uso.web.settings import ServerSettings
from uso.web.store import history
from uso.web.store.ledger import Remembered
from uso.web.store.recovery import CUT_OFF


@pytest.fixture
def events(serve: Callable[..., Events]) -> Events:
    return serve()


def chosen(picture_id: Any) -> gr.EventData:
    return gr.EventData(None, {"picture": picture_id})


def came_back(events: Events, job_id: Any, key: str | None = ANN) -> list[Shown]:
    async def collect() -> list[Shown]:
        return [shown async for shown in events.come_back(job_id, visitor(key, "another tab"))]

    return asyncio.run(collect())


# Whose they are.


def test_everybody_sees_their_own_newest_first_over_a_restart(serve: Any) -> None:
    """Catches a history that ends with the process, or that shows others' pictures."""
    first = serve()
    made(first, ANN, prompt="a fox", seed=1)
    made(first, BEN, prompt="a heron", seed=2)
    made(first, ANN, prompt="an owl", seed=3)
    first.queue.close()
    second = serve()
    account, shown = asyncio.run(second.arrive(visitor(ANN)))
    assert account == "" and shown.count("<button") == 2 and "heron" not in shown
    assert "Picture 1 of 2: an owl, seed 3" in shown and "Picture 2 of 2: a fox, seed 1" in shown
    assert shown.index("an owl") < shown.index("a fox") and "data:image/webp;base64,UklG" in shown
    assert "None yet." in asyncio.run(second.arrive(visitor("c" * 43)))[1]
    assert "keeps no cookies" in asyncio.run(second.arrive(visitor(None)))[1]


def test_anothers_picture_is_not_there(events: Events) -> None:
    """Catches an event that takes an id from a browser without checking its owner."""
    job, picture = made(events, ANN, prompt="a secret")
    stranger = visitor(BEN)
    shown = asyncio.run(events.select(chosen(picture.id), None, stranger))
    assert GONE in shown.status and shown == Shown(status=shown.status)
    status, *rest = asyncio.run(events.reuse_all(picture.id, stranger))
    assert GONE in status and all(value == KEEP for value in rest)
    for status, *rest in (
        events.reuse_seed(picture.id, stranger),
        events.as_content(picture.id, stranger),
        events.as_style(picture.id, None, None, stranger),
    ):
        assert GONE in status and all(value == KEEP for value in rest)
    assert came_back(events, job.id, BEN) == [Shown(memory=FORGET)]
    assert "a secret" not in str(asyncio.run(events.arrive(stranger)))


@pytest.mark.parametrize(
    "wrong", [None, "", 7, "x" * 32, "../" * 10 + "ab", "/etc/passwd", ["a"], {"path": "/etc/passwd"}, "0" * 32 + "\n"]
)
def test_what_is_no_id_is_never_looked_up(events: Events, wrong: Any) -> None:
    """Catches a value from a browser that gets as far as the ledger or a file."""
    assert GONE in asyncio.run(events.select(chosen(wrong), None, visitor())).status
    assert GONE in events.as_content(wrong, visitor())[0] and not history.is_id(wrong)
    assert came_back(events, wrong) == [Shown(memory=FORGET)]
    assert GONE in asyncio.run(events.select(gr.EventData(None, wrong), None, visitor())).status


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
    select = next(event for event in config["dependencies"] if [places["history"], "select"] in event["targets"])
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

    shown = Shown(*call("select", None, event_data={"picture": picture.id}))
    assert shown.picture_id == picture.id  # kept in the page
    gradio.state_holder.session_data.clear()
    gradio.state_holder.time_last_used.clear()
    assert "settings of this picture" in call("reuse_all", shown.picture_id)[0]
    assert call("reuse_seed", shown.picture_id)[1] == 42
    content = call("as_content", shown.picture_id)[1]
    assert client.get(f"/gradio_api/file={content['path']}").content == picture.path.read_bytes()
    for one in (shown.picture, shown.download["value"]):
        assert client.get(f"/gradio_api/file={one['path']}").content == picture.path.read_bytes()
    assert Shown(*call("select", None, event_data={"picture": picture.id})).picture_id == picture.id


def test_a_job_of_another_server_is_told_and_kept_in_mind(serve: Any) -> None:
    """Catches "your picture is next", for ever, about a job that another server in the folder has."""
    first, second = serve(), serve()
    job = Job(GenerationRequest.create(first.config), asker_of(visitor()))
    ledger_of(first.queue).accepted(job)
    (shown,) = came_back(second, job.id)
    assert "Another server has it: your picture is waiting there." in shown.status and "next" not in shown.status
    assert shown.memory == job.id and shown.generate["interactive"] is True  # a reload asks again
    ledger_of(first.queue).started(job)
    assert "your picture is being made there." in came_back(second, job.id)[0].status
    ledger_of(first.queue).close()
    (shown,) = came_back(second, job.id)
    assert CUT_OFF in shown.status and shown.memory == FORGET


def test_a_folder_that_is_wiped_costs_no_picture_that_is_being_made(serve: Any, tmp_path: Path) -> None:
    """Catches a page that fails after somebody has emptied the output folder, and a picture that is lost with it."""
    events = serve()
    gone = made(events, ANN, prompt="before")[1]
    shutil.rmtree(tmp_path / "outputs")
    assert "None yet." in asyncio.run(events.arrive(visitor()))[1]
    assert GONE in asyncio.run(events.select(chosen(gone.id), None, visitor())).status
    picture = made(events, ANN, prompt="after")[1]
    assert picture.path.is_file() and picture.path.parent == tmp_path / "outputs"
    shown = asyncio.run(events.arrive(visitor()))[1]
    assert "after" in shown and "before" not in shown


def test_a_tab_comes_back_to_its_job(serve: Any, demo_config: ModelConfig, tmp_path: Path, uploads: Path) -> None:
    """Catches a reload that loses the job: its words, its Stop button, its picture."""
    script = Script(free=False)
    (tmp_path / "outputs").mkdir()
    queue = queue_of(lambda on_progress: script, ServerSettings(output=tmp_path / "outputs"))
    events = Events(Calls(demo_config, queue, ledger_of(queue)))
    queue.start()
    job = submit(queue, GenerationRequest.create(demo_config, num_inference_steps=4), asker_of(visitor()))
    until(lambda: job.status.state == "running")
    queue.followers.attach(job, "the tab")
    queue.followers.detach(job, "the tab")  # what a reload does first

    async def collect() -> list[Shown]:
        shown: list[Shown] = []
        async for one in events.come_back(job.id, visitor(session="the tab again")):
            if not shown:
                assert one.stop["interactive"] and not one.generate["interactive"] and one.job_id == job.id
            elif len(shown) == 1:
                assert len(job.followers) == 1
            shown.append(one)
            script.steps.release()
        return shown

    shown = asyncio.run(collect())
    assert isinstance(shown[-1].picture, str) and "Done." in shown[-1].status
    again = came_back(events, job.id)
    assert len(again) == 1 and isinstance(again[0].picture, str) and again[0].memory == job.id
    assert again[0].generate["interactive"] is True
    queue.close()


def test_a_job_that_a_restart_cut_off_is_told(serve: Any) -> None:
    """Catches a page that waits for ever for a job that no server has any more, or forgets it without a word."""
    first = serve()
    lost = Job(GenerationRequest.create(first.config), asker_of(visitor()))
    ledger_of(first.queue).accepted(lost)
    picture = made(first, ANN, prompt="kept", seed=8)
    first.queue.close()
    ledger_of(first.queue).close()
    second = serve()
    (shown,) = came_back(second, lost.id)
    assert CUT_OFF in shown.status and shown.memory == FORGET and shown.picture == KEEP
    (shown,) = came_back(second, picture[0].id)
    assert isinstance(shown.picture, str) and "<dd>8</dd>" in shown.facts


# How they look.


def test_a_picture_of_the_history_is_shown_in_full(events: Events) -> None:
    """Catches facts that are another picture's, and a picture that has lost its record on the way."""
    picture = made(events, prompt="a <fox>", seed=1)[1]
    made(events, prompt="an owl", seed=2)
    shown = asyncio.run(events.select(chosen(picture.id), None, visitor()))
    assert Path(shown.picture).read_bytes() == picture.path.read_bytes() and shown.picture_id == picture.id
    assert "<dd>1</dd>" in shown.facts and "<time datetime=" in shown.facts and "&lt;fox&gt;" in shown.settings
    assert shown.download["value"] == shown.picture and shown.preview == ""
    while_running = asyncio.run(events.select(chosen(picture.id), "a job of this page", visitor()))
    assert while_running.status == KEEP  # that place belongs to the job


def test_a_picture_whose_file_is_gone_is_told(events: Events) -> None:
    """Catches a traceback, and a frame that stays empty, after pruning."""
    picture = made(events)[1]
    picture.path.unlink()
    assert GONE in asyncio.run(events.select(chosen(picture.id), None, visitor())).status
    assert "None yet." in asyncio.run(events.arrive(visitor()))[1]


def test_names_of_pictures_are_escaped_and_short(events: Events) -> None:
    """Catches a prompt that is run as markup, and one that a screen reader reads for a minute."""
    picture = made(events)[1]
    one = Remembered(picture, "", None, 1.0, b"RIFF", '<b>\n"x"\' ' + "long " * 40)
    text = html.history([one], "Removed <soon>.", picture.id, True)
    assert "<b>" not in text and "&lt;b&gt; &quot;x&quot;&#x27; long" in text and "Removed &lt;soon&gt;." in text
    label = text.split('aria-label="')[1].split('"')[0]
    assert len(label) < 160 and label.endswith(f" ..., seed {picture.seed}")


def test_the_history_says_how_long_pictures_stay(serve: Any) -> None:
    """Catches pictures that are removed without a word of warning."""
    assert "removes pictures after 30 days" in asyncio.run(serve(prune_days=30).arrive(visitor()))[1]
