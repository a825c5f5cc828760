"""Before a run: what can be checked without weights, agreement among processes, data, features, and the trainer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from uso.config import ROOT, from_home
from uso.errors import ConfigError
from uso.evaluation.metrics import CSD_HOME
from uso.pipeline.pipeline import USOPipeline
from uso.terminal import on_terminal, say
from uso.training.config import TrainingConfig
from uso.training.data.batches import Batches
from uso.training.data.features import FeatureCache, check_sources
from uso.training.data.samples import Sample, read_samples, rows_path
from uso.training.data.source import Notify, SampleSource, TrainingSample, open_source
from uso.training.loop.checkpoint import check_config, checkpoints
from uso.training.loop.log import check_trackers
from uso.training.loop.optimizer import check_optimizer
from uso.training.loop.pictures import Validation
from uso.training.loop.precision import avoid_faulty_kernels, compiling
from uso.training.loop.trainer import Judges, Trainer
from uso.training.losses.reward import StyleScore, load_descriptor
from uso.training.losses.teacher import make_teacher
from uso.training.model.load import bring_to_device, check_start, encode_features, host_refusal, training_model
from uso.training.plugins import find
from uso.weights.choices import choose_device

WAIT = timedelta(hours=12)
"""How long processes wait for each other: one may still be encoding, or drawing validation pictures."""


def check(config: TrainingConfig, resume: bool) -> tuple[torch.device, Path | None]:
    """Refuse what can be refused without weights and data; returns the device and the checkpoint to continue from.

    Raises:
        ConfigError: with the remedy.
    """
    training_model(config)
    check_start(config)
    device = choose_device(config.device)
    check_optimizer(config.optimizer, device)
    make_teacher(config)
    check_trackers(config)
    _check_descriptors(config)
    found = checkpoints(config.folder / "checkpoints")
    if found and not resume:
        raise ConfigError(
            f"{config.folder} holds checkpoints of an earlier run. Say --resume to go on from the newest, or begin in "
            "another folder: output=FOLDER."
        )
    if found:
        check_config(found[-1], config)
    return device, found[-1] if found else None


def _check_descriptors(config: TrainingConfig) -> None:
    reward = config.reward
    for key, name, weights in (
        ("descriptor", reward.descriptor, reward.descriptor_weights),
        ("held_out", reward.held_out, reward.held_out_weights),
    ):
        if name is not None:
            find("descriptor", name)
        file = ROOT / from_home(weights or "")
        if weights is not None and not file.exists():
            origin = f" (CSD's is at {CSD_HOME})" if Path(weights).suffix == ".bin" else ""
            raise ConfigError(
                f"reward.{key}_weights: there is no file {file}{origin}. Name another, or go without: "
                f"reward.{key}=null reward.{key}_weights=null."
            )


def processes_on(device: torch.device) -> tuple[torch.device, PartialState]:
    """The device of this process, ready for gradients, and the state that it shares with the others."""
    avoid_faulty_kernels(device)
    process = PartialState(cpu=device.type == "cpu", timeout=WAIT)
    if device.type == "cuda" and process.num_processes > 1:
        device = process.device
    return device, process


def agreed(
    config: TrainingConfig, device: torch.device, process: PartialState, checkpoint: Path | None
) -> TrainingConfig:
    """The run as all processes can do it; they agree before any of them loads.

    Raises:
        ConfigError: they would continue from different checkpoints, a host has too little memory, or the batch cannot
            be divided.
    """
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
    at_once = config.accumulation(process.num_processes)
    if process.is_main_process:
        plural = "es" if process.num_processes > 1 else ""
        say(f"{process.num_processes} process{plural}, {at_once} times {config.micro_batch} samples each in a step.")
    return config


def read_data(config: TrainingConfig, notify: Notify = lambda _: None) -> tuple[SampleSource, list[Sample]]:
    """The samples that the run learns from, and the rows of its validation.

    Raises:
        ConfigError: rows or pictures are missing.
    """
    source = open_source(config, notify)
    source.samples = _usable(source.samples, config, notify)
    if config.validation.every is None:
        return source, []
    if config.validation.rows is None:
        notify("validation.rows names no file: pictures and scores will be of rows that the run learns from.")
    rows = rows_path(config.validation.rows or config.data.rows)
    both = config.data.model_copy(update={"max_styles": max(2, config.data.max_styles)})
    key, count = "validation.rows" if config.validation.rows else "data.rows", config.validation.count
    return source, read_samples(rows, both, ("style", "content"), key=key, first=count)


def _usable(samples: Sequence[TrainingSample], config: TrainingConfig, notify: Notify) -> Sequence[TrainingSample]:
    """Without samples that train nothing: those without a style picture, where the projector learns alone."""
    if config.learns != ("projector",):
        return samples
    styled = [sample for sample in samples if sample.styles]
    if len(styled) < len(samples):
        left = len(samples) - len(styled)
        notify(f"{left} of {len(samples)} samples have no style picture and are left out: the projector learns alone.")
    return styled


def assemble(
    pipeline: USOPipeline,
    config: TrainingConfig,
    source: SampleSource,
    held_out: list[Sample],
    process: PartialState,
) -> Trainer:
    """Encode features, bring the model to its device, load descriptors; returns the trainer.

    Args:
        pipeline: as `load_for_training` returns it.
    """
    cache = FeatureCache(config.data.cache, pipeline, config.data.memory_gib, config.data.cached)
    validation = Validation(pipeline, config, held_out, cache) if held_out else None
    with _encoding_bar() as report:
        features = source.features(pipeline, cache, report)
    batches = Batches(source.samples, features, config, process.process_index, process.num_processes)
    with process.main_process_first():  # which hashes new pictures; the others read what it found
        cache.hashes.read()
        missing = cache.missing([*(validation.features() if validation else []), *source.cached()])
    own = missing[process.process_index :: process.num_processes]
    check_sources(own, pipeline)
    process.wait_for_everyone()  # a process that lists what is missing after another began to write has a shorter list
    if missing and process.is_main_process:
        say(f"Encoding {len(missing)} prompts and pictures into {cache.folder}.")
    with _encoding_bar() as report:
        encode_features(pipeline, cache, own, report)
    process.wait_for_everyone()
    bring_to_device(pipeline, config, process.num_processes)
    if "prompt" in config.data.cached:  # else every process would keep their encoders in host memory for nothing
        pipeline.register_modules(text_encoder=None, text_encoder_2=None)

    def judge(name: str | None, weights: str | None) -> StyleScore | None:
        device = pipeline.work_device
        return None if name is None else StyleScore(load_descriptor(name, weights, device), device)

    reward = config.reward
    judges = Judges(
        judge(reward.descriptor, reward.descriptor_weights), judge(reward.held_out, reward.held_out_weights)
    )
    return Trainer(pipeline, config, batches, judges=judges, validation=validation, process=process)


@contextmanager
def _encoding_bar() -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc="Encoding", unit="feature", leave=False, disable=not on_terminal()) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report
