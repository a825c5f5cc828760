"""Blocks that take turns in slots: bitwise what resident blocks give, at every split, and nothing kept too long."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from uso.memory.streaming import BlockStream, block_bytes, places_of

CPU = torch.device("cpu")


class Block(nn.Module):
    """Two linears of different dtypes and a norm, as blocks with quantized weights have."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width, bias=False).bfloat16()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) / width**0.5
            parameter.requires_grad_(False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.second(self.first(self.norm(hidden)).bfloat16()).float()


def stack(count: int = 7, width: int = 12) -> list[nn.Module]:
    # The third block is wider inside, so slots must hold different sizes.
    blocks: list[nn.Module] = [Block(width, seed) for seed in range(count)]
    blocks[2] = nn.Sequential(Block(width, 50), Block(width, 51))
    return blocks


def run(blocks: list[nn.Module], passes: int = 1) -> torch.Tensor:
    hidden = torch.linspace(-1, 1, 36).view(3, 12)
    with torch.inference_mode():
        for _ in range(passes):
            for block in blocks:
                hidden = block(hidden)
    return hidden


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("resident", range(8))
def test_every_split_is_bitwise_the_same(slots: int, resident: int) -> None:
    expected = run(stack(), passes=3)
    blocks = stack()
    stream = BlockStream(blocks, CPU, slots=slots, permanent=0)
    stream.set_resident(resident)
    assert torch.equal(run(blocks, passes=3), expected)


def test_changes_between_passes_and_stops_in_the_middle() -> None:
    """Denoise, release for the decoder, denoise again; and a request that was cancelled between two blocks."""
    blocks = stack()
    expected = run(stack())
    stream = BlockStream(blocks, CPU, slots=2, permanent=1)
    for resident in (1, 5, 0, 7, 3):
        stream.set_resident(resident)
        assert stream.resident == max(resident, 1)
        run(blocks[:4])  # stops before the end: slots hold the middle
        assert torch.equal(run(blocks), expected)
        assert torch.equal(run(blocks), expected)


def test_a_pass_that_breaks_off_keeps_no_slot() -> None:
    """Catches the block at work when memory ran out, which goes on holding the buffer that was let go for others."""
    blocks = stack()
    stream = BlockStream(blocks, CPU, slots=2, permanent=0)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = blocks[3].register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        run(blocks)
    handle.remove()
    home = stream.blocks[3].host
    assert home is not None
    assert next(blocks[3].parameters()).untyped_storage().data_ptr() != home.untyped_storage().data_ptr()
    stream.release_slots()
    for module, block in zip(blocks, stream.blocks, strict=True):
        assert block.host is not None
        held = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        assert held == {block.host.untyped_storage().data_ptr()}
    assert torch.equal(run(blocks), run(stack()))


def test_sees_a_slot_that_was_not_refilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a slot keeps the block it held before."""
    blocks = stack()
    stream = BlockStream(blocks, CPU, slots=2, permanent=0)
    monkeypatch.setattr(BlockStream, "_fill", lambda self, slot, index: setattr(slot, "holds", index))
    assert not torch.equal(run(blocks), run(stack()))
    assert stream.resident == 0


def test_weights_live_once() -> None:
    """Old tensors are let go as a block is adopted, slots with the pass, resident copies when they leave."""
    blocks = stack()
    old = [weakref.ref(parameter.data.untyped_storage()) for block in blocks for parameter in block.parameters()]
    stream = BlockStream(blocks, CPU, slots=2, permanent=2)
    gc.collect()
    assert [ref for ref in old if ref() is not None] == []
    assert all(block.host is None for block in stream.blocks[:2])
    stream.set_resident(5)
    run(blocks)
    held: list[Any] = [weakref.ref(slot.buffer) for slot in stream._slots]
    held += [weakref.ref(block.device) for block in stream.blocks[2:5]]
    assert len(held) == 2 + 3
    stream.set_resident(2)
    gc.collect()
    assert [ref for ref in held if ref() is not None] == []


def test_parameters_can_be_read_between_passes() -> None:
    """`state_dict` (saving) must find every block's own numbers, streamed or not."""
    expected = {name: value.clone() for name, value in nn.ModuleList(stack()).state_dict().items()}
    blocks = stack()
    BlockStream(blocks, CPU, slots=2, permanent=1)
    run(blocks)
    state = nn.ModuleList(blocks).state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_sizes_are_exact_but_for_alignment() -> None:
    block = Block(12, 0)
    places, size = places_of(block)
    parameters = sum(p.numel() * p.element_size() for p in block.parameters())
    assert parameters <= size == block_bytes(block) <= parameters + 64 * len(places)
    assert all(place.start % 64 == 0 for place in places)
