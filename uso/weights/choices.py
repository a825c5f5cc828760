"""What `auto` means: which model, device, dtype and memory plan to use, and why, in a sentence."""

import logging
from collections.abc import Callable, Mapping

import torch

from uso.config import MemoryPlan, ModelConfig, load_memory_plan, load_model_config, memory_names, with_local_files
from uso.errors import ConfigError
from uso.forecast.meta_model import MetaModel
from uso.language import Text
from uso.memory.device import free_device_bytes
from uso.memory.plan import GIB
from uso.weights.automatic import fallback, why_not
from uso.weights.flags import AUTO_MODEL

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
WORKING_BYTES = 5 * GIB
"""What plan `full` needs beside weights, for activations and the float32 decode at 1024 x 1024."""


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: the first CUDA device, else MPS, else the CPU.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"There is no device '{name}'. Choose auto, cpu, mps, cuda or cuda:N.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(f"There is no device '{name}': this machine shows {count} CUDA devices to PyTorch.")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("There is no device 'mps' on this machine. Choose auto or cpu.")
    if device.type not in ("cpu", "mps"):
        raise ConfigError(f"Device '{name}' is not supported. Choose auto, cpu, mps, cuda or cuda:N.")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        ConfigError: neither `auto` nor a name in `DTYPES`.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ConfigError(f"There is no dtype '{name}'. Choose one of: auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def choose_model(
    name: str,
    device: str = "auto",
    files: Mapping[str, str] | None = None,
    prepare: Callable[[ModelConfig], ModelConfig] | None = None,
) -> tuple[ModelConfig, str]:
    """The model to run, and the reason in a sentence.

    `auto` is FLUX.1-dev if its weights are on this disk and a GPU can hold them, else the demo. It never downloads.

    Args:
        files: what a person named, which the demo has no use for.
        prepare: puts the files that the flags name into a model; by default `files`, as components.

    Raises:
        ConfigError: no such model, component or device.
    """
    prepare = prepare or (lambda config: with_local_files(config, dict(files or {})))
    if name != "auto":
        return prepare(load_model_config(name)), f"{name} was requested."
    config = prepare(load_model_config(AUTO_MODEL))
    reason = why_not(config, device) or _why_not(config, choose_device(device))
    if reason is None:
        return config, Text("{} is on this disk, and the GPU can hold it.", config.title)
    if files:
        flags = ", ".join(f"--{component.replace('_', '-')}" for component in files)
        raise ConfigError(f"{reason}. The demo has no use for {flags}. Name the model: --model {AUTO_MODEL}.")
    return fallback(reason)


def _why_not(config: ModelConfig, device: torch.device) -> str | None:
    """Why `auto` does not run this model, whose weights are here, on a device; None if it does. No full stop."""
    if device.type == "cpu":
        if torch.version.cuda or torch.version.hip:
            return Text("PyTorch finds no GPU here, and {} needs one", config.title)
        return Text("PyTorch finds no GPU here (this PyTorch is built without CUDA), and {} needs one", config.title)
    free = free_device_bytes(device) or 0
    needed: float
    if device.type == "mps":  # everything is resident at once
        needed = MetaModel.from_config(config, choose_dtype("auto", device)).weights().total + WORKING_BYTES
    else:
        needed = min(load_memory_plan(name).device_gib or float("inf") for name in memory_names()) * GIB
    if free < needed:
        return Text(
            "{} needs {:.1f} GiB of free GPU memory, and {:.1f} GiB are free", config.title, needed / GIB, free / GIB
        )
    return None


def choose_plan(name: str, device: torch.device, weight_bytes: int) -> MemoryPlan:
    """`auto`: everything resident if weights and working memory fit, else the largest plan that fits the free memory.
    Logs the choice and the reason.

    Args:
        weight_bytes: size of all weights in the dtype they are loaded in.

    Raises:
        ConfigError: no such plan, or one that needs a CUDA device.
    """
    if name != "auto":
        plan = load_memory_plan(name)
        if plan.slots and device.type == "mps":
            raise ConfigError(f"Memory plan '{name}' streams from host memory; on MPS both are one. Choose 'mps'.")
        return plan
    if device.type != "cuda":
        return load_memory_plan("mps" if device.type == "mps" else "cpu")
    free = free_device_bytes(device) or 0
    if weight_bytes + WORKING_BYTES <= free:
        plan, why = load_memory_plan("full"), f"weights of {weight_bytes / GIB:.1f} GiB and room to work fit"
    else:
        limited = [plan for plan in map(load_memory_plan, memory_names()) if plan.device_gib is not None]
        fitting = [plan for plan in limited if (plan.device_gib or 0) * GIB <= free]
        if not fitting:
            least = min(plan.device_gib or 0 for plan in limited)
            raise ConfigError(
                f"{free / GIB:.1f} GiB of GPU memory are free, and the leanest memory plan wants {least:g}. Close "
                "other programs that use the GPU, or choose --device cpu."
            )
        plan = max(fitting, key=lambda plan: plan.device_gib or 0)
        why = f"it uses up to {plan.device_gib:g} GiB"
    logger.info("Memory plan %s: %.1f GiB are free on %s, and %s.", plan.name, free / GIB, device, why)
    return plan
