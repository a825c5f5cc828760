"""Blocks in fewer passes over memory: the numbers of diffusers' own blocks, each operator and all together."""

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb

from tests.golden import MODES, Case, Row, check
from tests.support.tiny_flux import tiny_exchanged, tiny_inputs
from uso.pipeline.pipeline import USOPipeline
from uso.transformer import eager
from uso.transformer.attention import strength_bias
from uso.transformer.eager import read_rows, turned

SIZES = [(12, 7), (48, 0), (33, 16), (35, 21), (99, 0), (99, 64)]
"""Tokens of picture and references, odd numbers among them: the ends of vectors, rows that are left over."""


@pytest.mark.parametrize(("picture", "references"), SIZES)
@pytest.mark.parametrize("strengths", [(), (0.5,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_numbers_are_bit_for_bit_what_diffusers_computes(
    dtype: torch.dtype, picture: int, references: int, strengths: tuple[float, ...]
) -> None:
    """Catches positions, gates, GELU and the last block's rows that are computed in another order, or from other
    tokens."""
    stock, ours = tiny_exchanged(dtype), tiny_exchanged(dtype)
    ours.run_eagerly()
    tokens, given = tiny_inputs(stock, picture, references)
    if strengths:
        bias = strength_bias([6], strengths, len(given["positions"][0]))
        assert bias is not None
        given["attention_bias"] = bias.to(dtype)
    with torch.inference_mode():
        expected = stock.run(tokens, **given)[:, :picture]
        found = ours.run(tokens, **given)[:, :picture]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("tokens", "context", "picture", "rows"),
    [
        (4096 + 1024 + 704, 704, 4096, (704, 4800)),
        (32 + 64, 32, 64, (32, 96)),
        (9 + 33 + 16, 9, 33, (9, 57)),
        (9 + 33 + 2, 9, 33, (0, 44)),
        (512 + 99 + 64, 512, 99, (512, 624)),
        (512 + 99, 512, 99, (512, 611)),
        (40 + 99, 40, 99, (32, 139)),
    ],
)
def test_the_last_block_computes_the_pictures_rows_and_few_more(
    tokens: int, context: int, picture: int, rows: tuple[int, int]
) -> None:
    found = read_rows(tokens, context, picture)
    assert (found.start, found.stop) == rows
    assert found.start <= context and found.stop >= context + picture


@pytest.mark.parametrize("plant", ["turned", "modulated"])
def test_a_wrong_operator_is_seen(monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    """The planted bugs: positions turn the other way, and the shift is left out."""
    whole = getattr(eager, plant)
    wrong = {
        "turned": lambda values, angles: whole(values, angles.conj()),
        "modulated": lambda norm, tokens, scale, shift: whole(norm, tokens, scale, torch.zeros_like(shift)),
    }
    monkeypatch.setattr(eager, plant, wrong[plant])
    stock, ours = tiny_exchanged(), tiny_exchanged()
    ours.run_eagerly()
    tokens, given = tiny_inputs(stock, 12, 7)
    with torch.inference_mode():
        expected, found = (made.run(tokens, **given)[:, :12] for made in (stock, ours))
    assert float((found - expected).norm() / expected.norm()) > 1e-3


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_as_a_complex_product_are_bit_for_bit_the_same(size: int, dtype: torch.dtype) -> None:
    """For heads of whole vectors, as all released and demo models have them."""
    draw = torch.Generator().manual_seed(2)
    values = torch.randn(2, 37, 3, size, generator=draw).to(dtype)
    angles = torch.randn(37, size // 2, generator=draw)
    table = angles.repeat_interleave(2, dim=1)
    expected = apply_rotary_emb(values, (table.cos(), table.sin()), sequence_dim=1)
    assert torch.equal(turned(values.clone(), torch.complex(angles.cos(), angles.sin()).unsqueeze(1)), expected)


def test_a_batch_gives_what_it_gave() -> None:
    stock, ours = tiny_exchanged(), tiny_exchanged()
    ours.run_eagerly()
    tokens, given = tiny_inputs(stock, 12, 7, batch=3)
    with torch.inference_mode():
        assert torch.equal(ours.run(tokens, **given)[:, :12], stock.run(tokens, **given)[:, :12])


def test_gradients_run_through_the_blocks_own_forward() -> None:
    """Catches numbers that are overwritten while the backward pass still needs them."""
    stock, ours = tiny_exchanged(), tiny_exchanged()
    ours.run_eagerly()
    tokens, given = tiny_inputs(stock, 12, 7)
    gradients = []
    for made in (stock, ours):
        leaf = tokens.clone().requires_grad_(True)
        made.run(leaf, **given).square().mean().backward()
        gradients.append(leaf.grad)
    first, second = gradients
    assert first is not None and second is not None and torch.equal(first, second)


def test_the_stock_transformer_comes_back() -> None:
    """Catches blocks that are saved, trained or compared with another forward than their class's."""
    ours = tiny_exchanged()
    ours.run_eagerly()
    blocks = [*ours.transformer.transformer_blocks, *ours.transformer.single_transformer_blocks]
    assert all("forward" in vars(block) for block in blocks)
    with ours.stock():
        assert not any("forward" in vars(block) for block in blocks)
    assert all("forward" in vars(block) for block in blocks)
    tokens, given = tiny_inputs(ours, 12, 7)
    with torch.inference_mode():
        assert torch.equal(ours.run(tokens, **given), ours.run(tokens, **given))


def test_the_golden_numbers_hold(golden: Case) -> None:
    """The released network's, in all modes."""
    pipeline: USOPipeline = golden.load()
    pipeline.exchanged.run_eagerly()
    rows: list[Row] = list(check(golden, pipeline))
    assert [row.what for row in rows if not row.passed] == []
    assert sum("velocity" in row.what for row in rows) == len(MODES)


def test_the_demo_model_runs_so(demo_pipeline: USOPipeline) -> None:
    """Catches a loader that forgets it."""
    assert demo_pipeline.exchanged.eager is not None
