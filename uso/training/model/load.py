"""The pipeline that a run begins with: the model without USO's LoRA and projector, and files of an earlier stage.

Everything is loaded to the host. Encoders visit the device one at a time while features are made. Then everything goes
there, except T5 and CLIP where their features are cached.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from accelerate import PartialState

from uso.config import ROOT, ComponentName, ModelConfig, Source, from_home, load_memory_plan, load_model_config
from uso.errors import ConfigError
from uso.forecast.meta_model import MetaModel
from uso.memory.plan import GIB
from uso.memory.residency import Residency
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import RELEASED, TrainingConfig
from uso.training.data.features import ENCODERS, FeatureCache
from uso.training.data.samples import Feature
from uso.training.model.quantized import quantize_base
from uso.training.model.shard import shard_blocks
from uso.training.model.sharing import load_once, shares_memory
from uso.weights.assembly import Loader, everything_on
from uso.weights.hub.files import locate
from uso.weights.loading import alone_in_process
from uso.weights.provenance import provenance

logger = logging.getLogger(__name__)

_HOST = torch.device("cpu")


def training_model(config: TrainingConfig) -> ModelConfig:
    """The model as the run begins with it: USO's own two files are those of `start`, or none.

    Raises:
        ConfigError: no such model, or a guidance scale where it takes none.
    """
    model = load_model_config(config.model)
    if not model.guidance and config.guidance is not None:
        raise ConfigError(f"{model.name} takes no guidance scale. Set guidance=null.")
    if model.guidance and config.guidance is None:
        raise ConfigError(f"{model.name} needs a guidance scale. Set guidance=1.0.")
    components = {name: source for name, source in model.components.items() if name not in ("lora", "projector")}
    if config.start.projector is not None:
        components["projector"] = _started(model, "projector", config.start.projector)
    if config.start.lora is not None and "lora" not in config.learns:
        components["lora"] = _started(model, "lora", config.start.lora)
    return model.model_copy(update={"components": components})


def _started(model: ModelConfig, name: ComponentName, path: str) -> Source:
    if path != RELEASED:
        return Source(path=path)
    if name not in model.components:
        raise ConfigError(f"{model.name} has no released {name}. Name a file: start.{name}=FILE.")
    return model.components[name]


def start_lora(config: TrainingConfig, offline: bool = False) -> Path | None:
    """The file of the LoRA that is learned on, fetched if need be; None where a new one is drawn.

    Raises:
        ConfigError, MissingWeightsError: with the remedy.
    """
    path = config.start.lora
    if path is None or "lora" not in config.learns:
        return None
    if path != RELEASED:
        return ROOT / from_home(path)
    model = load_model_config(config.model)
    alone = model.model_copy(update={"components": {"lora": _started(model, "lora", path)}})
    return locate(alone, offline=offline, download=not offline)["lora"].files[0]


def check_start(config: TrainingConfig) -> None:
    """Refuse a run whose earlier stage is not there.

    Raises:
        ConfigError: names the key and the file.
    """
    for key, path in config.start:
        file = ROOT / from_home(path or "")
        if path not in (None, RELEASED) and not file.is_file():
            raise ConfigError(
                f"start.{key}: there is no file {file}. Train the stage before, or name another file: start.{key}=FILE."
            )


def load_for_training(
    config: TrainingConfig,
    device: torch.device,
    process: PartialState | None = None,
    *,
    offline: bool = False,
    on_progress: Callable[[str, float], None] | None = None,
) -> USOPipeline:
    """The pipeline of a run, all of it on the host, ready to work on `device`.

    Args:
        process: this one among those of the run, all of which call this; the first of each machine loads.

    Raises:
        ConfigError, CheckpointError, MissingWeightsError: with the remedy.
    """
    report = on_progress or (lambda stage, share: None)
    model, dtype, plan = training_model(config), weights_dtype(config), load_memory_plan("full")

    def load() -> USOPipeline:
        with alone_in_process(report):
            start_lora(config, offline)  # while nothing is loaded yet
            located = locate(model, offline=offline, download=not offline, on_progress=on_progress)
            pipeline = Loader(model, located, dtype, report).pipeline(model.lora_scale, everything_on(_HOST))
        pipeline.provenance = provenance(model, located, model.lora_scale, dtype, pipeline.vae.dtype, device, plan)
        return pipeline

    pipeline = load() if process is None else load_once(load, process)
    pipeline.residency = Residency(plan, device)
    return pipeline


def host_refusal(config: TrainingConfig) -> str | None:
    """Why the host's free memory cannot hold the weights, one copy for all of its processes; None if it can."""
    weights = MetaModel.from_config(training_model(config), weights_dtype(config)).weights().total
    # as torchrun says it, which accelerate launches
    copies = 1 if shares_memory() else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = psutil.virtual_memory().available
    if copies * weights <= free:
        return None
    what = "The run loads" if copies == 1 else f"The run's {copies} processes load"
    return (
        f"{what} {copies * weights / GIB:.1f} GiB of weights into host memory, and {free / GIB:.1f} GiB are free. "
        f"{'Close' if copies == 1 else 'Start fewer processes, or close'} other programs."
    )


def weights_dtype(config: TrainingConfig) -> torch.dtype:
    """In which a run's frozen weights are loaded."""
    return torch.float32 if config.base == "float32" else torch.bfloat16


def encode_features(
    pipeline: USOPipeline,
    cache: FeatureCache,
    features: Sequence[Feature],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Encode what is missing, one kind after another, each kind's encoders on the device while it is at work."""
    done = 0

    def report(number: int, _: int) -> None:
        if on_progress is not None:
            on_progress(done + number, len(features))

    for kind, names in ENCODERS.items():
        chosen = [feature for feature in features if feature.kind == kind]
        if not chosen:
            continue
        with visiting(pipeline, *names):
            cache.encode(chosen, report)
        done += len(chosen)
    pipeline.residency.release()


@contextmanager
def visiting(pipeline: USOPipeline, *names: str) -> Iterator[None]:
    """While inside, components of the pipeline are on its device; then they go back to where they were."""
    homes = [(getattr(pipeline, name), getattr(pipeline, name).device) for name in names]
    try:
        for module, _ in homes:
            module.to(pipeline.work_device)
        yield
    finally:
        for module, home in homes:
            module.to(home)


def bring_to_device(pipeline: USOPipeline, config: TrainingConfig, processes: int = 1) -> None:
    """Move everything that training and validation run to the device, the base rounded first where the run says so, or
    its blocks shared out among the processes."""
    if config.base in ("int8", "nf4"):
        report = quantize_base(pipeline, config.base)
        logger.info("The frozen base holds %d layers in %s.", report.layers, config.base)
    if config.shard and processes > 1:
        shard_blocks(pipeline.transformer, pipeline.work_device, processes)
    modulation = pipeline.exchanged.modulation
    for module in (
        pipeline.transformer,
        *modulation.layers,
        modulation.embedding,
        pipeline.context_embedder,
        pipeline.vae,
        pipeline.image_encoder,
        *((pipeline.text_encoder, pipeline.text_encoder_2) if "prompt" not in config.data.cached else ()),
    ):
        module.to(pipeline.work_device)
