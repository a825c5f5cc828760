"""What lives where: a `Residency` places a pipeline's modules on a device and lends it the ones that only visit.

Two plans for now, both with diffusers' own means: everything resident, or the transformer streamed block by block and
the encoders and the autoencoder brought to the device while they work. The weights' numbers are the same in both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from uso.config import MemoryPlan

VISITORS = ("text_encoder", "text_encoder_2", "image_encoder", "vae")
"""Components that a visiting plan keeps in host memory between their turns."""

GIB = 2**30


class Residency:
    """Where a pipeline's modules are, on one device, under one plan."""

    def __init__(self, plan: MemoryPlan, device: torch.device | str) -> None:
        self.plan = plan
        self.device = torch.device(device)

    def place(self, pipeline: Any) -> None:
        """Bring everything that stays on the device there, and set up what streams."""
        for name, module in pipeline.components.items():
            if not isinstance(module, nn.Module) or (self.plan.visit and name in VISITORS):
                continue
            if name == "transformer" and self.plan.stream_transformer:
                self._stream(module)
            else:
                module.to(self.device)

    def _stream(self, transformer: Any) -> None:
        on_cuda = self.device.type == "cuda"
        transformer.enable_group_offload(
            onload_device=self.device,
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=on_cuda,
            low_cpu_mem_usage=on_cuda,  # pin each tensor as it travels instead of all of them at once
        )

    @contextmanager
    def visit(self, module: nn.Module) -> Iterator[None]:
        """While inside, `module` is on the device; its host copy is kept, so leaving costs nothing."""
        if not self.plan.visit:
            yield
            return
        host: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        try:
            visiting: dict[int, torch.Tensor] = {}
            for part in module.modules():
                homes: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
                for slots in homes:
                    for name, tensor in slots.items():
                        if tensor is None:
                            continue
                        host.append((slots, name, tensor))
                        if id(tensor) not in visiting:  # a tied tensor travels once
                            moved = tensor.data.to(self.device)
                            is_parameter = isinstance(tensor, nn.Parameter)
                            visiting[id(tensor)] = nn.Parameter(moved, requires_grad=False) if is_parameter else moved
                        slots[name] = visiting[id(tensor)]
            yield
        finally:
            for slots, name, tensor in host:
                slots[name] = tensor

    def peak_memory_gib(self) -> float | None:
        """Peak device memory since `reset_peak`, in GiB; None on a CPU, and on MPS, which keeps no peak."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self.device) / GIB, 3)

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def release(self) -> None:
        """Give cached, unused device memory back (after a failure)."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()


def free_device_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, in bytes; None for a CPU."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None
