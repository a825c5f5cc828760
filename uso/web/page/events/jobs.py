"""Generate and Stop, and the stream that follows the jobs of a tab.

Generate only submits; `watch` follows whatever the tab has in the queue, one stream for each tab. The server keeps
nothing of a tab: its unguessable id lives in the page (`scripts.TAB_ID`), and each job has the id of its tab.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import gradio as gr

from uso.errors import USOError
from uso.language import Text, text_of, tr
from uso.web.access.identity import Asker, asker_of
from uso.web.api.calls import Calls, Inputs
from uso.web.jobs.job import Job, JobStatus, ServerStatus
from uso.web.page import html
from uso.web.page.inputs import KEEP, check_something, element_of
from uso.web.store import history
from uso.web.store.recovery import CUT_OFF, CUT_SHORT

logger = logging.getLogger(__name__)

TICK_SECONDS, LATER_TICK_SECONDS, READY_TICK_SECONDS = 1.0, 5.0, 20.0
EAGER_SECONDS = 10.0
"""How often a page asks whether the model is ready: in the first `EAGER_SECONDS`, later, and when it is ready and its
workers come and go. All tabs of an office may come from one address, which has a rate limit (`access/limits.py`)."""


class Live(NamedTuple):
    """The components that show what goes on."""

    jobs: Any = KEEP
    """What runs and waits."""
    preview: Any = KEEP
    status: Any = KEEP
    stop: Any = KEEP
    arrived: Any = KEEP
    """Id of the newest picture; its change makes the page show it."""


class JobEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.queue = calls.queue
        self.ledger = calls.ledger

    async def submit(self, tab: Any, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """The Generate button: (message, id of the new job)."""
        inputs = Inputs(*values)
        try:
            check_something(inputs)
            job = await self.calls.submit(inputs, request, tab if history.is_id(tab) else "")
        except USOError as error:
            return html.refusal(text_of(error), element_of(error)), KEEP
        return "", job.id

    async def watch(self, tab: Any, submitted: Any, request: gr.Request) -> AsyncGenerator[Live, None]:
        """What a tab's jobs do, until all are over. Only what has changed is sent.

        Args:
            submitted: id of the job that Generate just made, which may be over already. Without one the page has
                just loaded, and what became of the tab's last job is shown first.
        """
        yield Live()  # a stream without anything would empty the components
        if not history.is_id(tab):
            return
        owner = asker_of(request).owner
        past = {job for job in self.queue.of_tab(owner, tab) if job.status.over and job.id != submitted}
        if not submitted:
            yield await asyncio.to_thread(self._last, asker_of(request), tab)
        following = _Following()
        current_jobs = self.calls.follow_all(lambda: (job for job in self.queue.of_tab(owner, tab) if job not in past))
        async with aclosing(current_jobs) as news:
            async for statuses, server in news:
                yield following.changes(statuses, server)

    def _last(self, asker: Asker, tab: str) -> Live:
        """What became of a tab's jobs before its page was loaded again."""
        try:
            statuses = history.of_tab(self.queue, self.ledger, asker.owner, tab)
        except sqlite3.Error:
            logger.warning("The ledger could not be read for a page that was loaded.", exc_info=True)
            statuses = [job.status for job in self.queue.of_tab(asker.owner, tab)]
        if not statuses:
            return Live()
        made = (picture for status in statuses for picture in status.pictures)
        last, pictures = statuses[-1], [picture for picture in made if picture.path.is_file()]  # not deleted since
        lost = [status for status in statuses if status.error in (CUT_OFF, CUT_SHORT)]
        words = html.job_state(last, self.queue.status)
        if last in lost and len(lost) > 1:
            words = html.refusal(
                Text("The server was restarted before {} of your requests were finished. Send them again.", len(lost))
            )
        stopped = html.preview(last) if last.state == "cancelled" and last.preview and not last.pictures else ""
        return Live(status=words, preview=stopped, arrived=pictures[-1].id if pictures else KEEP)

    def unlock(self) -> Live:
        """After an unexpected error in the stream."""
        return Live(stop=_stop_button(()), preview="")

    def stop(self, tab: Any, request: gr.Request) -> None:
        """The Stop button: stops the job that runs, or else the next one. The stream reports it: an answer of this
        event could come after it, and say for ever that the job is being stopped."""
        jobs = self.queue.of_tab(asker_of(request).owner, tab) if history.is_id(tab) else ()
        job = _current(job for job in jobs if not job.status.over)
        if job is not None and not job.stop.is_set():  # else it was pressed twice: the next job is not stopped
            self.queue.cancel(job.id)

    def stop_one(self, chosen: gr.EventData, request: gr.Request) -> None:
        """Stop at one job of the strip."""
        job_id = chosen._data.get("job") if isinstance(chosen._data, dict) else None
        job = self.queue.find(str(job_id)) if history.is_id(job_id) else None
        if job is not None and job.asker.owner == asker_of(request).owner:
            self.queue.cancel(job.id)

    def tick(self) -> tuple[str, Any, Any]:
        """Repeated until the model is ready, or for ever where workers come and go: (its state, the Generate button,
        the timer)."""
        status = self.queue.status
        device = str(self.queue.provenance.get("device", ""))
        state = html.model_state(status, self.queue.loading_seconds, device)
        settled = status.state in ("ready", "failed")
        over = all(worker.status.state in ("ready", "failed") for worker in self.queue.workers)
        words = tr("Generate") if settled else tr("Generate when ready")
        button = gr.update(value=words, interactive=False) if status.state == "failed" else gr.update(value=words)
        every = TICK_SECONDS if self.queue.loading_seconds < EAGER_SECONDS else LATER_TICK_SECONDS
        if over and self.queue.workers_change:
            return state, button, gr.update(value=READY_TICK_SECONDS, active=True)
        return state, button, gr.update(value=every, active=not over)


class _Following:
    """What one page was told last of its jobs."""

    def __init__(self) -> None:
        self._sent = Live()  # the page may still show the preview of a job that was stopped
        self._preview: bytes | None = None
        """That `self._sent.preview` shows."""
        self._ahead = -1
        self._pictures: set[str] = set()
        self._failed: dict[Job, JobStatus] = {}

    def changes(self, statuses: dict[Job, JobStatus], server: ServerStatus) -> Live:
        live = self._live(statuses, server)
        changed = Live(*(KEEP if new == old else new for new, old in zip(live, self._sent, strict=True)))
        self._sent = Live(*(old if new is KEEP else new for new, old in zip(live, self._sent, strict=True)))
        return changed

    def _live(self, statuses: dict[Job, JobStatus], server: ServerStatus) -> Live:
        going_on = tuple(job for job, status in statuses.items() if not status.over)
        self._failed |= {job: status for job, status in statuses.items() if status.state == "failed"}
        job = _current(going_on) or max(statuses, key=lambda one: one.ended_at or 0.0)  # the one that ended last
        status = statuses[job]
        moved, self._ahead = status.ahead != self._ahead, status.ahead
        new = [one.id for each in statuses.values() for one in each.pictures if one.id not in self._pictures]
        self._pictures.update(new)
        shown = {**self._failed, **{one: statuses[one] for one in going_on}}
        return Live(
            jobs="" if not going_on and list(shown) in ([], [job]) else html.jobs(shown, server),
            preview=self._frame(status),
            status=html.job_state(status, server, moved, max(0, len(going_on) - 1)),
            stop=_stop_button(going_on),
            arrived=new[-1] if new else KEEP,
        )

    def _frame(self, status: JobStatus) -> Any:
        """The preview of the job that is shown. It stays when the job is stopped before its first picture."""
        if status.preview is None or (status.over and status.pictures):
            self._preview = None
            return ""
        if status.preview is self._preview and not status.over:
            return KEEP
        self._preview = status.preview
        return html.preview(status)


def _current(jobs: Sequence[Job] | Iterable[Job]) -> Job | None:
    """The job that the page is about: the first that runs, or else the first that waits."""
    jobs = list(jobs)
    return next((job for job in jobs if job.status.state == "running"), jobs[0] if jobs else None)


def _stop_button(jobs: Sequence[Job]) -> Any:
    """For jobs that are not over."""
    job = _current(jobs)
    if job is not None and job.stop.is_set():
        return gr.update(interactive=False, value=tr("Stopping ..."))
    return gr.update(interactive=bool(jobs), value=tr("Stop"))
