"""What the engine and everybody who looks at it talk about: jobs, what they have reached, and finished pictures.

Plain data. What others may read (`EngineStatus`, `JobStatus`) are frozen snapshots that are replaced as a whole, so
that no lock is needed to look at them.
"""

import threading
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from uso.request import GenerationRequest, GenerationResult, Progress
from uso.web.access.identity import Asker

OnProgress = Callable[[str, float], None]
"""Called while the model loads: stage in words, share done from 0 to 1."""

NAME_LETTERS = 12
"""Of a job's id, in logs and messages: enough to find it, too little to ask for it."""


class Pipeline(Protocol):
    """What the engine needs of a model: `uso.USOPipeline`, seen from here."""

    provenance: dict[str, Any]

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]: ...

    def preview(self, progress: Progress) -> Image.Image | None: ...


Load = Callable[[OnProgress], Pipeline]
"""Brings the model for one worker; called once, in the worker's own thread, so that it can import torch there."""


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """Where the model is on its way to being ready; with several workers, where the first of them is."""

    state: Literal["starting", "loading", "ready", "failed"] = "starting"
    stage: str = "starting"
    share: float = 0.0
    """Of the loading, 0 to 1."""
    error: str = ""
    """`failed`: why, and what to do, as a sentence; also of workers that failed while others are ready."""
    workers: int = 1
    workers_ready: int = 0
    waiting: int = 0
    """Jobs in line."""
    running: int = 0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture: its file, and what was really used."""

    id: str
    """Unguessable; whoever has it may see the picture."""
    path: Path
    width: int
    height: int
    seed: int
    num_inference_steps: int
    seconds: float


State = Literal["queued", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What a job has reached."""

    state: State = "queued"
    ahead: int = 0
    """`queued`: how many pictures are finished before its turn, those in the making included."""
    starts_at: float | None = None
    """`queued`: when its turn is expected, by `time.monotonic()`; None until a step has been measured."""
    stage: str = ""
    """`running`: `condition`, `denoise` or `decode`."""
    step: int = 0
    num_steps: int = 0
    ends_at: float | None = None
    """`running`: when the picture is expected, by `time.monotonic()`; None until a step has been measured."""
    preview: bytes | None = None
    """`running`: the picture as predicted so far, a small WebP file."""
    pictures: tuple[Picture, ...] = ()
    error: str = ""
    """`failed`, or `cancelled` by the server: why, as a sentence."""

    @property
    def over(self) -> bool:
        return self.state in ("done", "cancelled", "failed")

    @property
    def seconds_to_start(self) -> float | None:
        return _until(self.starts_at)

    @property
    def seconds_left(self) -> float | None:
        return _until(self.ends_at)


@dataclass(eq=False)
class Job:
    """One request on its way. Read `status`; everything else is the engine's."""

    request: GenerationRequest
    asker: Asker
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Unguessable; whoever has it may look at the job and stop it."""
    status: JobStatus = field(default_factory=JobStatus)
    stop: threading.Event = field(default_factory=threading.Event)
    stopped_because: str = ""
    watchers: set[str] = field(default_factory=set)
    """The streams of pages and programs that follow it."""
    accepted_at: float = field(default_factory=time.monotonic)
    """This and the other moments are by `time.monotonic()`."""
    started_at: float | None = None
    ended_at: float | None = None
    worker: int | None = None
    """The number of the worker that took it."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, of all its pictures."""
    step_seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How logs and messages call it."""
        return self.id[:NAME_LETTERS]

    @property
    def person(self) -> str:
        return self.asker.person

    @property
    def image_bytes(self) -> int:
        """Size of its reference images."""
        return sum(len(image.data) for image in (*self.request.content_images, *self.request.style_images))

    def reach(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)

    def leave_line(self, **changes: Any) -> None:
        """It is over without having had its turn."""
        self.reach(starts_at=None, **changes)
        self.ended_at = time.monotonic()


def _until(moment: float | None) -> float | None:
    return None if moment is None else max(0.0, moment - time.monotonic())
