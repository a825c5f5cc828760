"""A run of a part of the demo model: losses by the number of a step, and a result."""

import contextlib
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from tools.demo.training import muon
from tools.demo.training.config import PartConfig
from uso.errors import ConfigError
from uso.training.loop import checkpoint
from uso.training.loop.log import Journal, trackers_of
from uso.training.loop.optimizer import showing
from uso.training.loop.run import Run, stopped_by_signals

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
    "device",
    "fresh",
}
"""Keys that may change when a run resumes."""


class Loop(Run):
    """One run of one part.

    Args:
        parameters: what learns, by name; float32.
        losses: of a step, counted from 0.
        export: writes the result; the parameters hold the running mean while it does.
        embeddings: which of the parameters are tables (`embeddings_of`).
    """

    config: PartConfig

    def __init__(
        self,
        config: PartConfig,
        parameters: Mapping[str, nn.Parameter],
        losses: Callable[[int], Losses],
        export: Callable[[], None],
        embeddings: Iterable[nn.Parameter] = (),
    ) -> None:
        optimizer = None
        if config.optimizer.kind == muon.NAME:
            optimizer = muon.MuonAndAdamW(list(parameters.values()), config.optimizer, embeddings)
        super().__init__(config, parameters, optimizer)
        self.losses = losses
        self.write = export

    def begin(self, resume: bool) -> None:
        """Resume from the newest checkpoint if `resume` is set and there is one.

        Raises:
            ConfigError: there are checkpoints and `resume` is not set, or they are of another run.
        """
        refuse_other_run(self.config, resume)
        found = checkpoint.checkpoints(self.checkpoints)
        if found:
            self.progress = checkpoint.restore(found[-1], self.parameters, self.optimizer, self.mean)

    def update(self) -> dict[str, float]:
        """One step; returns what to write down.

        Raises:
            USOError: the loss is no number any more.
        """
        step = self.progress.step
        losses = self.losses(step)
        losses["loss"].backward()
        values = {name: float(value.detach()) for name, value in losses.items()}
        applied = self.apply(values["loss"])
        self.progress = checkpoint.Progress(step + 1, self.progress.position, self.progress.seconds)
        return values | applied

    def export(self) -> None:
        with showing(self.parameters, self.mean_values):
            self.write()

    def run(self) -> None:
        """To the end; Ctrl-C and SIGTERM end it soon, with a checkpoint of the last whole step."""
        config, begun = self.config, self.progress.step
        journal = Journal(config.folder, begun, config.steps, trackers=trackers_of(config))
        with stopped_by_signals(self), contextlib.closing(journal):
            self.take_steps(journal)


def refuse_other_run(config: PartConfig, resume: bool) -> None:
    """Refuse a run whose folder holds checkpoints that it does not resume from, before anything is written.

    Raises:
        ConfigError: there are checkpoints and `resume` is not set, or they are of another run.
    """
    found = checkpoint.checkpoints(config.folder / "checkpoints")
    if not found:
        return
    if not resume:
        raise ConfigError(
            f"{config.folder} holds checkpoints of an earlier run. Say --resume to go on from the newest, or begin in "
            "another folder: output=FOLDER."
        )
    then, now = checkpoint.read_record(found[-1])["config"], config.model_dump(mode="json")
    changed = [key for key in now if key not in FREE and then.get(key) != now[key]]
    if changed:
        raise ConfigError(
            f"{found[-1]} was made with another {changed[0]}. Go on with the same value, or begin anew in another "
            "folder: output=FOLDER."
        )
