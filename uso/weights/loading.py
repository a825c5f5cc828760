"""`load_pipeline`: from a model's name and a memory plan to a `USOPipeline`, its files found, loaded and placed."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from uso.config import (
    Compile,
    MemoryPlan,
    ModelConfig,
    Speed,
    load_model_config,
)
from uso.errors import ConfigError
from uso.forecast.forecast import RequestForecaster
from uso.forecast.meta_model import MetaModel
from uso.language import Text
from uso.memory.device import dtype_name, is_out_of_memory
from uso.memory.residency import Residency
from uso.memory.sizes import check_host, check_whole
from uso.pipeline.encoders import has_tf32
from uso.pipeline.pipeline import USOPipeline
from uso.transformer.attention import INT8, Int8Processor, int8_attention_works, rotate_in_one_pass
from uso.transformer.compile import cache_folder, choose_attention, choose_compile, compile_blocks
from uso.transformer.eager import DEVICES as EAGER_DEVICES
from uso.transformer.fp8 import fp8_blocks, prefers_fp8
from uso.transformer.int8 import can_quantize, quantize_blocks
from uso.weights.assembly import VAE_DTYPE, Loader, OnProgress, PlaceOf, everything_on
from uso.weights.choices import choose_device, choose_dtype, choose_plan
from uso.weights.formats.tensor_files import HOST
from uso.weights.hub.files import locate
from uso.weights.provenance import provenance

logger = logging.getLogger(__name__)

_LOADING = threading.Lock()
"""Models load one at a time, because loading patches `nn.Module` and changes log levels and environment variables for
the whole process."""


def load_pipeline(
    config: ModelConfig | str,
    *,
    memory: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    lora_scale: float | None = None,
    speed: Speed = "exact",
    compile: Compile = "auto",
    offline: bool = False,
    download: bool = False,
    alone: bool = True,
    behind: bool = False,
    why: str | None = None,
    on_progress: OnProgress | None = None,
) -> USOPipeline:
    """Find the files, load them strictly, fold in the LoRA, place everything.

    Models load one at a time: other threads that call this wait, while existing pipelines keep working. Call it in the
    thread that will use the pipeline, since `cuda:N` becomes that thread's current device.

    Args:
        config: a `ModelConfig` or the name of one.
        memory: a plan's name or `auto`.
        device: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.
        dtype: of the transformer and the encoders: `auto`, `bfloat16` or `float32`. The autoencoder is float32.
        lora_scale: strength of USO's LoRA; the model's own value if None.
        speed: `exact`, or a level that trades exactness for time (`uso.config`).
        compile: compile the transformer's blocks; `auto` does on CUDA if that works.
        offline: never use the network.
        download: fetch missing files, unless `offline`.
        alone: no other pipeline will run in this process; see `choose_attention`.
        behind: where `compile` is `auto` and all blocks stay on the GPU, no picture waits for the compiler; see
            `uso.transformer.behind`.
        why: why `auto` chose this model; recorded in every picture.
        on_progress: called with a stage and the share of all bytes done, 0 to 1.

    Raises:
        ConfigError, CheckpointError, MissingWeightsError: gives the remedy.
    """
    config = load_model_config(config) if isinstance(config, str) else config
    report = on_progress or (lambda stage, share: None)
    where = choose_device(device)
    weights_dtype = choose_dtype(dtype, where)
    scale = config.lora_scale if lora_scale is None else lora_scale
    if where.type == "cuda" and where.index is not None:
        torch.cuda.set_device(where)
    with alone_in_process(report), _enough_memory(where):
        located = locate(config, offline=offline, download=download, on_progress=on_progress)
        loader = Loader(config, located, weights_dtype, report, where if where.type == "cuda" else HOST)
        model = MetaModel.from_config(config, weights_dtype)  # file sizes mislead: fp8 weights double when loaded
        plan = choose_plan(memory, where, model.weights().total)
        residency, place_of = Residency(plan, where), everything_on(where)
        if plan.visit:
            report(Text("Working out what stays on the device"), 0.0)
            residency, place_of = _planned(config, model, plan, where)
        elif where.type != "cuda":
            check_whole(config.title, model.weights(), where)
        pipeline = loader.pipeline(scale, place_of)
        report(Text("Placing the model"), 1.0)
        tuned = tune(pipeline, residency, speed, compile, alone, behind)
        pipeline.provenance = provenance(config, located, scale, weights_dtype, VAE_DTYPE, where, plan) | tuned
        if why is not None:
            pipeline.provenance["why"] = why
        return pipeline


@contextmanager
def _enough_memory(device: torch.device) -> Iterator[None]:
    """Turn PyTorch's out-of-memory errors into a sentence.

    Raises:
        ConfigError: memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        on_card = device.type == "cuda" and isinstance(error, torch.OutOfMemoryError)
        other = ", or choose a memory plan for a smaller card (--memory)" if on_card else ""
        raise ConfigError(
            f"Memory ran out while the model was loaded. Close other programs that use it{other}."
        ) from error


@contextmanager
def alone_in_process(report: OnProgress) -> Iterator[None]:
    """While inside, no other thread loads a model; reports if it has to wait for one."""
    if not _LOADING.acquire(blocking=False):
        report(Text("Waiting for another model to load"), 0.0)
        _LOADING.acquire()
    try:
        yield
    finally:
        _LOADING.release()


def tune(
    pipeline: USOPipeline,
    residency: Residency,
    speed: Speed,
    compile: Compile,
    alone: bool = True,
    behind: bool = False,
) -> dict[str, Any]:
    """Place a pipeline and choose how its blocks run; returns the entries for its provenance.

    Raises:
        ConfigError: the device cannot run the speed level, or cannot compile.
    """
    device, transformer = residency.device, pipeline.transformer
    record: dict[str, Any] = {"speed": speed}
    if speed != "exact":
        reason = can_quantize(device)
        if reason:
            raise ConfigError(f"--speed {speed}: {reason} Use --speed exact.")
        fp8 = prefers_fp8(device)
        (fp8_blocks if fp8 else quantize_blocks)(transformer)
        record["products"] = "fp8" if fp8 else "int8"
        pipeline.decodes_in_tf32 = alone and has_tf32(device)
        record["decode"] = "tf32" if pipeline.decodes_in_tf32 else dtype_name(pipeline.vae.dtype)
    pipeline.place(residency)
    compiled = choose_compile(compile, device, cache_folder())
    attention = choose_attention(transformer, device, alone)
    if record.get("products") == "int8" and int8_attention_works(transformer, device):
        rotate_in_one_pass(transformer, Int8Processor)
        attention = INT8
    if compiled and behind and compile == "auto" and speed == "exact" and residency.blocks is None:
        pipeline.exchanged.compile_behind(cache_folder())
    elif compiled:
        compile_blocks(transformer, cache_folder())
    elif speed == "exact" and device.type in EAGER_DEVICES:
        pipeline.exchanged.run_eagerly()
    return record | {"compiled": compiled, "attention": attention}


def _planned(
    config: ModelConfig, model: MetaModel, plan: MemoryPlan, device: torch.device
) -> tuple[Residency, PlaceOf]:
    """A residency that knows what requests need, and a `PlaceOf` that loads permanent blocks straight to the device.

    Raises:
        ConfigError: the host has too little memory for the plan.
    """
    residency = Residency(plan, device, forecaster=RequestForecaster(model, config))
    weights = model.weights()
    permanent = residency.permanent_blocks(weights)
    check_host(plan, weights, permanent)
    doubles = len(model.pipeline.transformer.transformer_blocks)
    stay = [
        f"transformer.transformer_blocks.{index}."
        if index < doubles
        else f"transformer.single_transformer_blocks.{index - doubles}."
        for index in range(permanent)
    ]
    return residency, lambda name: device if name.startswith(tuple(stay)) and not _modulates(name) else _HOST


def _modulates(name: str) -> bool:
    return any(f".{layer}.linear." in name for layer in ("norm1", "norm1_context", "norm"))


_HOST = torch.device("cpu")
