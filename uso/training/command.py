"""What the verb `train` runs: checks, then weights load, features are encoded, and training begins.

`accelerate launch -m uso train ...` starts several processes. The first of each machine loads the model
for all of them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from uso.errors import ConfigError, USOError
from uso.system.launcher import this_process
from uso.terminal import loading_bar, say
from uso.training.config import TrainingConfig

if TYPE_CHECKING:
    from uso.training.loop.trainer import Trainer


def run_train(config: TrainingConfig, args: argparse.Namespace, out: Callable[[str], None]) -> int:
    """Forecast, time or train; returns the exit status.

    Raises:
        USOError: with the remedy.
    """
    if args.bench is not None:
        if args.bench < 1 or args.dry_run or args.resume:
            raise ConfigError(
                "--bench takes 1 or more steps of a new run: it goes with neither --dry-run nor --resume."
            )
        from uso.training.bench import run_bench

        run_bench(config, args.bench, out)
        return 0
    if args.dry_run:
        from uso.training.forecast import as_text, dry_run

        out(as_text(config, dry_run(config)))
        return 0
    trainer = train(config, resume=args.resume, offline=args.offline)
    if trainer.progress.step == 0:
        raise USOError("The run was stopped before its first step was done; nothing is written.")
    if trainer.process.is_main_process:
        for path in results(config):
            out(str(path))
    return 0


def results(config: TrainingConfig) -> list[Path]:
    """The files that a finished run has written."""
    from uso.training.model.export import FILES

    return [config.folder / FILES[learner] for learner in config.learns]


def train(config: TrainingConfig, *, resume: bool = False, offline: bool = False) -> "Trainer":
    """Check a run, prepare it and train to its end.

    Args:
        resume: continue from the newest checkpoint if there is one; without it a folder with checkpoints is refused.

    Raises:
        USOError: with the remedy.
    """
    this_process(meets=True)
    from uso.training import prepare
    from uso.training.loop.checkpoint import check_samples
    from uso.training.loop.run import stopped_by_signals
    from uso.training.model.load import load_for_training
    from uso.transformer.compile import cache_folder, compile_blocks

    device, checkpoint = prepare.check(config, resume)
    device, process = prepare.processes_on(device)
    config = prepare.agreed(config, device, process, checkpoint)
    source, held_out = prepare.read_data(config, say if process.is_main_process else lambda _: None)
    if checkpoint is not None:
        check_samples(checkpoint, len(source.samples))
    with loading_bar() as show:
        pipeline = load_for_training(config, device, process, offline=offline, on_progress=show)
    trainer = prepare.assemble(pipeline, config, source, held_out, process)
    if config.compile:
        compile_blocks(pipeline.transformer, cache_folder())
    if checkpoint is not None:
        trainer.resume(checkpoint)
        if process.is_main_process:
            say(f"Going on from {checkpoint}.")
    with stopped_by_signals(trainer):
        trainer.run()
    return trainer
