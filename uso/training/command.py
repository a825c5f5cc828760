"""The verb `train`: everything that can be refused is refused, then weights load, features are made, the run begins.

Several processes come from `accelerate launch -m uso train ...`; each loads the model, and they share the rest.
"""

import argparse
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uso.config import ROOT, from_home
from uso.errors import ConfigError, USOError
from uso.evaluation.metrics import CSD_HOME
from uso.terminal import loading_bar, on_terminal, say
from uso.training.config import TrainingConfig, load_training_config

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

    from tools.demo.shards.shards import Shards
    from tools.demo.shards.source import ShardFeatures, ShardSample
    from uso.pipeline.pipeline import USOPipeline
    from uso.training.data.samples import Sample
    from uso.training.loop.trainer import Trainer

logger = logging.getLogger(__name__)

WAIT = timedelta(hours=12)
"""How long processes wait for each other: one may still be encoding, or drawing validation pictures."""


def run_train(args: argparse.Namespace, out: Callable[[str], None]) -> int:
    """Forecast or train; returns the exit status.

    Raises:
        USOError: with the remedy.
    """
    config = load_training_config(args.config, args.overrides)
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
        resume: go on from the newest checkpoint where there is one; without it a folder that has some is refused.

    Raises:
        USOError: with the remedy.
    """
    from uso.training.loop.checkpoint import check_samples
    from uso.training.model.load import load_for_training

    device, checkpoint = check(config, resume)
    device, process = processes_on(device)
    config = agreed(config, device, process, checkpoint)
    samples, held_out = read_rows(config, say if process.is_main_process else None)
    if checkpoint is not None:
        check_samples(checkpoint, len(samples))
    with loading_bar() as show:
        pipeline = load_for_training(config, device, offline=offline, on_progress=show)
    trainer = assemble(pipeline, config, samples, held_out, process)
    if config.compile:
        from uso.transformer.compile import cache_folder, compile_blocks

        compile_blocks(pipeline.transformer, cache_folder())
    if checkpoint is not None:
        trainer.resume(checkpoint)
        if process.is_main_process:
            say(f"Going on from {checkpoint}.")
    with stopped_by_signals(trainer):
        trainer.run()
    return trainer


def agreed(
    config: TrainingConfig, device: "torch.device", process: "PartialState", checkpoint: "Path | None"
) -> TrainingConfig:
    """The run as all processes can have it, asked of all before any of them loads.

    Raises:
        ConfigError: they would go on from different checkpoints, a host has too little memory, or the batch cannot be
            shared out.
    """
    from accelerate.utils import gather_object

    from uso.training.loop.precision import compiling
    from uso.training.model.load import host_refusal

    begins = sorted({"the beginning" if one is None else one.name for one in gather_object([checkpoint])})
    if len(begins) > 1:
        raise ConfigError(
            f"Processes would go on from different places ({', '.join(begins)}): each finds other checkpoints in "
            f"{config.folder}. Let `output` be a folder that all machines share."
        )
    refusals = list(filter(None, gather_object([host_refusal(config)])))
    if refusals:
        raise ConfigError(refusals[0])
    config = compiling(config, device)
    if not all(gather_object([config.compile])):  # whole batches are for compiled blocks: all cut alike
        config = config.model_copy(update={"compile": False})
    at_once = config.accumulation(process.num_processes)
    if process.is_main_process:
        plural = "es" if process.num_processes > 1 else ""
        say(f"{process.num_processes} process{plural}, {at_once} times {config.micro_batch} samples each in a step.")
    return config


def processes_on(device: "torch.device") -> "tuple[torch.device, PartialState]":
    """The device of this process, ready for gradients, and what it knows of the others."""
    from accelerate import PartialState

    from uso.training.loop.precision import avoid_faulty_kernels

    avoid_faulty_kernels(device)
    process = PartialState(cpu=device.type == "cpu", timeout=WAIT)
    if device.type == "cuda" and process.num_processes > 1:
        device = process.device
    return device, process


def check(config: TrainingConfig, resume: bool) -> "tuple[torch.device, Path | None]":
    """Refuse what can be refused without weights and rows; returns the device and the checkpoint to go on from.

    Raises:
        ConfigError: with the remedy.
    """
    from uso.training.loop.checkpoint import check_config, checkpoints
    from uso.training.loop.log import check_tensorboard
    from uso.training.loop.optimizer import check_optimizer
    from uso.training.losses.reward import find_descriptor
    from uso.training.model.load import check_start, training_model
    from uso.weights.choices import choose_device

    training_model(config)
    check_start(config)
    device = choose_device(config.device)
    check_optimizer(config.optimizer, device)
    if config.tensorboard:
        check_tensorboard()
    reward = config.reward
    for key, name, weights in (
        ("descriptor", reward.descriptor, reward.descriptor_weights),
        ("held_out", reward.held_out, reward.held_out_weights),
    ):
        if name is not None:
            find_descriptor(name)
        if weights is not None and not (ROOT / weights).exists():
            source = "train.demo reward-descriptor makes the miniature's"
            if Path(weights).suffix == ".bin":
                source = f"CSD's is at {CSD_HOME}"
            raise ConfigError(
                f"reward.{key}_weights: there is no file {ROOT / weights} ({source}). Name another, or go without: "
                f"reward.{key}=null reward.{key}_weights=null."
            )
    found = checkpoints(config.folder / "checkpoints")
    if found and not resume:
        raise ConfigError(
            f"{config.folder} holds checkpoints of an earlier run. Say --resume to go on from the newest, or begin in "
            "another folder: output=FOLDER."
        )
    if found:
        check_config(found[-1], config)
    return device, found[-1] if found else None


def read_rows(
    config: TrainingConfig, notify: Callable[[str], None] | None = None
) -> "tuple[Sequence[Sample | ShardSample], list[Sample]]":
    """The samples that are learned from, and those that validation draws.

    Args:
        notify: is told what a person may not have meant.

    Raises:
        ConfigError: rows or pictures are missing.
    """
    from tools.demo.shards.shards import Shards
    from tools.demo.shards.source import shard_samples, unread_styles
    from uso.training.data.samples import read_samples, rows_path

    report = notify or (lambda text: None)
    path = rows_path(config.data.rows)
    samples: Sequence[Sample | ShardSample]
    if path.is_dir():
        shards = Shards.open(path)
        samples = shard_samples(shards, config)
        if unread := unread_styles(shards, config):
            report(
                f"{len(unread)} of {len(shards)} triplets have two styles and are left out. Read: data.max_styles=2."
            )
        if config.validation.every is not None and config.validation.rows is None:
            raise ConfigError("validation.rows must name a file of rows where data.rows is a folder of shards.")
    else:
        if config.words > 0 and path.is_file():
            raise ConfigError("words must be 0 where data.rows are files: rows do not say which style they show.")
        samples = read_samples(path, config.data, config.reads)
    samples = _usable(samples, config, report)
    if config.validation.every is None:
        return samples, []
    if config.validation.rows is None:
        report("validation.rows names no file: pictures and scores will be of rows that the run learns from.")
    rows = rows_path(config.validation.rows or config.data.rows)
    both = config.data.model_copy(update={"max_styles": max(2, config.data.max_styles)})
    key, count = "validation.rows" if config.validation.rows else "data.rows", config.validation.count
    return samples, read_samples(rows, both, ("style", "content"), key=key, first=count)


def _usable(
    samples: "Sequence[Sample | ShardSample]", config: TrainingConfig, report: Callable[[str], None]
) -> "Sequence[Sample | ShardSample]":
    """Without what teaches a run nothing: where the projector learns alone, samples without a style picture."""
    from uso.training.data.samples import Sample

    if "content" not in config.reads:
        silent = sum(isinstance(sample, Sample) and not sample.prompt for sample in samples)
        if silent:
            report(f"{silent} of {len(samples)} rows say nothing of what they show: give them a prompt or a sentence.")
    if config.learns != ("projector",):
        return samples
    styled = [sample for sample in samples if sample.styles]
    if len(styled) < len(samples):
        left = len(samples) - len(styled)
        report(f"{left} of {len(samples)} samples have no style picture and are left out: the projector learns alone.")
    return styled


def assemble(
    pipeline: "USOPipeline",
    config: TrainingConfig,
    samples: "Sequence[Sample | ShardSample]",
    held_out: "list[Sample]",
    process: "PartialState",
) -> "Trainer":
    """Features made, the model on its device, descriptors loaded, all in a `Trainer`.

    Args:
        pipeline: as `load_for_training` gives it.
    """
    from tools.demo.shards.source import ShardSample
    from uso.training.data.batches import Batches
    from uso.training.data.features import FeatureCache, check_pictures
    from uso.training.loop.pictures import Validation
    from uso.training.loop.trainer import Judges, Trainer
    from uso.training.losses.reward import StyleScore, load_descriptor
    from uso.training.model.load import bring_to_device, encode_features

    cache = FeatureCache(config.data.cache, pipeline)
    validation = Validation(pipeline, config, held_out, cache) if held_out else None
    wanted = list(validation.features()) if validation else []
    if isinstance(samples[0], ShardSample):
        source = _shard_features(pipeline, config, samples[0].shards)
        batches = Batches(samples, source, config, process.process_index, process.num_processes)
    else:
        batches = Batches(samples, cache, config, process.process_index, process.num_processes)
        wanted += batches.all_features()
    missing = cache.missing(wanted)
    own = missing[process.process_index :: process.num_processes]
    check_pictures(own)
    process.wait_for_everyone()  # who looks after another has begun to write would share out a shorter list
    if missing and process.is_main_process:
        say(f"Encoding {len(missing)} prompts and pictures into {cache.folder}.")
    with _encoding_bar() as report:
        encode_features(pipeline, cache, own, report)
    process.wait_for_everyone()
    bring_to_device(pipeline, config)
    # All prompts are cached, and every process would keep their encoders in host memory.
    pipeline.register_modules(text_encoder=None, text_encoder_2=None)

    def judge(name: str | None, weights: str | None) -> StyleScore | None:
        device = pipeline.work_device
        return None if name is None else StyleScore(load_descriptor(name, weights, device), device)

    reward = config.reward
    judges = Judges(
        judge(reward.descriptor, reward.descriptor_weights), judge(reward.held_out, reward.held_out_weights)
    )
    return Trainer(pipeline, config, batches, judges=judges, validation=validation, process=process)


def _shard_features(pipeline: "USOPipeline", config: TrainingConfig, shards: "Shards") -> "ShardFeatures":
    from tools.demo.shards.source import ShardFeatures

    folder = ROOT / from_home(config.data.cache)
    with _encoding_bar() as report:
        return ShardFeatures(
            pipeline,
            shards,
            folder,
            config.reads,
            named=config.words > 0,
            compile=config.compile,
            on_progress=report,
        )


@contextmanager
def _encoding_bar() -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc="Encoding", unit="feature", leave=False, disable=not on_terminal()) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


@contextmanager
def stopped_by_signals(trainer: Any) -> Iterator[None]:
    """While inside, Ctrl-C and SIGTERM end the run soon, with a checkpoint of the last step; a second one at once.

    Args:
        trainer: whatever runs until its `stopping` is set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def stop(number: int, _: Any) -> None:
        trainer.stopping = True
        signal.signal(number, before[number])
        logger.warning("The run ends soon, with a checkpoint of the last whole step. Once more to end it now.")

    for one in (signal.SIGINT, signal.SIGTERM):
        before[one] = signal.signal(one, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
