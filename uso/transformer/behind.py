"""Blocks that are compiled behind the pictures that are made meanwhile: no picture waits for a compiler.

A picture of a new shape is made by eager blocks. They hand the first inputs of a block of each kind to a thread, which
compiles for them. Pictures that begin afterwards run compiled. One picture is never half and half, and its record says
which it is.
"""

import logging
import threading
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from uso.transformer.compile import compiled_forward, use_cache_folder
from uso.transformer.eager import EagerBlocks

logger = logging.getLogger(__name__)

Inputs = dict[str, Any]


class BlocksCompiledBehind:
    """In the place of `EagerBlocks`: runs them until the compiled blocks are ready for a shape.

    Args:
        transformer: whose blocks stay on the device.
        folder: where compiled kernels are kept; see `uso.transformer.compile.use_cache_folder`.
        backend: see `uso.transformer.compile.compile_blocks`.
    """

    def __init__(self, transformer: Any, folder: Path | None, backend: str = "inductor") -> None:
        use_cache_folder(folder)
        self.transformer = transformer
        self.eager = EagerBlocks(transformer)
        self.compiled = False
        """Whether the present picture runs compiled."""
        self._blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        self._compiled = {id(block): compiled_forward(block, backend) for block in self._blocks}
        self._ready: set[Hashable] = set()
        self._wanted: Hashable | None = None
        """The shape that the present picture's inputs are kept for."""
        self._kept: dict[type, tuple[Any, Inputs]] = {}
        """A block of each kind and its inputs."""
        self._thread: threading.Thread | None = None
        self._failed = False

    def begin_picture(self, shape: Hashable, waits: bool) -> None:
        """Decide how all steps of the next picture run.

        Args:
            shape: all that graphs depend on.
            waits: it runs compiled, even if it has to wait for the compiler.
        """
        self.compiled = waits or shape in self._ready
        self._kept = {}
        working = self._thread is not None and self._thread.is_alive()
        self._wanted = None if self.compiled or self._failed or working else shape

    def wait(self) -> None:
        """Until what was begun is compiled."""
        if self._thread is not None:
            self._thread.join()

    # As `EagerBlocks`.

    def put_in(self) -> None:
        self.eager.put_in()
        for block in self._blocks:
            block.forward = partial(self._forward, block, block.forward)

    def take_out(self) -> None:
        self.eager.take_out()

    def begin(self, positions: tuple[torch.Tensor, torch.Tensor], context: int, picture: int) -> None:
        if not self.compiled:
            self.eager.begin(positions, context, picture)

    def end(self) -> None:
        self.eager.end()

    def _forward(self, block: Any, eager: Callable[..., Any], **inputs: Any) -> Any:
        if self.compiled and not torch.is_grad_enabled():
            return self._compiled[id(block)](**inputs)
        if self._wanted is not None and type(block) not in self._kept:
            own = {name: inputs[name].clone() for name in ("hidden_states", "encoder_hidden_states")}
            self._kept[type(block)] = block, inputs | own  # eager blocks may write over what they are given
            if len(self._kept) == len({type(each) for each in self._blocks}):
                self._compile()
        return eager(**inputs)

    def _compile(self) -> None:
        shape, kept = self._wanted, list(self._kept.values())
        self._wanted, self._kept = None, {}
        self._thread = threading.Thread(target=self._run, args=(shape, kept), name="compile", daemon=True)
        self._thread.start()

    def _run(self, shape: Hashable, kept: list[tuple[Any, Inputs]]) -> None:
        """Run a block of each kind, which compiles it for all of them."""
        try:
            device = kept[0][1]["hidden_states"].device
            if device.type == "cuda":
                torch.cuda.set_device(device)
            with torch.inference_mode():
                for block, inputs in kept:
                    self._compiled[id(block)](**inputs)
        except Exception as error:  # a toolchain can fail in any way; eager always works
            self._failed = True
            lines = str(error).strip().splitlines() or [type(error).__name__]
            logger.warning("Blocks stay uncompiled, which is slower: compiling them failed (%s).", lines[0])
            return
        self._ready.add(shape)
