"""int8 products: one scale per channel and per token, the bias kept, the right layers, the same numbers everywhere."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from tests.support.tiny_flux import tiny_request, tiny_steps, tiny_transformer
from uso.memory.streaming import BlockStream
from uso.transformer import int8
from uso.transformer.compile import speed_error
from uso.transformer.fp8 import fp8_blocks
from uso.transformer.int8 import LARGEST, Int8Linear, can_quantize, quantize_blocks, quantize_rows

LINEAR_ERROR = 0.02
"""What one int8 layer may lose on normally distributed numbers; about 0.012 at these widths."""


@pytest.fixture
def linear() -> nn.Linear:
    """Channels of very different size, as trained layers have them, and a bias that matters."""
    draw = torch.Generator().manual_seed(0)
    layer = nn.Linear(512, 128).requires_grad_(False)
    sizes = torch.logspace(-2, 0, 128)
    layer.weight.copy_(torch.randn(128, 512, generator=draw) * 512**-0.5 * sizes[:, None])
    layer.bias.copy_(torch.randn(128, generator=draw) * sizes)
    return layer


def tokens(count: int = 40, *, spread: float = 3) -> torch.Tensor:
    """[1, count, 512], the last token 10**spread times as large as the first."""
    draw = torch.Generator().manual_seed(1)
    return torch.randn(1, count, 512, generator=draw) * torch.logspace(-spread, 0, count)[:, None]


def worst_errors(layer: Int8Linear, linear: nn.Linear) -> tuple[float, float]:
    """The error of the worst channel (over tokens of one size) and of the worst token, as shares of their products."""
    errors = []
    for inputs, dim in ((tokens(spread=0), 0), (tokens(), 1)):
        exact = linear(inputs)[0]
        product = exact - linear.bias
        errors.append(float(((layer(inputs)[0] - exact).norm(dim=dim) / product.norm(dim=dim)).max()))
    return errors[0], errors[1]


def test_rows_come_back_within_half_a_scale() -> None:
    rows = tokens()[0]
    quantized, scales = quantize_rows(rows)
    assert quantized.dtype == torch.int8 and scales.shape == (40, 1)
    assert int(quantized.abs().max()) == LARGEST
    assert bool(((quantized * scales - rows).abs() <= 0.5001 * scales).all())


def test_a_row_of_zeros_stays_zero() -> None:
    """Catches the division by its largest value."""
    quantized, scales = quantize_rows(torch.zeros(2, 8))
    assert bool((quantized * scales == 0).all())


def test_every_channel_and_token_is_close(linear: nn.Linear) -> None:
    """Small channels and small tokens are as exact as large ones."""
    assert max(worst_errors(Int8Linear(linear), linear)) < LINEAR_ERROR


def one_scale(layer: Int8Linear, linear: nn.Linear) -> None:
    scale = linear.weight.abs().max() / LARGEST
    layer.scale = nn.Parameter(scale.expand(128).clone(), requires_grad=False)
    layer.weight = nn.Parameter((linear.weight / scale).round().to(torch.int8), requires_grad=False)


def no_bias(layer: Int8Linear, _: nn.Linear) -> None:
    layer.bias = None


@pytest.mark.parametrize("plant", [one_scale, no_bias])
def test_planted_bugs_are_seen(plant: Callable[[Int8Linear, nn.Linear], None], linear: nn.Linear) -> None:
    """One scale for the whole tensor, a forgotten bias: the check above is not blind to them."""
    layer = Int8Linear(linear)
    plant(layer, linear)
    assert max(worst_errors(layer, linear)) > 2 * LINEAR_ERROR


def test_one_scale_for_all_tokens_would_be_seen(linear: nn.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another planted bug: the largest token decides how coarsely the small ones are rounded."""
    layer = Int8Linear(linear)
    monkeypatch.setattr(int8, "row_scales", lambda values: values.abs().max().expand(len(values), 1) / LARGEST)
    assert worst_errors(layer, linear)[1] > 2 * LINEAR_ERROR


def test_sums_are_exact(linear: nn.Linear) -> None:
    """int8 products are summed in integers: held against float64, beyond what float32 could add up."""
    layer = Int8Linear(linear)
    rows, scales = quantize_rows(tokens()[0])
    sums = rows.double() @ layer.weight.double().T
    expected = (sums.float() * scales * layer.scale.float() + layer.bias.float()) if layer.bias is not None else sums
    assert torch.equal(layer(tokens())[0], expected)


@pytest.mark.parametrize("count", [1, 16, 17])
def test_few_tokens(count: int, linear: nn.Linear) -> None:
    """CUDA's kernel takes no fewer than 17 rows: rows that are added change nothing and do not come back."""
    layer, inputs = Int8Linear(linear), tokens(40)[:, :count]
    assert torch.equal(layer(inputs), layer(tokens(40))[:, :count])


def test_a_cast_of_the_model_changes_no_number() -> None:
    """Scales in bfloat16 are rounded before the weights are divided by them."""
    linear = nn.Linear(64, 32, dtype=torch.bfloat16).requires_grad_(False)
    layer = Int8Linear(linear)
    assert layer.scale.dtype == torch.bfloat16
    inputs = torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    before = layer(inputs)
    assert before.dtype == torch.bfloat16
    assert torch.equal(copy.deepcopy(layer).float().bfloat16()(inputs), before)
    restored = layer.weight.float() * layer.scale.float()[:, None]
    assert bool(((restored - linear.weight.float()).abs() <= 0.51 * layer.scale.float()[:, None]).all())


def test_the_original_is_left_alone() -> None:
    """Catches arithmetic in place on float32 weights that the caller still holds."""
    linear = nn.Linear(16, 8).requires_grad_(False)
    before = linear.weight.clone()
    Int8Linear(linear)
    assert torch.equal(linear.weight, before)


def test_which_layers_change() -> None:
    """Attention and MLP of every block: 12 layers of a double block, 5 of a single; no modulation, nothing outside."""
    transformer = tiny_transformer(torch.bfloat16)
    report = quantize_blocks(transformer)
    assert (report.layers, report.kept) == (2 * 12 + 3 * 5, ())
    assert report.bytes_after < 0.6 * report.bytes_before
    left = {name for name, part in transformer.named_modules() if isinstance(part, nn.Linear) and "blocks" in name}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in left} == {"norm1", "norm1_context", "norm"}
    assert isinstance(transformer.proj_out, nn.Linear) and isinstance(transformer.x_embedder, nn.Linear)
    assert transformer.dtype == torch.bfloat16  # which the pipeline casts its inputs to


def test_widths_that_do_not_suit_are_named() -> None:
    """... and left as they are, instead of failing on a GPU only."""
    transformer = tiny_transformer()
    transformer.single_transformer_blocks[0].proj_mlp = nn.Linear(64, 260)
    assert quantize_blocks(transformer).kept == ("single_transformer_blocks.0.proj_mlp",)


def test_shapes_alone_are_enough() -> None:
    """Forecasts quantize a model that has no weights."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    report = quantize_blocks(transformer)
    assert report.layers == 17 and 0.25 < report.bytes_after / report.bytes_before < 0.26


def test_a_whole_transformer_is_close() -> None:
    exact = tiny_steps(tiny_transformer())
    transformer = tiny_transformer()
    quantize_blocks(transformer)
    error = speed_error(tiny_steps(transformer), exact, tiny_request(transformer)[0])
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("reduce", [quantize_blocks, fp8_blocks])
def test_streamed_weights_give_the_same_bits(reduce: Callable[[Any], object]) -> None:
    """Reduced weights, their scales and biases travel together."""
    transformer = tiny_transformer(torch.bfloat16)
    reduce(transformer)
    resident = tiny_steps(transformer)
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    BlockStream(blocks, torch.device("cpu"), slots=2, permanent=1)
    assert torch.equal(tiny_steps(transformer), resident)


def test_where_it_runs() -> None:
    assert can_quantize("cpu") is None
    assert "CUDA" in (can_quantize("mps") or "")
