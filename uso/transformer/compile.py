"""How the transformer's blocks run: with which attention kernel, and compiled or eager.

Only the last bits of a picture depend on it, which is why its record names the mode. What trades exactness for time is
in `uso.transformer.int8` and `uso.transformer.fp8`.
"""

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.config as dynamo
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from uso.config import Compile
from uso.errors import ConfigError
from uso.transformer.int8 import Int8Linear, QuantizedLinear

logger = logging.getLogger(__name__)

NATIVE = "native"
CUDNN = "_native_cudnn"

_CUDNN_CAPABILITY = (9, 0)
"""Hopper: the first cards on which cuDNN's attention beats PyTorch's own."""

_TRITON_CAPABILITY = (7, 0)

SHAPES = 2**16
"""Compiled graphs allowed per kind of block, one for each shape: in practice no limit. PyTorch's limits (8 and 256)
guard against code that recompiles endlessly; `tests/transformer/test_compile.py` checks that this code does not."""

_SAME_EVERYWHERE = {"deterministic": True}
"""Inductor options: never choose a kernel by timing it, since the choice would show in a picture's last bits."""

_TUNED_INT8 = {"max_autotune_gemm": True, "test_configs.force_filter_reduction_configs": True}
"""Inductor options for blocks whose products are all int8. Integer sums are exact in any tiling, so kernels may be
chosen by timing; one that scales its own sums saves a pass over memory. Reductions keep one fixed choice."""


# Attention.


def choose_attention(transformer: Any, device: torch.device | str, alone: bool = True) -> str:
    """Set the attention backend that suits the card; returns its name in diffusers, for the record.

    Args:
        alone: no other pipeline runs in this process. cuDNN's attention is switched on by process-wide flags, so
            pipelines that share a process do without it.
    """
    name = CUDNN if alone and _cudnn_works(transformer, torch.device(device)) else NATIVE
    with _without_warnings("diffusers.models.modeling_utils"):  # it warns that the switch is experimental, every time
        transformer.set_attention_backend(name)
    return name


def _cudnn_works(transformer: Any, device: torch.device) -> bool:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _CUDNN_CAPABILITY:
        return False
    config = transformer.config
    shape = (1, config.num_attention_heads, 128, config.attention_head_dim)
    query = torch.empty(shape, dtype=transformer.dtype, device=device)
    question = torch.backends.cuda.SDPAParams(query, query, query, None, 0.0, False, False)
    return bool(torch.backends.cuda.can_use_cudnn_attention(question))


@contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    chatty = logging.getLogger(name)
    before = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        yield
    finally:
        chatty.setLevel(before)


# Compilation.


def cache_folder() -> Path | None:
    """Where compiled kernels are kept between runs: in the user's cache folder; None for a user without a home."""
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "uso" / "compiled"


def use_cache_folder(folder: Path | None) -> None:
    """Keep compiled kernels in `folder` (None: PyTorch's own place). Call it before anything is compiled.

    A TORCHINDUCTOR_CACHE_DIR set by the user wins. PyTorch itself sets the variable to its default on first use.
    """
    if folder is None or os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) != default_cache_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("Compiled kernels cannot be kept in %s (%s); they go to a temporary folder.", folder, error)
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def can_compile(device: torch.device | str) -> str | None:
    """Why blocks cannot be compiled for a device, in a sentence; None if a trial compilation succeeds."""
    device = torch.device(device)
    if device.type not in ("cuda", "cpu"):
        return f"Blocks are not compiled on {device.type}."
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton, which compiled blocks need, is not installed."
        if torch.cuda.get_device_capability(device) < _TRITON_CAPABILITY:
            return f"{torch.cuda.get_device_name(device)} is too old for Triton, which compiled blocks need."
    if sys.platform != "win32" and not _compiler(device):
        return "No C compiler was found (gcc or clang); compiled blocks need one."
    try:
        torch.compile(_trial, fullgraph=True, dynamic=False)(torch.zeros(64, device=device))
    except Exception as error:  # a toolchain can fail in any way; eager always works
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"A trial compilation failed ({lines[0]})."
    return None


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values.sin() + 1


def _compiler(device: torch.device) -> str | None:
    variable, names = ("CC", ("cc", "gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    named = os.environ.get(variable)
    return next(filter(None, map(shutil.which, [named] if named else names)), None)


def choose_compile(choice: Compile, device: torch.device | str, folder: Path | None = None) -> bool:
    """Whether to compile the blocks. `auto` compiles on CUDA where that works, and logs why where it does not.

    Raises:
        ConfigError: `on`, and compilation does not work.
    """
    device = torch.device(device)
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return False
    use_cache_folder(folder)
    reason = can_compile(device)
    if reason is None:
        return True
    if choice == "on":
        raise ConfigError(f"--compile on: {reason} Use --compile auto or off.")
    logger.warning("Blocks run uncompiled, which is slower: %s", reason)
    return False


def compile_blocks(transformer: Any, folder: Path | None, *, backend: str = "inductor") -> None:
    """Compile the transformer's blocks: each kind of block once per shape, at its first use.

    Shapes are static; with dynamic ones a request's kernels would depend on earlier requests. Only `forward` is
    compiled, so hooks that bring weights to the device stay outside.

    Args:
        folder: where compiled kernels are kept; see `use_cache_folder`.
        backend: turns graphs into code; `eager` generates none, which is enough to count graphs.
    """
    use_cache_folder(folder)
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.forward = compiled_forward(block, backend)


@contextmanager
def uncompiled(transformer: Any) -> Iterator[None]:
    """While inside, the blocks run uncompiled."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    compiled = [(block, block.__dict__.pop("forward")) for block in blocks if "forward" in block.__dict__]
    try:
        yield
    finally:
        for block, forward in compiled:
            block.forward = forward


def compiled_forward(block: nn.Module, backend: str = "inductor") -> Callable[..., Any]:
    """A block's `forward`, to be compiled at its first call for each shape."""
    options = _inductor_options(block) if backend == "inductor" else None
    compiled = torch.compile(  # type: ignore[call-overload] # its overloads do not know recompile_limit
        block.forward, fullgraph=True, dynamic=False, recompile_limit=SHAPES, backend=backend, options=options
    )

    def forward(hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **others: Any) -> Any:
        if dynamo.accumulated_recompile_limit < SHAPES:  # each thread has its own
            dynamo.accumulated_recompile_limit = SHAPES
        return compiled(
            hidden_states=_plain(hidden_states), encoder_hidden_states=_plain(encoder_hidden_states), **others
        )

    return forward


def _inductor_options(block: nn.Module) -> dict[str, Any]:
    layers = [part for part in block.modules() if isinstance(part, nn.Linear | QuantizedLinear)]
    all_int8 = all(isinstance(layer, Int8Linear) for layer in layers)
    return _TUNED_INT8 if all_int8 and layers[0].weight.is_cuda else _SAME_EVERYWHERE


def _plain(tokens: torch.Tensor) -> torch.Tensor:
    """The same [1, n, hidden] with the strides of a freestanding tensor.

    Single blocks return slices of the joint sequence. Their outermost stride (of a dimension of size 1) would otherwise
    cost a third graph per shape.
    """
    if tokens.shape[0] == 1 and tokens.stride(0) != tokens.shape[1] * tokens.stride(1):
        return tokens[0].unsqueeze(0)
    return tokens


# Error.


def speed_error(latents: torch.Tensor, exact: torch.Tensor, noise: torch.Tensor) -> float:
    """How far latents of a speed level are from the exact ones, relative to the way from noise to picture.

    `||latents - exact|| / ||exact - noise||`, all of one request and shape.
    """
    if not latents.shape == exact.shape == noise.shape:
        raise ValueError(f"Shapes differ: {list(latents.shape)}, {list(exact.shape)}, {list(noise.shape)}.")
    way = (exact.double() - noise.double()).norm()
    return float((latents.double() - exact.double()).norm() / way)
