"""Followers: jobs that nobody follows are given up, jobs that somebody follows are not."""

import threading
from typing import Any

import pytest

from tests.support.scripted import ANN, Script, states, submit, until
from uso.web.jobs import followers
from uso.web.jobs.queue import UNFOLLOWED


def test_a_job_that_nobody_follows_is_stopped_after_a_while(run: Any, request_for: Any) -> None:
    """Catches a GPU that works for closed tabs, waiting or running; and one stream that ends while another goes on."""
    script = Script(free=False)
    queue = run(script, orphan_grace=0.05)
    running, waiting, other = (submit(queue, request_for(steps=50), ANN) for _ in range(3))
    for job in (running, waiting, other):
        queue.followers.attach(job, "a stream")
    queue.followers.attach(other, "another stream of the same tab")
    until(lambda: running.status.state == "running")
    for job in (running, waiting, other):
        queue.followers.detach(job, "a stream")
    until(lambda: waiting.status.over and running.stop.is_set())
    script.steps.release(100)
    until(lambda: running.status.over and other.status.over)
    assert states(running, waiting, other) == ["cancelled", "cancelled", "done"]
    assert running.status.error == waiting.status.error == UNFOLLOWED


def test_a_job_that_nobody_comes_to_follow_is_stopped(
    run: Any, request_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a tab that is closed while its request is being taken: no stream ever ends that could give it up."""
    monkeypatch.setattr(followers, "FOLLOWED_SECONDS", 0.1)
    script = Script(free=False)
    queue = run(script, orphan_grace=0.05)
    left, followed = submit(queue, request_for(steps=50), ANN), submit(queue, request_for(), ANN)
    until(lambda: left.status.state == "running")
    queue.followers.attach(followed, "a stream")
    for job in (left, followed):  # a stream that is there before it is expected is not forgotten either
        queue.followers.expect(job)
    until(lambda: left.stop.is_set())
    script.steps.release(100)
    until(lambda: left.status.over and followed.status.over)
    assert states(left, followed) == ["cancelled", "done"]


def test_a_reload_in_time_keeps_the_job(run: Any, request_for: Any) -> None:
    """Catches a clock of the first stream that stops what the second one has taken over."""
    script = Script(free=False)
    queue = run(script, orphan_grace=0.2)
    job, following = submit(queue, request_for(), ANN), submit(queue, request_for(), ANN)
    for one in (job, following):
        queue.followers.attach(one, "before")
        queue.followers.detach(one, "before")
    queue.followers.attach(job, "after the reload")
    until(lambda: following.status.over)  # by now the other's time is up as well
    script.steps.release(100)
    until(lambda: job.status.over)
    assert states(job, following) == ["done", "cancelled"]


def test_many_streams_take_one_thread(run: Any, request_for: Any) -> None:
    """Catches a thread for every stream that ends: a stranger could make thousands."""
    script = Script(free=False)
    queue = run(script, orphan_grace=60.0)
    job = submit(queue, request_for(), ANN)
    before = threading.active_count()
    for number in range(200):
        queue.followers.attach(job, str(number))
        queue.followers.detach(job, str(number))
    assert threading.active_count() <= before and not job.stop.is_set()
    script.steps.release(100)


def test_jobs_without_followers_are_finished_where_that_is_set(run: Any, request_for: Any) -> None:
    """Catches a setting that nobody reads."""
    script = Script(free=False)
    queue = run(script, orphans="finish", orphan_grace=0.0)
    job = submit(queue, request_for(), ANN)
    queue.followers.attach(job, "a stream")
    queue.followers.detach(job, "a stream")
    script.steps.release(100)
    until(lambda: job.status.over)
    assert states(job) == ["done"]
