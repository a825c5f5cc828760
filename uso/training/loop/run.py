"""The loop of every run: updates, records and checkpoints, until the last step or a stop.

Subclasses compute the gradients. A resumed run gives the same result as an uninterrupted one, provided that random
numbers depend on the number of the step alone (`uso.training.losses.seeds`).
"""

import logging
import math
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uso.errors import USOError
from uso.training.config import RunConfig
from uso.training.loop import checkpoint
from uso.training.loop.log import Journal, duration
from uso.training.loop.optimizer import RunningMean, learning_rate, make_optimizer

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """A step was given up, nothing of it done."""


class Run:
    """One run.

    Args:
        parameters: what learns, by name; float32.
        optimizer: of these parameters; by default the one that the config names.
    """

    config: RunConfig

    def __init__(
        self,
        config: RunConfig,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.config = config
        self.parameters = dict(parameters)
        self.optimizer = optimizer or make_optimizer(config.optimizer, self.parameters.values())
        self.mean = None if config.ema is None else RunningMean(self.parameters, config.ema)
        self.progress = checkpoint.Progress()
        self.stopping = False
        """Set it to end the run soon, with a checkpoint of the last whole step."""

    @property
    def checkpoints(self) -> Path:
        return self.config.folder / "checkpoints"

    @property
    def mean_values(self) -> dict[str, torch.Tensor] | None:
        """The running mean of the parameters, where there is one."""
        return None if self.mean is None else self.mean.values

    # What a subclass does.

    def update(self) -> dict[str, float]:
        """One step: gradients, then `apply`; moves `progress`. Returns what to write down, `loss` among it.

        Raises:
            Stopped: the step was given up for the run to end.
        """
        raise NotImplementedError

    def export(self) -> None:
        """Write the result so far."""
        raise NotImplementedError

    def after(self, journal: Journal | None, last: bool) -> None:
        """After a step and its checkpoint."""

    # What it is given.

    def apply(self, loss: float) -> dict[str, float]:
        """Clip the gradients that are there and take a step; returns their norm before and the learning rate.

        Raises:
            USOError: the loss or the norm is no number any more; then there is no step.
        """
        step, optimizer = self.progress.step, self.config.optimizer
        clip = math.inf if optimizer.clip is None else optimizer.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), clip))
        rate = learning_rate(optimizer, step, self.config.steps)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise USOError(
                f"The loss became {loss} and the gradient's norm {norm} in step {step + 1}. Begin another run with a "
                "smaller optimizer.lr, from the files that this one has written or anew."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.mean is not None:
            self.mean.update(self.parameters, step)
        return {"gradient_norm": norm, "learning_rate": rate}

    def save(self) -> None:
        """Write a checkpoint, and the result so far."""
        checkpoint.save(self.checkpoints, self.config, self.progress, self.parameters, self.optimizer, self.mean)
        self.export()

    def must_stop(self, late: bool) -> bool:
        return late or self.stopping

    def take_steps(self, journal: Journal | None) -> None:
        """To the last step, to the time limit, or until `stopping` is set; ends with a checkpoint and the result.

        What is written down is the mean since the last time.
        """
        config, began, first = self.config, time.monotonic(), self.progress.step
        before, saved = self.progress.seconds, first if first < config.steps else None
        limit = math.inf if config.stop_after_minutes is None else 60 * config.stop_after_minutes
        seen: defaultdict[str, list[float]] = defaultdict(list)
        while self.progress.step < config.steps:
            if self.progress.step > first and self.must_stop(time.monotonic() - began > limit):
                break
            try:
                values = self.update()
            except Stopped:
                break
            step, seconds = self.progress.step, time.monotonic() - began
            self.progress = checkpoint.Progress(step, self.progress.position, before + seconds)
            last = step == config.steps
            for name, value in values.items():
                seen[name].append(value)
            if journal is not None:
                journal.step(values["loss"])
                if step % config.log_every == 0 or last:
                    pace = seconds / (step - first)
                    means = {name: math.fsum(each) / len(each) for name, each in seen.items()}
                    seen.clear()
                    journal.write(step, {**means, "seconds_per_step": pace})
                    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in means.items())
                    left = duration(pace * (config.steps - step))
                    journal.say(f"step {step} of {config.steps}: {shown}; {pace:.2f} s a step, {left} left")
            if step % config.checkpoint.every == 0 or last:
                self.save()
                saved = step
            self.after(journal, last)
        if saved != self.progress.step:
            self.save()


@contextmanager
def stopped_by_signals(run: Run) -> Iterator[None]:
    """Inside, Ctrl-C or SIGTERM ends the run soon, with a checkpoint of the last step; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def stop(number: int, _: Any) -> None:
        run.stopping = True
        signal.signal(number, before[number])
        logger.warning("The run ends soon, with a checkpoint of the last whole step. Once more to end it now.")

    for one in (signal.SIGINT, signal.SIGTERM):
        before[one] = signal.signal(one, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
