"""Jobs, their status, finished pictures, and the protocols of pipeline and ledger.

Plain data. `ServerStatus` and `JobStatus` are frozen snapshots that are replaced as a whole, so any thread may read
them without a lock.
"""

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from uso.language import Text
from uso.request.references import ReferenceImage, SavedStyle
from uso.request.request import GenerationRequest, GenerationResult, Progress
from uso.web.access.identity import Asker

OnProgress = Callable[[str, float], None]
"""Called while the model loads: stage, share done from 0 to 1. Called again later, it says that the model is gone, and
is to be loaded again: what works elsewhere may be lost."""

NAME_LETTERS = 12
"""Characters of a job's id in logs and messages: enough to find the job, too few to query it."""


class Pipeline(Protocol):
    """What a worker needs of a model: `uso.USOPipeline` seen from here, or `uso.cluster`'s on another machine.

    Any method may raise `WorkerLost`: then the model is gone.
    """

    provenance: dict[str, Any]

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]: ...

    def preview(self, progress: Progress) -> Image.Image | None: ...

    @property
    def projector(self) -> str: ...

    def save_style(
        self, images: Sequence[ReferenceImage], title: str, *, strength: float, weights: Sequence[float] | None
    ) -> SavedStyle: ...

    def prompt_counter(self) -> Callable[[str], int | None] | None: ...


Load = Callable[[OnProgress], Pipeline]
"""Loads the model of one worker. Called in the worker's own thread, so that torch is imported there; called again when
the model was lost."""


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """How far the model has loaded (with several workers: the one that is furthest), and how many jobs there are."""

    state: Literal["starting", "loading", "ready", "failed"] = "starting"
    stage: str = "starting"
    share: float = 0.0
    """Of the loading, 0 to 1."""
    error: str = ""
    """Why the model failed and what to do, as a sentence. Also set when some workers failed while others are ready."""
    notice: str = ""
    """What people should know of the workers, as a sentence."""
    workers: int = 1
    workers_ready: int = 0
    waiting: int = 0
    """Queued jobs."""
    running: int = 0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture: its file, and the values that were used."""

    id: str
    """Unguessable."""
    path: Path
    width: int
    height: int
    seed: int
    num_inference_steps: int
    seconds: float


State = Literal["queued", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """How far a job is."""

    state: State = "queued"
    num_images: int = 1
    """How many pictures were requested."""
    ahead: int = 0
    """`queued`: number of jobs before this one, running ones included."""
    pictures_ahead: int = 0
    """`queued`: number of pictures that are still to be made before its first."""
    starts_at: float | None = None
    """`queued`: when it is expected to start, by `time.monotonic()`; None until a step has been measured."""
    stage: str = ""
    """`running`: `condition`, `denoise` or `decode`."""
    step: int = 0
    num_steps: int = 0
    making: int = 1
    """`running`: the number of the picture that is being made. The one before it may not be saved yet."""
    ends_at: float | None = None
    """`running`: when it is expected to end, by `time.monotonic()`; None until a step has been measured."""
    preview: bytes | None = None
    """`running`, and `cancelled` after that: the picture as predicted so far, as a small WebP file."""
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    """What people should know of how their request was read, as sentences."""
    error: str = ""
    """`failed`, or `cancelled` by the server: why, as a sentence."""
    elsewhere: bool = False
    """`queued` or `running` at another server in the same folder; how far it is, only that one knows."""

    @property
    def over(self) -> bool:
        return self.state in ("done", "cancelled", "failed")

    @property
    def seconds_to_start(self) -> float | None:
        return _until(self.starts_at)

    @property
    def seconds_left(self) -> float | None:
        return _until(self.ends_at)


@dataclass(frozen=True)
class Turn:
    """A worker had a job, and was lost before the job was done. Moments are those of `Job`."""

    worker: int
    started: float
    ended: float


@dataclass(eq=False)
class Job:
    """One admitted request. Others read `status`; the rest is written by the queue and by the job's worker."""

    request: GenerationRequest
    asker: Asker
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Unguessable; whoever has it may query and cancel the job."""
    typed_prompt: str = ""
    """The prompt as it was typed, if it was translated."""
    tab: str = ""
    """The browser's tab that asked for it, under an unguessable id; empty for programs."""
    status: JobStatus = field(default_factory=JobStatus)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to stop it after the current step."""
    stop_reason: str = ""
    followers: set[str] = field(default_factory=set)
    """Ids of the streams, of pages and programs, that follow it."""
    accepted_at: float = field(default_factory=time.monotonic)
    """Like the other moments, by `time.monotonic()`."""
    started_at: float | None = None
    ended_at: float | None = None
    worker: int | None = None
    """Number of the worker that ran it."""
    lost: list[Turn] = field(default_factory=list)
    """Earlier turns, on workers that were lost."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, summed over its pictures."""
    step_seconds: list[float] = field(default_factory=list)
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.status = replace(self.status, num_images=self.request.num_images)

    @property
    def name(self) -> str:
        """Its name in logs and messages."""
        return self.id[:NAME_LETTERS]

    @property
    def person(self) -> str:
        return self.asker.person

    @property
    def prompt(self) -> str:
        """In the person's own words."""
        return self.typed_prompt or self.request.prompt

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of their request before it runs."""
        return (Text("The prompt was translated: {}", self.request.prompt),) if self.typed_prompt else ()

    @property
    def pictures_left(self) -> int:
        """How many of its pictures are still to be made."""
        return self.request.num_images - len(self.status.pictures)

    @property
    def rest(self) -> GenerationRequest:
        """What is still to be made. The whole request, unless its worker was lost in the middle of it."""
        made = len(self.status.pictures)
        return replace(self.request, seed=self.request.seed + made, num_images=self.pictures_left)

    @property
    def image_bytes(self) -> int:
        """Size of its reference images."""
        return sum(len(image.data) for image in (*self.request.content_images, *self.request.style_images))

    def reach(self, **changes: Any) -> None:
        with self._changing:  # its worker reports steps while a picture's file is reported
            self.status = replace(self.status, **changes)

    def add_picture(self, picture: Picture, notes: Sequence[str]) -> None:
        with self._changing:
            self.status = replace(self.status, pictures=(*self.status.pictures, picture), notes=(*self.notes, *notes))

    def end_unstarted(self, state: State, error: str) -> None:
        """End a job that was never run."""
        self.reach(state=state, error=error, starts_at=None)
        self.ended_at = time.monotonic()


class Records(Protocol):
    """Where jobs and pictures are recorded: `uso.web.store.ledger.Ledger` seen from here. Called from any thread.

    Every method writes to the disk, and raises `sqlite3.Error` if it cannot.
    """

    def accepted(self, job: Job) -> None:
        """A job was admitted."""

    def started(self, job: Job) -> None:
        """A worker has taken a job. It may be told too late, when the job is over."""

    def ended(self, job: Job) -> None:
        """A job is over."""

    def keep(self, job: Job, picture: Picture, image: Image.Image) -> None:
        """A picture of a job was saved."""


def digest(job_id: str) -> str:
    """How a PNG names its job: enough to recognise the job's id, too little to query it."""
    return hashlib.sha256(job_id.encode()).hexdigest()


def _until(moment: float | None) -> float | None:
    return None if moment is None else max(0.0, moment - time.monotonic())
