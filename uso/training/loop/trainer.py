"""The training loop: micro-batches to gradients, gradients to one update, updates to checkpoints and results.

It is given a loaded pipeline and cached features. Several processes (`accelerate launch`) share the batch, and their
gradients are averaged once per update.
"""

import logging
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from PIL import Image
from torch.nn.functional import mse_loss

from uso.pipeline.latents import pack
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.data.batches import BatchSource, TrainingBatch
from uso.training.loop import checkpoint as state
from uso.training.loop.log import Journal, trackers_of
from uso.training.loop.optimizer import showing
from uso.training.loop.pictures import Drawn, Validation, style_scores
from uso.training.loop.precision import autocast
from uso.training.loop.run import Run, Stopped
from uso.training.losses.flow import conditioning_of, draw_levels, noised, predict, target_velocity
from uso.training.losses.reward import StyleReward, StyleScore
from uso.training.losses.seeds import generator
from uso.training.losses.teacher import Targets, make_teacher
from uso.training.model.adapters import Learners
from uso.training.model.export import FILES, write_safetensors
from uso.transformer.compile import uncompiled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judges:
    """Descriptors of style."""

    learned: StyleScore | None = None
    """The one that is learned from."""
    held_out: StyleScore | None = None
    """One that is not."""

    def by_name(self) -> dict[str, StyleScore]:
        named = {"style": self.learned, "style_held_out": self.held_out}
        return {name: score for name, score in named.items() if score is not None}


class Trainer(Run):
    """One run.

    Args:
        pipeline: on its device, nothing of it learning yet; `Learners` freezes it and puts a LoRA in.
        batches: of this process; all features cached.
        validation: makes pictures every `validation.every` steps.
    """

    config: TrainingConfig

    def __init__(
        self,
        pipeline: USOPipeline,
        config: TrainingConfig,
        batches: BatchSource,
        *,
        judges: Judges | None = None,
        validation: Validation | None = None,
        process: PartialState | None = None,
    ) -> None:
        learners = Learners(pipeline, config)
        super().__init__(config, learners.parameters)
        self.pipeline = pipeline
        self.learners = learners
        self.batches = batches
        self.judges = judges or Judges()
        self.validation = validation
        self.process = process or PartialState(cpu=pipeline.work_device.type == "cpu")
        self.teacher = make_teacher(config)
        self.reward = None
        if self.judges.learned is not None:
            self.reward = StyleReward(pipeline, config.reward, self.judges.learned, config.seed)
        self.accumulation = config.accumulation(self.process.num_processes)
        # Norms keep float32 weights under autocast; torch warns once that it does not fuse them.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        if config.gradient_checkpointing:
            pipeline.transformer.enable_gradient_checkpointing()
            pipeline.vae.enable_gradient_checkpointing()

    def autocast(self) -> AbstractContextManager[Any]:
        """A new context for the network; one per pass, because its cache must not carry from one mode to another.

        It is on where weights are float32 and products bfloat16. A base that is held in fewer bits runs as in use.
        """
        precision = self.config.precision if self.config.base == "float32" else "float32"
        return autocast(self.pipeline.work_device.type, precision)

    # Steps.

    def flow_loss(self, batch: TrainingBatch) -> torch.Tensor:
        """The mean squared error of the velocity at levels drawn for this micro-batch: a scalar, float32.

        The targets are the data's, or those of the run's teacher.
        """
        draw = generator(self.config.seed, "flow", batch.number)
        device = batch.latents.device
        levels = draw_levels(self.config.flow, batch.size, batch.height, batch.width, draw).to(device)
        noise = torch.randn(batch.latents.shape, generator=draw).to(device)
        tokens = pack(noised(batch.latents, noise, levels))
        with self.autocast(), torch.no_grad():  # closed before what learns: its casts would have no gradient
            targets = self.targets(batch, pack(target_velocity(batch.latents, noise)), tokens, levels)
        with self.autocast():  # last: blocks recomputed in the backward pass read the modulation of the last pass
            velocity = self._velocity(batch, tokens, levels, targets.guidance)
            flow = mse_loss(velocity, targets.velocity.to(velocity))
        if targets.second is None:
            return flow
        return flow + targets.weight * mse_loss(velocity, targets.second)

    def targets(
        self, batch: TrainingBatch, velocity: torch.Tensor, tokens: torch.Tensor, levels: torch.Tensor
    ) -> Targets:
        """What the velocity should be: the data's, or what the run's teacher says.

        Args:
            velocity: the data's, [B, tokens, 64].
            tokens, levels: what the network is given, [B, tokens, 64] and [B].
        """
        if self.teacher is None:
            return Targets(velocity)
        return self.teacher.targets(batch, velocity, lambda one: self._velocity(one, tokens, levels))

    def _velocity(
        self, batch: TrainingBatch, tokens: torch.Tensor, levels: torch.Tensor, scales: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`predict` under a batch's conditions; guidance scales [B] in the place of the run's."""
        conditioning = conditioning_of(self.pipeline, batch, self.config.guidance)
        if scales is not None:
            conditioning = replace(conditioning, guidance=scales.to(self.pipeline.work_device))
        return predict(self.pipeline, conditioning, tokens, levels)

    def update(self) -> dict[str, float]:
        """One step: gradients of `accumulation` micro-batches, clipped, and an update. Returns what to log.

        Every sample weighs the same, in short micro-batches too.

        The run can stop between micro-batches: a launcher of several processes waits for 30 seconds, and a step may
        take longer.

        Raises:
            USOError: the loss is no number any more.
            Stopped: the run is to stop.
        """
        step = self.progress.step
        weight = 0.0 if self.reward is None else self.reward.config.weight_at(step)
        losses: list[torch.Tensor] = []
        rewards: list[torch.Tensor] = []
        samples = 0
        for _ in range(self.accumulation):
            if losses and self.must_stop(late=False):
                self.optimizer.zero_grad(set_to_none=True)
                raise Stopped
            batch = self.batches.take()
            samples += batch.size
            with self._blocks_for(batch):
                loss = batch.size * self.flow_loss(batch)
                loss.backward()
                losses.append(loss.detach())
                reward = None
                if self.reward is not None and weight > 0:
                    reward = self.reward.rewards(batch, self.autocast)
                if reward is not None:
                    (-weight * batch.size * reward.mean()).backward()
                    rewards.append(reward.detach())
        total = float(reduce(torch.tensor(float(samples), device=self.process.device), "sum"))
        self._share_gradients(total)
        mean_loss = float(reduce(torch.stack(losses).sum(), "sum")) / total
        values = {"loss": mean_loss, **self.apply(mean_loss)}
        if weight > 0:
            found = gather_object([float(each) for some in rewards for each in some])  # of all: one may have none
            if found:
                values |= {"reward": fmean(found), "reward_spread": pstdev(found)}
        self.progress = state.Progress(step + 1, self.batches.position, self.progress.seconds)
        return values

    def _blocks_for(self, batch: TrainingBatch) -> AbstractContextManager[Any]:
        """Blocks as a batch runs through them: the last one of a bucket may be short, and is not compiled for."""
        short = self.config.compile and batch.size < self.config.micro_batch
        return uncompiled(self.pipeline.transformer) if short else nullcontext()

    def _share_gradients(self, samples: float) -> None:
        """The mean over all samples of the step, of all processes: gradients so far are sums."""
        for parameter in self.parameters.values():
            if self.process.num_processes > 1:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = reduce(gradient, "sum")
            if parameter.grad is not None:
                parameter.grad /= samples

    # The run.

    def run(self) -> None:
        """Train to the last step, to the time limit, or until `stopping` is set; ends with a checkpoint and results."""
        journal = None
        if self.process.is_main_process:
            journal = Journal(
                self.config.folder, self.progress.step, self.config.steps, trackers=trackers_of(self.config)
            )
        try:
            self.take_steps(journal)
        finally:
            self.batches.close()
            if journal is not None:
                journal.close()

    def after(self, journal: Journal | None, last: bool) -> None:
        every = self.config.validation.every
        if every is not None and (self.progress.step % every == 0 or last):
            self.validate(journal)

    def must_stop(self, late: bool) -> bool:
        """Whether any process is to stop: then all do."""
        if self.process.num_processes == 1:
            return late or self.stopping
        wish = torch.tensor([float(late or self.stopping)], device=self.process.device)
        return bool(reduce(wish, "sum").item() > 0)

    def save(self) -> None:
        """Write a checkpoint, and the results so far in the released layout, in the run's folder and beside it."""
        if self.process.is_main_process:
            super().save()
            newest = state.checkpoints(self.checkpoints)[-1]
            for learner in self.learners.parts:
                state.keep_export(self.config.folder / FILES[learner], newest)
        self.process.wait_for_everyone()

    def export(self) -> None:
        """Write `dit_lora.safetensors`, `projector.safetensors`: the running mean where there is one."""
        dtype: torch.dtype = getattr(torch, self.config.export_dtype)
        record = {"run": self.config.name, "step": str(self.progress.step)}
        for learner, tensors in self.learners.released(self.mean_values, dtype).items():
            write_safetensors(self.config.folder / FILES[learner], tensors, record)

    def resume(self, checkpoint: Any) -> None:
        """Resume from a checkpoint.

        Raises:
            ConfigError, CheckpointError: it belongs to another run, or cannot be read.
        """
        state.check_config(checkpoint, self.config)
        self.progress = state.restore(checkpoint, self.parameters, self.optimizer, self.mean)
        self.batches.position = self.progress.position

    def validate(self, journal: Journal | None) -> None:
        """Make the validation pictures with the running mean of the weights, keep and score them."""
        if self.validation is None or not (journal or self.config.shard):  # shared blocks are run by all
            self.process.wait_for_everyone()
            return
        # Each mode has other shapes, which would be compiled for a picture or two.
        with showing(self.parameters, self.mean_values), uncompiled(self.pipeline.transformer):
            drawn = list(self.validation.draw(self.autocast))
            sheet = self.validation.sheet(drawn)
        if journal is not None:
            self._keep(drawn, sheet, journal)
        self.process.wait_for_everyone()

    def _keep(self, drawn: list[Drawn], sheet: Image.Image, journal: Journal) -> None:
        step = self.progress.step
        folder = self.config.folder / "validation" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for picture in drawn:
            name = f"{picture.mode}-{picture.number}"
            picture.image.save(folder / f"{name}.png")
            journal.picture(step, f"validation/{name}", picture.image)
        sheet.save(folder / "sheet.png")
        scores = style_scores(drawn, self.judges.by_name(), self.pipeline.work_device)
        if scores:
            journal.write(step, scores)
