"""Blocks that take turns on the device: the first ones stay, the others share slots that are filled ahead of use.

Works on any list of modules that run one after another, such as the blocks of the transformer or of T5. Weights live
once, in host memory of exactly their size. A block is copied to a slot on a separate stream while earlier blocks
compute; events order the two streams, so the host never waits. The numbers do not change. On a CPU the same code copies
from host to host, which is how it is tested.
"""

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from uso.errors import USOError

logger = logging.getLogger(__name__)

_ALIGN = 64
"""Alignment of tensors in a flat buffer, in bytes."""


@dataclass(frozen=True)
class Place:
    """Position of a parameter in its block's flat buffer."""

    owner: nn.Module
    leaf: str
    shape: torch.Size
    dtype: torch.dtype
    start: int
    stop: int


def places_of(block: nn.Module) -> tuple[list[Place], int]:
    """The places of a block's parameters in a flat buffer, and the buffer's size in bytes."""
    places, offset = [], 0
    for owner in block.modules():
        for leaf, parameter in owner._parameters.items():
            if parameter is None:
                continue
            stop = offset + parameter.numel() * parameter.element_size()
            places.append(Place(owner, leaf, parameter.shape, parameter.dtype, offset, stop))
            offset = -(-stop // _ALIGN) * _ALIGN
    return places, offset


def block_bytes(block: nn.Module) -> int:
    """Size of a block's flat buffer."""
    return places_of(block)[1]


def host_buffer(size: int, device: torch.device) -> torch.Tensor:
    """Host memory of exactly `size` bytes, page-locked where `device` is a CUDA device.

    PyTorch's pinned allocator rounds up to powers of two, so plain memory is registered instead.

    Raises:
        USOError: the system does not lock that much memory.
    """
    buffer = torch.empty(max(size, 1), dtype=torch.uint8)
    if device.type == "cuda":
        runtime: Any = torch.cuda.cudart()
        status = runtime.cudaHostRegister(buffer.data_ptr(), buffer.numel(), 0)
        if int(status) != 0:
            raise USOError(
                f"The system would not lock {size / 2**30:.1f} GiB of host memory (error {int(status)}). Free some, "
                "raise the limit of locked memory (ulimit -l), or choose a memory plan that keeps more on the device."
            )
        weakref.finalize(buffer, runtime.cudaHostUnregister, buffer.data_ptr())
    return buffer


@dataclass
class _Block:
    """One block and its bytes: on the host if it may leave the device, on the device while it is resident."""

    places: list[Place]
    size: int
    host: torch.Tensor | None = None
    device: torch.Tensor | None = None
    in_slot: list[nn.Parameter] | None = None
    """Its parameters as views of its slot; a block always uses the same slot."""
    at_home: list[nn.Parameter] | None = None
    """Its parameters as views of its own bytes."""


@dataclass
class _Slot:
    buffer: torch.Tensor
    holds: int | None = None
    ready: Any = None
    """Event on the copying stream: the block has arrived."""
    free: Any = None
    """Event on the computing stream: the previous block in this slot has run."""


class BlockStream:
    """A list of blocks under a device budget.

    Args:
        blocks: run in this order, again and again.
        device: where they compute.
        slots: number of device buffers for blocks that do not stay.
        permanent: number of blocks that never leave the device and need no host copy.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, *, slots: int, permanent: int) -> None:
        self.modules = list(blocks)
        self.device = device
        self.num_slots = slots
        self.permanent = permanent
        self.resident = 0
        self.blocks = [self._adopt(block, index) for index, block in enumerate(self.modules)]
        self._slots: list[_Slot] = []
        self._copying: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        for index, block in enumerate(self.modules):
            block.register_forward_pre_hook(lambda _module, _inputs, index=index: self._before(index))
            block.register_forward_hook(lambda _module, _inputs, _outputs, index=index: self._after(index))
        self.set_resident(permanent)

    def _adopt(self, module: nn.Module, index: int) -> _Block:
        """Move a block's parameters into one flat buffer, tensor by tensor, freeing the old ones."""
        places, size = places_of(module)
        stays = index < self.permanent
        flat = torch.empty(size, dtype=torch.uint8, device=self.device) if stays else host_buffer(size, self.device)
        for place in places:
            parameter = place.owner._parameters[place.leaf]
            assert parameter is not None
            view = _view(flat, place)
            view.copy_(parameter.detach())
            place.owner._parameters[place.leaf] = nn.Parameter(view, requires_grad=False)
        return _Block(places, size, host=None if stays else flat, device=flat if stays else None)

    @property
    def sizes(self) -> list[int]:
        return [block.size for block in self.blocks]

    def set_resident(self, count: int) -> None:
        """Keep the first `count` blocks on the device; existing slots are freed."""
        count = max(count, self.permanent)
        with torch.inference_mode(False):
            self.release_slots()
            for index, block in enumerate(self.blocks):
                if index < count and block.device is None:
                    assert block.host is not None
                    # A copy even on a CPU: a resident block never reads the host's memory.
                    block.device = torch.empty_like(block.host, device=self.device)
                    block.device.copy_(block.host, non_blocking=True)
                    self._home(index, moved=True)
                elif index >= count and block.device is not None:
                    block.device = None
                    self._home(index, moved=True)
        self.resident = count

    def release_slots(self) -> None:
        """Free the slots; the next pass makes new ones."""
        if self._slots and self._copying is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._copying)
        with torch.inference_mode(False):
            for index, block in enumerate(self.blocks):
                if block.in_slot is not None:
                    block.in_slot = None
                    self._home(index)  # an interrupted pass left it in its slot
        self._slots = []

    def _home(self, index: int, *, moved: bool = False) -> None:
        """Point a block at its own bytes, so every parameter is readable between passes."""
        block = self.blocks[index]
        if block.at_home is None or moved:
            own = block.device if block.device is not None else block.host
            assert own is not None
            block.at_home = _views(block.places, own)
        _point(block.places, block.at_home)

    def _before(self, index: int) -> None:
        if index < self.resident:
            if index == 0 and self.resident < len(self.blocks):
                self._start()
            return
        self._start()
        slot = self._slot_of(index)
        if slot.holds != index:
            self._fill(slot, index)
        if slot.ready is not None:
            torch.cuda.current_stream(self.device).wait_event(slot.ready)
        block = self.blocks[index]
        if block.in_slot is None:
            block.in_slot = _views(block.places, slot.buffer)
        _point(block.places, block.in_slot)

    def _after(self, index: int) -> None:
        if index < self.resident:
            return
        slot = self._slot_of(index)
        if self._copying is not None:
            slot.free = torch.cuda.Event()
            slot.free.record(torch.cuda.current_stream(self.device))
        self._home(index)
        self._fill(slot, self._next_in(index))

    def _start(self) -> None:
        """Make and fill the slots, on the first streamed pass after a change."""
        streamed = len(self.blocks) - self.resident
        if self._slots or streamed == 0:
            return
        size = max(block.size for block in self.blocks[self.resident :])
        count = min(self.num_slots, streamed)
        with torch.inference_mode(False):
            self._slots = [_Slot(torch.empty(size, dtype=torch.uint8, device=self.device)) for _ in range(count)]
        for index in range(self.resident, self.resident + count):
            self._fill(self._slot_of(index), index)

    def _slot_of(self, index: int) -> _Slot:
        return self._slots[(index - self.resident) % len(self._slots)]

    def _next_in(self, index: int) -> int:
        """The block that goes into this one's slot next: `slots` blocks later, possibly in the next pass."""
        count = len(self._slots)
        following = index + count
        return following if following < len(self.blocks) else self.resident + (index - self.resident) % count

    def _fill(self, slot: _Slot, index: int) -> None:
        if slot.holds == index:
            return
        host = self.blocks[index].host
        assert host is not None
        target = slot.buffer[: host.numel()]
        if self._copying is None:
            target.copy_(host)
        else:
            with torch.cuda.stream(self._copying):
                if slot.free is not None:
                    self._copying.wait_event(slot.free)
                else:  # a fresh buffer's previous owner may still be using its memory
                    self._copying.wait_stream(torch.cuda.current_stream(self.device))
                target.copy_(host, non_blocking=True)
                slot.ready = torch.cuda.Event()
                slot.ready.record(self._copying)
        slot.holds = index


def _view(flat: torch.Tensor, place: Place) -> torch.Tensor:
    return flat[place.start : place.stop].view(place.dtype).view(place.shape)


def _views(places: list[Place], flat: torch.Tensor) -> list[nn.Parameter]:
    """A block's parameters as views of a flat buffer."""
    with torch.inference_mode(False):
        return [nn.Parameter(_view(flat, place), requires_grad=False) for place in places]


def _point(places: list[Place], parameters: list[nn.Parameter]) -> None:
    for place, parameter in zip(places, parameters, strict=True):
        place.owner._parameters[place.leaf] = parameter
