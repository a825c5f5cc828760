"""A batch over the workers of a Ray cluster: one thread for each, which takes the next job when it is free.

Pictures are saved here, as they come. A job whose worker is lost goes on with the pictures that are missing, once.
"""

import argparse
import logging
import threading
import time
from collections import Counter, deque
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from uso.cli.pictures.batch import Job, check_prompts
from uso.cli.pictures.request import say_once
from uso.cluster.address import Workers, model_spec
from uso.config import ModelConfig
from uso.errors import WorkerLost
from uso.request.request import GenerationResult
from uso.terminal import on_terminal, print_path, say
from uso.weights.flags import load_options

if TYPE_CHECKING:
    from uso.cluster.cluster import Cluster
    from uso.cluster.pipeline import RemotePipeline

logger = logging.getLogger(__name__)


def make_elsewhere(
    args: argparse.Namespace,
    config: ModelConfig,
    why: str | None,
    workers: Workers,
    jobs: list[Job],
    waiting: list[Job],
) -> int:
    """Make what is missing of the waiting jobs; returns how many failed.

    Raises:
        USOError: the cluster cannot be used, no worker can load the model, or prompts are refused.
    """
    from uso.cluster.cluster import Cluster

    cluster = Cluster(workers, args.device)
    try:
        cluster.connect()
        spec = model_spec(args, config, workers, load_options(args) | {"why": why}, previews=False)
        return Batch(cluster, spec, config, Path(args.batch), jobs, waiting).run()
    finally:
        cluster.end()


class Batch:
    """
    Args:
        jobs: all of the file.
        waiting: those that lack pictures.
    """

    def __init__(
        self,
        cluster: "Cluster",
        spec: dict[str, Any],
        config: ModelConfig,
        path: Path,
        jobs: list[Job],
        waiting: list[Job],
    ) -> None:
        self._cluster = cluster
        self._spec = spec
        self._config = config
        self._path = path
        self._jobs = jobs
        self._waiting = deque(waiting)
        self._missing = sum(len(job.missing()) for job in waiting)
        self._changed = threading.Condition()
        """Guards what follows, and what is printed."""
        self._open = len(waiting)
        """Jobs that are not over."""
        self._loaded = 0
        self._living = 0
        """Threads."""
        self._checked = False
        self._problems: list[BaseException] = []
        self._lost: Counter[int] = Counter()
        """By the job's number: how often its worker was lost."""
        self._failed = self._made = 0
        self._began = 0.0

    def run(self) -> int:
        count = self._cluster.count()
        form = "{n}/{total} pictures |{bar}| {elapsed}{postfix}"
        with tqdm(total=self._missing, bar_format=form, leave=False, disable=not on_terminal()) as self._bar:
            self._living = count
            for number in range(count):
                threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()
            with self._changed:
                while self._open and self._living:
                    self._changed.wait(timeout=0.5)  # in short turns, so that Ctrl-C is heard
        if self._open:
            raise self._problems[0]
        if self._made:
            say(f"{self._rate()} on {count} worker{'s' if count > 1 else ''}.")
        return self._failed

    def _rate(self) -> str:
        return f"{60 * self._made / max(time.monotonic() - self._began, 1e-3):.1f} pictures a minute"

    # In each worker's thread.

    def _work(self) -> None:
        from uso.cluster.loading import load_remote

        try:
            while self._open:
                pipe = load_remote(self._cluster, self._spec, lambda stage, share: None)
                self._check(pipe)
                self._count(1)
                try:
                    while (job := self._take()) is not None and self._make(pipe, job):
                        pass
                finally:
                    self._count(-1)
        except WorkerLost:  # while prompts were checked
            logger.debug("A worker was lost.", exc_info=True)
        except BaseException as error:
            logger.debug("A worker has ended.", exc_info=True)
            with self._changed:
                if self._living > 1 and self._checked:
                    say(f"One worker less: {error}")
                self._problems.append(error)
        finally:
            with self._changed:
                self._living -= 1
                self._changed.notify_all()

    def _check(self, pipe: "RemotePipeline") -> None:
        """The prompts, once, by the first worker that is there."""
        with self._changed:
            if self._problems and not self._checked:
                raise self._problems[0]
            if not self._checked:
                check_prompts(self._path, self._jobs, pipe)
                self._checked, self._began = True, time.monotonic()

    def _count(self, change: int) -> None:
        with self._changed:
            self._loaded += change

    def _take(self) -> Job | None:
        """The next job. Waits while others may give theirs back; None when all are over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            return self._waiting.popleft() if self._waiting else None

    def _make(self, pipe: "RemotePipeline", job: Job) -> bool:
        """Make what is missing of a job; False if the worker was lost meanwhile."""
        said: set[str] = set()
        label = f"job {job.number} of {len(self._jobs)}, "
        try:
            for request in job.requests(self._config):
                with closing(pipe.stream(request)) as events:
                    for event in events:
                        if isinstance(event, GenerationResult):
                            self._tell(job.save(event), event.notes, said, label)
        except WorkerLost as error:
            return self._give_back(job, error)
        except Exception as error:  # whatever happens to one job, go on with the others
            logger.debug("Job %d", job.number, exc_info=True)
            self._over(job, error)
        else:
            self._over(job)
        return True

    def _tell(self, path: Path, notes: tuple[str, ...], said: set[str], label: str) -> None:
        with self._changed:
            print_path(path)
            say_once(notes, said, label)
            self._made += 1
            self._bar.update()
            self._bar.set_postfix_str(f"{self._rate()}, {self._loaded} workers")

    def _give_back(self, job: Job, error: WorkerLost) -> bool:
        self._lost[job.number] += 1
        if self._lost[job.number] > 1:
            self._over(job, error)
        else:
            with self._changed:
                self._waiting.appendleft(job)
                self._changed.notify_all()
        return False

    def _over(self, job: Job, error: Exception | None = None) -> None:
        with self._changed:
            self._open -= 1
            if error is not None:
                self._failed += 1
                say(f"Job {job.number} failed: {error or type(error).__name__}")
            self._changed.notify_all()
