"""Generate, Stop and the stream that follows a tab's jobs, over a pipeline that is a script."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from tests.support.scripted import PATIENCE, Script, ledger_of, queue_of, submit, until
from tests.support.visitor import ANN, BEN, TAB, Events, made, visitor
from uso import output
from uso.config import ModelConfig
from uso.request.request import GenerationRequest
from uso.web.access.identity import asker_of
from uso.web.api.calls import Calls, Inputs, request_from
from uso.web.jobs.job import Job
from uso.web.jobs.queue import JobQueue
from uso.web.page.events.jobs import Live
from uso.web.page.inputs import KEEP
from uso.web.settings import ServerSettings
from uso.web.store.recovery import CUT_OFF, CUT_SHORT


def generate(events: Events, inputs: Inputs, key: str | None = ANN, tab: Any = TAB) -> tuple[Any, Any]:
    return asyncio.run(events.jobs.submit(tab, visitor(key), *inputs))


FOX = Inputs("a fox")


def watched(
    events: Events,
    submitted: Any = "",
    key: str | None = ANN,
    tab: Any = TAB,
    each: Callable[[Live], object] = lambda live: None,
) -> list[Live]:
    """All that the stream of a tab sends.

    Args:
        each: called with it.
    """

    async def collect() -> list[Live]:
        sent: list[Live] = []
        async for live in events.jobs.watch(tab, submitted, visitor(key)):
            if live != Live() or sent:  # the first says nothing
                sent.append(live)
                each(live)
        return sent

    return asyncio.run(collect())


def words(sent: list[Live]) -> list[str]:
    return [live.status for live in sent if live.status is not KEEP]


@pytest.fixture
def script() -> Script:
    """Takes no step until a test says so."""
    return Script(free=False)


@pytest.fixture
def slow(demo_config: ModelConfig, settings: ServerSettings, uploads: Path, script: Script) -> Any:
    queue = queue_of(lambda on_progress: script, settings)
    queue.start()
    yield Events(Calls(demo_config, queue, ledger_of(queue)))
    script.steps.release(1000)
    queue.close()
    queue.join(PATIENCE)


# Generate, and what follows.


def test_generate_answers_at_once_and_the_stream_shows_the_picture(events: Events, queue: JobQueue) -> None:
    """Catches a Generate that waits for its picture, a Stop that stays on, a picture that never arrives."""
    message, job_id = generate(events, Inputs(prompt="a <fox>", seed=5, num_inference_steps=2))
    job = queue.find(job_id)
    assert message == "" and job is not None and job.status.state == "queued"
    queue.start()
    sent = watched(events, job_id)
    assert sent[0].stop == gr.update(interactive=True, value="Stop") and "a &lt;fox&gt;" in sent[0].jobs
    done = sent[-1]
    assert done.stop == gr.update(interactive=False, value="Stop") and done.jobs == "" and "Done." in done.status
    (picture,) = job.status.pictures
    assert [live.arrived for live in sent if live.arrived is not KEEP] == [picture.id]
    assert output.read(picture.path).values()["prompt"] == "a <fox>"


def test_a_job_that_is_over_before_the_stream_begins_is_told(events: Events, queue: JobQueue) -> None:
    """Catches a fast model whose picture is never shown, or stays behind the preview of a job that was stopped before;
    and the picture of an earlier job that is shown again."""
    queue.start()
    made(events, tab=TAB)
    job, picture = made(events, tab=TAB)
    (live,) = watched(events, job.id)
    assert live.arrived == picture.id and "Done." in live.status and live.preview == ""
    assert watched(events, "0" * 32) == []


def test_several_pictures_arrive_one_by_one(slow: Events, script: Script) -> None:
    """Catches pictures that come all at the end, and progress that begins anew with each."""
    _, job_id = generate(slow, Inputs("a fox", num_inference_steps=2, num_images=3, seed=7))
    sent = watched(slow, job_id, each=lambda live: script.steps.release())
    job = slow.queue.find(job_id)
    assert job is not None and [picture.seed for picture in job.status.pictures] == [7, 8, 9]
    arrived = [live.arrived for live in sent if live.arrived is not KEEP]
    assert arrived == [picture.id for picture in job.status.pictures]
    assert any("Picture 2 of 3. Step 1 of 2" in status for status in words(sent))
    assert "Done. 3 pictures." in words(sent)[-1]


@pytest.mark.parametrize("wrong", [0, 9, 2.5, "many", True])
def test_a_number_of_pictures_that_is_not_allowed_is_refused(events: Events, queue: JobQueue, wrong: Any) -> None:
    """Catches a click that asks for a thousand pictures, and one that is cut to eight in silence."""
    message, job_id = generate(events, Inputs("a fox", num_images=wrong))
    assert "a whole number from 1 to 8 is allowed" in message and job_id is KEEP and queue.status.waiting == 0


def test_further_clicks_join_the_stream(slow: Events, script: Script) -> None:
    """Catches a Generate that locks, a request that nobody follows, and another tab's request in the strip."""
    _, first = generate(slow, Inputs(prompt="first", num_inference_steps=3))
    generate(slow, Inputs(prompt="elsewhere", num_inference_steps=1), tab="8" * 32)
    more: list[str] = []

    def each(live: Live) -> None:
        if not more:
            job = request_from(slow.config, Inputs(prompt="second", num_inference_steps=3))
            more.append(submit(slow.queue, job, asker_of(visitor()), TAB).id)
        script.steps.release()

    sent = watched(slow, first, each=each)
    both = [live.jobs for live in sent if live.jobs is not KEEP and live.jobs.count("<li") == 2]
    assert both and all("first" in strip and "second" in strip and "elsewhere" not in strip for strip in both)
    assert [slow.queue.find(job_id).status.state for job_id in (first, *more)] == ["done"] * 2  # type: ignore[union-attr]


def test_a_request_that_fails_stays_in_sight_behind_the_next(slow: Events, script: Script) -> None:
    """Catches a failure that is covered at once by the progress of the next request."""
    _, first = generate(slow, Inputs(prompt="fails", num_inference_steps=2))
    generate(slow, Inputs(prompt="goes on", num_inference_steps=2))
    script.error = RuntimeError("no")
    script.steps.release()

    def each(live: Live) -> None:
        if slow.queue.find(first).status.over:  # type: ignore[union-attr]
            script.error = None
            script.steps.release()

    sent = watched(slow, first, each=each)
    last = [live.jobs for live in sent if live.jobs is not KEEP][-1]
    assert "Done." in words(sent)[-1] and "goes on" not in last
    assert "fails" in last and "uso-bad" in last and "Something unexpected" in last


def test_previews_are_sent_once_each_and_go_with_the_picture(slow: Events, script: Script) -> None:
    """Catches a preview that is sent again with every step, and one that stays over the finished picture."""
    _, job_id = generate(slow, Inputs("a fox", num_inference_steps=16))
    sent = watched(slow, job_id, each=lambda live: script.steps.release())
    previews = [live.preview for live in sent if live.preview is not KEEP]
    assert previews.pop(0) == ""  # of a job that was stopped before
    assert previews[-1] == "" and 1 < len(previews) <= 9 and len(set(previews)) == len(previews)
    assert all(first != second for first, second in pairwise(words(sent)))


def test_a_refusal_says_why_and_makes_no_job(events: Events, queue: JobQueue) -> None:
    """Catches an error that shows nothing, or that starts a job."""
    message, job_id = generate(events, Inputs("a fox", width=500))
    assert "Width is 500" in message and 'role="alert"' in message and job_id is KEEP and queue.status.waiting == 0


# Stop.


@pytest.mark.parametrize("at_work", [True, False])
def test_stop_reaches_the_job_and_keeps_its_preview(slow: Events, script: Script, at_work: bool) -> None:
    """Catches a Stop button that ends the stream but not the work, or that does nothing while the job waits; and a
    preview that is gone with the job."""
    if not at_work:
        submit(slow.queue, request_from(slow.config, Inputs()), asker_of(visitor()))
        until(lambda: script.seen)
    _, job_id = generate(slow, Inputs(prompt="mine", num_inference_steps=40))
    job = slow.queue.find(job_id)
    assert job is not None
    stopping: list[Live] = []

    def each(live: Live) -> None:
        if not job.stop.is_set() and (not at_work or job.status.preview):
            slow.jobs.stop(TAB, visitor())
        if live.stop == gr.update(interactive=False, value="Stopping ..."):
            stopping.append(live)
        if at_work and (stopping or not job.stop.is_set()):
            script.steps.release()

    sent = watched(slow, job_id, each=each)
    assert len(stopping) == at_work
    assert "Stopped." in words(sent)[-1] and sent[-1].stop == gr.update(interactive=False, value="Stop")
    assert not list(slow.queue.settings.output.glob("*.png")) and script.closed_early == (["mine"] if at_work else [])
    slow.jobs.stop(TAB, visitor())  # nothing is left to stop
    last = [live.preview for live in sent if live.preview is not KEEP]
    assert ("not finished" in last[-1]) if at_work else last == [""]
    (again,) = watched(slow)
    assert again.preview == (last[-1] if at_work else "") and "Stopped." in again.status


def test_a_stop_that_is_pressed_twice_stops_one_request(slow: Events, script: Script) -> None:
    """Catches an impatient person who loses the request that waits."""
    ids = [generate(slow, Inputs(prompt=name, num_inference_steps=2))[1] for name in "ab"]
    until(lambda: script.seen)
    for _ in range(2):
        slow.jobs.stop(TAB, visitor())
    script.steps.release(100)
    watched(slow, ids[0])
    states = [slow.queue.find(one).status.state for one in ids]  # type: ignore[union-attr]
    assert states == ["cancelled", "done"]


def test_the_finished_pictures_of_a_stopped_request_are_shown(slow: Events, script: Script) -> None:
    """Catches a preview that stands over what was finished before Stop was pressed."""
    _, job_id = generate(slow, Inputs(prompt="two", num_inference_steps=4, num_images=2))
    job = slow.queue.find(job_id)
    assert job is not None

    def each(live: Live) -> None:
        if job.status.pictures and job.status.preview:
            slow.jobs.stop(TAB, visitor())
        script.steps.release()

    sent = watched(slow, job_id, each=each)
    assert "Finished before: 1 of 2 pictures." in words(sent)[-1]
    assert [live.preview for live in sent if live.preview is not KEEP][-1] == ""
    (again,) = watched(slow)
    assert again.preview in ("", KEEP) and again.arrived == job.status.pictures[0].id


def test_each_request_can_be_stopped_by_itself(slow: Events, script: Script) -> None:
    """Catches a Stop of the strip that stops another request."""
    ids = [generate(slow, Inputs(prompt=name, num_inference_steps=2))[1] for name in "abc"]
    slow.jobs.stop_one(gr.EventData(None, {"job": ids[1]}), visitor())
    script.steps.release(100)
    watched(slow, ids[0])
    states = [slow.queue.find(one).status.state for one in ids]  # type: ignore[union-attr]
    assert states == ["done", "cancelled", "done"]


def test_the_last_words_are_of_the_request_that_ended_last(slow: Events, script: Script) -> None:
    """Catches "Stopped." under the pictures of a request that was finished, because a later one had been stopped; and
    requests that wait without a word in the bar."""
    ids = [generate(slow, Inputs(prompt=name, num_inference_steps=2))[1] for name in "ab"]
    until(lambda: slow.queue.find(ids[0]).status.state == "running")  # type: ignore[union-attr]

    def each(live: Live) -> None:
        if live.status is not KEEP and "1 more request waits." in live.status:
            slow.jobs.stop_one(gr.EventData(None, {"job": ids[1]}), visitor())
            script.steps.release(100)

    told = words(watched(slow, ids[0], each=each))
    assert any("1 more request waits." in one for one in told)
    assert "Done." in told[-1] and "Stopped" not in told[-1]


def test_anothers_job_can_be_neither_followed_nor_stopped(events: Events, queue: JobQueue) -> None:
    """Catches an id from a browser that is taken without a check of its owner: the ids live in the page."""
    _, job_id = generate(events, Inputs(prompt="a secret"))
    hers = queue.find(job_id)
    assert hers is not None
    events.jobs.stop(TAB, visitor(BEN))
    events.jobs.stop_one(gr.EventData(None, {"job": job_id}), visitor(BEN))
    assert watched(events, job_id, BEN) == [] and watched(events, "", BEN) == []
    assert hers.status.state == "queued" and not hers.followers
    events.jobs.stop_one(gr.EventData(None, {"job": job_id}), visitor(ANN))
    assert hers.status.state == "cancelled"


@pytest.mark.parametrize("wrong", [None, 7, ["a"], {"path": "/etc/passwd"}, "none", "../" * 10 + "ab", "0" * 32 + "\n"])
def test_what_is_no_id_finds_nothing(events: Events, queue: JobQueue, wrong: Any) -> None:
    """Catches a value from a browser that fails an event, or is looked up before it has the form of an id."""
    events.jobs.stop(wrong, visitor())
    events.jobs.stop_one(gr.EventData(None, wrong), visitor())
    events.jobs.stop_one(gr.EventData(None, {"job": wrong}), visitor())
    assert watched(events, wrong, tab=wrong) == []
    _, job_id = generate(events, FOX, tab=wrong)  # a page without storage can make pictures all the same
    assert queue.find(job_id).tab == ""  # type: ignore[union-attr]


# A tab comes back.


def test_a_tab_comes_back_to_its_job(slow: Events, script: Script) -> None:
    """Catches a reload that loses the job: its words, its Stop button, its picture."""
    _, job_id = generate(slow, Inputs("a fox", num_inference_steps=4))
    job = slow.queue.find(job_id)
    assert job is not None
    until(lambda: job.status.state == "running")
    slow.queue.followers.attach(job, "the tab")
    slow.queue.followers.detach(job, "the tab")  # what a reload does first
    seen: list[Live] = []

    def each(live: Live) -> None:
        seen.append(live)
        assert len(seen) == 1 or len(job.followers) == 1
        script.steps.release()

    sent = watched(slow, each=each)
    assert sent[1].stop == gr.update(interactive=True, value="Stop")
    assert sent[-1].arrived == job.status.pictures[0].id and "Done." in sent[-1].status
    (again,) = watched(slow)
    assert again.arrived == job.status.pictures[0].id and "Done." in again.status


def test_a_job_of_another_server_is_told_and_kept_in_mind(serve: Any) -> None:
    """Catches "your picture is next", for ever, about a job that another server in the folder has."""
    first, second = serve(), serve()
    job = Job(GenerationRequest.create(first.config), asker_of(visitor()), tab=TAB)
    first.ledger.accepted(job)
    (shown,) = watched(second)
    assert "Another server has it: your picture is waiting there." in shown.status and "next" not in shown.status
    first.ledger.started(job)
    assert "your picture is being made there." in watched(second)[0].status
    first.ledger.close()
    assert CUT_OFF in watched(second)[0].status


def test_jobs_that_a_restart_cut_off_are_told(serve: Any) -> None:
    """Catches a page that waits for ever for a job that no server has any more, or forgets it without a word; and
    pictures of a request that was half done."""
    first = serve()
    _, kept = made(first, tab=TAB, prompt="kept", seed=8)
    half, picture = made(first, tab=TAB, prompt="half")
    with first.ledger.transaction() as db:  # as if the server had been killed after the first of three
        db.execute("UPDATE jobs SET state = 'running', num_images = 3 WHERE id = ?", (half.id,))
    first.queue.close()
    first.ledger.close()
    second = serve()
    (shown,) = watched(second)
    assert CUT_SHORT in shown.status and "Finished before: 1 of 3 pictures." in shown.status
    assert shown.arrived == picture.id
    lost = Job(GenerationRequest.create(second.config), asker_of(visitor()), tab=TAB)
    second.ledger.accepted(lost)
    second.queue.close()
    second.ledger.close()
    (shown,) = watched(serve())
    assert "restarted before 2 of your requests were finished" in shown.status and shown.arrived == picture.id
    assert kept.path.is_file()
