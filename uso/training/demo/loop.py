"""The loop that every part shares: losses to updates, updates to checkpoints, records and a result.

What is learned, on what, is the parts' business. A run that goes on from a checkpoint does what a run in one piece
does, since every random draw goes by the number of the step (`uso.training.draws`).
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from uso.errors import ConfigError, USOError
from uso.training import state
from uso.training.command import stopped_by_signals
from uso.training.demo.config import PartConfig
from uso.training.journal import Journal, duration
from uso.training.optimizer import RunningMean, learning_rate, make_optimizer, showing

Losses = dict[str, torch.Tensor]
"""`loss` is what is minimised; the others are only written down."""

FREE = {
    "name",
    "description",
    "output",
    "steps",
    "stop_after_minutes",
    "log_every",
    "tensorboard",
    "checkpoint",
    "compile",
    "fresh",
}
"""Keys that may change when a run goes on."""


class Loop:
    """One run of one part.

    Args:
        parameters: what learns, by name; float32.
        losses: of a step, counted from 0.
        export: writes the result; the parameters hold the running mean while it does.
        embeddings: which of the parameters are tables (`embeddings_of`).
    """

    def __init__(
        self,
        config: PartConfig,
        parameters: Mapping[str, nn.Parameter],
        losses: Callable[[int], Losses],
        export: Callable[[], None],
        embeddings: Iterable[nn.Parameter] = (),
    ) -> None:
        self.config = config
        self.parameters = dict(parameters)
        self.losses = losses
        self.export = export
        self.optimizer = make_optimizer(config.optimizer, self.parameters.values(), embeddings)
        self.mean = None if config.ema is None else RunningMean(self.parameters, config.ema)
        self.progress = state.Progress()
        self.stopping = False
        """Set it to end the run after the present step, with a checkpoint."""

    @property
    def checkpoints(self) -> Path:
        return self.config.folder / "checkpoints"

    def begin(self, resume: bool) -> None:
        """Go on from the newest checkpoint if asked for and there is one.

        Raises:
            ConfigError: there are checkpoints and nobody said to go on, or they are of another run.
        """
        refuse_other_run(self.config, resume)
        found = state.checkpoints(self.checkpoints)
        if found:
            self.progress = state.restore(found[-1], self.parameters, self.optimizer, self.mean)

    def update(self) -> dict[str, float]:
        """One step; returns what to write down.

        Raises:
            USOError: the loss is no number any more.
        """
        step, optimizer = self.progress.step, self.config.optimizer
        losses = self.losses(step)
        losses["loss"].backward()
        clip = math.inf if optimizer.clip is None else optimizer.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), clip))
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(norm)):
            raise USOError(
                f"The loss became {values['loss']} and the gradient's norm {norm} in step {step + 1}. Go on from the "
                "last checkpoint with a smaller optimizer.lr."
            )
        rate = learning_rate(optimizer, step, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.mean is not None:
            self.mean.update(self.parameters, step)
        self.progress = state.Progress(step + 1, self.progress.position, self.progress.seconds)
        return {**values, "gradient_norm": norm, "learning_rate": rate}

    def run(self) -> None:
        """`_run`, which Ctrl-C and SIGTERM end after the present step, with a checkpoint."""
        with stopped_by_signals(self):
            self._run()

    def _run(self) -> None:
        """Train to the last step, to the time limit, or until `stopping` is set; ends with checkpoint and result."""
        config, began, first = self.config, time.monotonic(), self.progress.step
        before, saved = self.progress.seconds, -1
        limit = math.inf if config.stop_after_minutes is None else 60 * config.stop_after_minutes
        sums: dict[str, float] = {}
        with contextlib.closing(Journal(config.folder, first, config.steps, tensorboard=config.tensorboard)) as journal:
            while self.progress.step < config.steps:
                seconds = time.monotonic() - began
                if self.progress.step > first and (self.stopping or seconds > limit):
                    break
                values = self.update()
                step, seconds = self.progress.step, time.monotonic() - began
                self.progress = state.Progress(step, self.progress.position, before + seconds)
                journal.step(values["loss"])
                sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
                if step % config.log_every == 0 or step == config.steps:
                    count = step - max(first, (step - 1) // config.log_every * config.log_every)
                    means = {name: value / count for name, value in sums.items()}
                    sums = {}
                    pace = seconds / (step - first)
                    journal.write(step, {**means, "seconds_per_step": pace})
                    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in means.items())
                    left = duration(pace * (config.steps - step))
                    journal.say(f"step {step} of {config.steps}: {shown}; {pace:.2f} s a step, {left} left")
                if step % config.checkpoint.every == 0 or step == config.steps:
                    self.save()
                    saved = step
            if saved != self.progress.step:
                self.save()

    def save(self) -> None:
        """Write a checkpoint, and the result so far."""
        state.save(self.checkpoints, self.config, self.progress, self.parameters, self.optimizer, self.mean)
        with showing(self.parameters, None if self.mean is None else self.mean.values):
            self.export()


def refuse_other_run(config: PartConfig, resume: bool) -> None:
    """Refuse a run whose folder holds checkpoints that it does not go on from; before anything is written.

    Raises:
        ConfigError: there are checkpoints and nobody said to go on, or they are of another run.
    """
    found = state.checkpoints(config.folder / "checkpoints")
    if not found:
        return
    if not resume:
        raise ConfigError(
            f"{config.folder} holds checkpoints of an earlier run. Say --resume to go on from the newest, or begin in "
            "another folder: output=FOLDER."
        )
    then, now = state.read_record(found[-1])["config"], config.model_dump(mode="json")
    changed = [key for key in now if key not in FREE and then.get(key) != now[key]]
    if changed:
        raise ConfigError(
            f"{found[-1]} was made with another {changed[0]}. Go on with the same value, or begin anew in another "
            "folder: output=FOLDER."
        )
