"""Number formats and compiled blocks: faster steps that compute the same (blocks: `uso.transformer.compile`)."""

import logging
from functools import cache
from typing import TypeVar

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D

from uso.training.config import Precision, RunConfig
from uso.transformer.compile import cache_folder, can_compile, use_cache_folder

logger = logging.getLogger(__name__)

Run = TypeVar("Run", bound=RunConfig)

_SHAPES = 256
"""Compiled forms allowed per kind of block, one for each shape and mode."""


_CPU_BFLOAT16 = ("amx_bf16", "avx512_bf16", "avx10_2", "bf16", "sve_bf16")
"""Names, in `torch.cpu.get_capabilities()`, of instructions that multiply bfloat16."""


@cache
def multiplies_bfloat16(device_type: str) -> bool:
    """Whether a device has instructions for bfloat16 products. A CPU without any imitates them, up to 50 times slower
    than float32."""
    if device_type == "cpu":
        known = torch.cpu.get_capabilities()
        return any(known.get(name, False) for name in _CPU_BFLOAT16)
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def autocast(device_type: str, precision: Precision) -> torch.autocast:
    """A new context in which float32 weights are multiplied as `precision` says."""
    on = multiplies_bfloat16(device_type) if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device_type, torch.bfloat16, enabled=on)


def avoid_faulty_kernels(device: torch.device | str) -> None:
    """Leave out, in this process, what computes gradients wrongly on a device: cuDNN's attention.

    Its way back reads memory that is not its own (PyTorch 2.11 with CUDA 13.0 on an H200: "illegal memory access", at
    full size and at the demo's). PyTorch's flash attention takes its place.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def compiling(config: Run, device: torch.device | str) -> Run:
    """A run as a device can do it: uncompiled, with a warning, where there is no compiler."""
    if not config.compile:
        return config
    use_cache_folder(cache_folder())
    reason = can_compile(device)
    if reason is None:
        return config
    logger.warning("compile=false: %s Steps take about twice as long.", reason)
    return config.model_copy(update={"compile": False})


def compile_residuals(vae: AutoencoderKL) -> None:
    """Compile an autoencoder's residual blocks, where nearly all of its time goes.

    Not the whole: in torch 2.13 on a CPU the gradient of a whole compiled autoencoder in bfloat16 is zero before the
    decoder's upsampling.
    """
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            module.forward = torch.compile(  # type: ignore[call-overload] # its overloads do not know recompile_limit
                module.forward, dynamic=False, recompile_limit=_SHAPES
            )
