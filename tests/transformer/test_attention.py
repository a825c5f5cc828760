"""Queries and keys in one pass: what diffusers' processor does with them, in another order of passes."""

from typing import Any

import pytest
import torch

from tests.support.tiny_flux import tiny_request, tiny_steps, tiny_transformer
from uso.transformer import attention
from uso.transformer.attention import RotatedProcessor, rotate_in_one_pass, rotated
from uso.transformer.compile import speed_error

EPS = 1e-6


def parts(context: int, picture: int, heads: int, size: int = 16, device: str = "cpu") -> tuple[Any, ...]:
    """Arguments of `rotated`, float32; a batch of 2."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(device)

    angles = random(context + picture, size // 2).repeat_interleave(2, dim=1)
    first = (random(2, context, heads * size), random(size)) if context else (None, None)
    return first[0], random(2, picture, heads * size), first[1], random(size), angles.cos(), angles.sin(), EPS


@pytest.mark.parametrize("plant", [None, "weights swapped", "no positions"])
def test_a_transformer_gives_what_it_gave(plant: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against diffusers' own processor, in double and single blocks; both planted bugs are seen."""
    draw = torch.Generator().manual_seed(3)
    stock, ours = tiny_transformer(), tiny_transformer()
    with torch.no_grad():
        for (name, one), (_, other) in zip(stock.named_parameters(), ours.named_parameters(), strict=True):
            if ".attn.norm_" in name:  # all ones otherwise, and a swapped pair would not show
                one.copy_(other.copy_(1 + 0.5 * torch.randn(one.shape, generator=draw)))
    rotate_in_one_pass(ours)
    assert all(isinstance(block.attn.processor, RotatedProcessor) for block in ours.transformer_blocks)

    def planted(context: Any, picture: Any, first: Any, second: Any, cosines: Any, sines: Any, eps: float) -> Any:
        if plant == "no positions":
            cosines, sines = torch.ones_like(cosines), torch.zeros_like(sines)
        elif first is not None:
            first, second = second, first
        return rotated(context, picture, first, second, cosines, sines, eps)

    if plant:
        monkeypatch.setattr(attention, "rotated", planted)
    error = speed_error(tiny_steps(ours), tiny_steps(stock), tiny_request(stock)[0])
    assert error < 1e-5 if plant is None else error > 1e-3


def test_shapes_are_known_without_numbers() -> None:
    """What a compiler goes by."""
    given = parts(3, 5, 2)
    known = rotated(*(part.to("meta") if torch.is_tensor(part) else part for part in given))
    assert known.shape == rotated(*given).shape == (2, 8, 2, 16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("context", "picture", "heads", "size"), [(704, 5120, 24, 128), (0, 5824, 24, 128), (3, 5, 3, 16)]
)
def test_the_kernel_agrees(context: int, picture: int, heads: int, size: int) -> None:
    given = parts(context, picture, heads, size)
    there = rotated(*(part.cuda() if torch.is_tensor(part) else part for part in given))
    assert torch.allclose(there.cpu(), rotated(*given), rtol=1e-4, atol=1e-5)
