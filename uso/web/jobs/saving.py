"""What becomes of finished pictures, in a thread beside each worker's: checked, saved, recorded, then announced.

Encoding a large PNG takes a quarter of a second and more. Meanwhile the worker makes the next picture, or the next job.
"""

import logging
import queue
import sqlite3
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from uso import output
from uso.errors import USOError, WorkerLost
from uso.language import Text, text_of
from uso.request.request import GenerationResult
from uso.web.jobs.job import Job, Picture, Records, digest
from uso.web.jobs.safety import Safety

logger = logging.getLogger(__name__)

OnJob = Callable[[Job], None]
OnLost = Callable[[Job, WorkerLost], None]


@dataclass
class Outcome:
    """How a job goes, as far as the worker's thread and the one that saves know it."""

    made: int = 0
    """Pictures that were handed over to be saved."""
    error: BaseException | None = None
    lost: WorkerLost | None = None
    """The worker was lost in the middle of the job."""


class Saving:
    """Saves one picture after another, in the order in which they come.

    At most one waits, so pictures do not pile up in memory where the disk is slower than the model.

    Args:
        folder: where pictures are saved.
        on_end: called with what ended the thread against its will.
    """

    def __init__(
        self, folder: Path, records: Records, safety: Safety, name: str, on_end: Callable[[BaseException], None]
    ) -> None:
        self._folder = folder
        self._records = records
        self._safety = safety
        self._on_end = on_end
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def keep(self, result: GenerationResult, job: Job, outcome: Outcome) -> None:
        """Hand over a finished picture; waits while another one waits. A failure is noted in the outcome."""
        self._work.put(partial(self._keep, result, job, outcome))

    def close(self, job: Job, outcome: Outcome, job_over: OnJob, job_lost: OnLost) -> None:
        """Hand over a job whose last picture was handed over, or that failed. `job_over` is called when it is over,
        `job_lost` if its worker was lost before, when the pictures that it had made are saved."""
        self._work.put(partial(self._close, job, outcome, job_over, job_lost))

    def end(self) -> None:
        """Wait until everything is done, and end the thread."""
        self._work.put(None)
        self._thread.join()

    # In the thread.

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:  # without its thread the worker would wait for ever
                logger.exception("Pictures are saved on after an unexpected error.")
            except BaseException as error:
                self._on_end(error)

    def _keep(self, result: GenerationResult, job: Job, outcome: Outcome) -> None:
        """Save a finished picture and record it, then name it in the job's status."""
        if outcome.error is not None:  # the picture before it failed, and the job with it
            return
        try:
            self._safety.check_picture(result.request.prompt, result.image)
            picture = save_picture(job, result, self._folder)
            try:
                self._records.keep(job, picture, result.image)
            except sqlite3.Error:
                logger.exception("Picture %s is saved, but could not be entered into the ledger.", picture.path.name)
            job.add_picture(picture, result.notes)
        except BaseException as error:
            outcome.error = error

    def _close(self, job: Job, outcome: Outcome, job_over: OnJob, job_lost: OnLost) -> None:
        """Say how a job went."""
        if outcome.error is not None:
            logger.error("Job %s failed.", job.name, exc_info=outcome.error)
            job.reach(state="failed", preview=None, error=sentence(outcome.error, job.name))
        elif len(job.status.pictures) == job.request.num_images:
            job.reach(state="done", preview=None)
        elif outcome.lost is not None:
            job_lost(job, outcome.lost)
            return
        else:
            job.reach(state="cancelled", error=job.stop_reason)  # its preview is all that there is of it
        job_over(job)


def save_picture(job: Job, result: GenerationResult, folder: Path) -> Picture:
    """Save a picture so that its job can be found from it, should the server end at this moment.

    Raises:
        OutputError: it cannot be saved.
    """
    typed = {"typed_prompt": job.typed_prompt} if job.typed_prompt else {}
    path = output.save(result, folder, extra={"job": digest(job.id), **typed})
    request = result.request
    return Picture(
        id=uuid.uuid4().hex,
        path=path,
        width=request.width,
        height=request.height,
        seed=request.seed,
        num_inference_steps=request.num_inference_steps,
        seconds=sum(result.timings.values()),
    )


def sentence(error: BaseException, job: str = "") -> str:
    """What people read about an error; the log has the traceback."""
    if isinstance(error, USOError):
        return text_of(error)
    kind = type(error).__name__
    if not job:
        return Text("Something unexpected happened ({}); the server's log says more.", kind)
    return Text("Something unexpected happened ({}); the server's log says more under {}.", kind, job)
