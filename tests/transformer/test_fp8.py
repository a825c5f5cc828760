"""fp8 products: one scale per channel and per token, GELU taken into the rounding, blocks otherwise as they are."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.support.tiny_flux import tiny_request, tiny_steps, tiny_transformer
from tests.support.tiny_training import training_pipeline
from uso.config import load_memory_plan
from uso.memory.residency import Residency
from uso.transformer import fp8, int8
from uso.transformer.compile import _SAME_EVERYWHERE, _inductor_options, speed_error
from uso.transformer.fp8 import Fp8FeedForward, Fp8Linear, Fp8SingleBlock, fp8_blocks, gelu_rows, prefers_fp8
from uso.transformer.operators import FP8, LARGEST
from uso.weights import loading

LINEAR_ERROR = 0.05
"""What one fp8 layer may lose on normally distributed numbers; with three bits of mantissa, 0.037 on average."""


@pytest.fixture
def linear() -> nn.Linear:
    """Channels of very different size, as trained layers have them, and a bias that matters."""
    draw = torch.Generator().manual_seed(0)
    layer = nn.Linear(512, 256, dtype=torch.bfloat16).requires_grad_(False)
    sizes = torch.logspace(-7, 0, 256)
    layer.weight.copy_(torch.randn(256, 512, generator=draw) * 512**-0.5 * sizes[:, None])
    layer.bias.copy_(torch.randn(256, generator=draw) * sizes)
    return layer


def tokens(spread: float) -> torch.Tensor:
    """[1, 800, 512], the last token 10**spread times as large as the first."""
    draw = torch.Generator().manual_seed(1)
    return (torch.randn(1, 800, 512, generator=draw) * torch.logspace(-spread, 0, 800)[:, None]).bfloat16()


def worst_errors(layer: Fp8Linear, linear: nn.Linear) -> tuple[float, float]:
    """The error of the worst channel (over tokens of one size) and of the worst token, as shares of their products.

    Channels count alike: each is divided by its own size first.
    """
    errors = []
    for inputs, dim in ((tokens(0), 0), (tokens(5), 1)):
        exact = inputs[0].float() @ linear.weight.float().T
        sizes = linear.weight.float().norm(dim=1)
        differences = (layer(inputs)[0].float() - exact) / sizes
        errors.append(float((differences.norm(dim=dim) / (exact / sizes).norm(dim=dim)).max()))
    return errors[0], errors[1]


def test_every_channel_and_token_is_close(linear: nn.Linear) -> None:
    """Small channels and small tokens are as exact as large ones."""
    layer = Fp8Linear(linear)
    layer.bias = None
    assert 0.02 < max(worst_errors(layer, linear)) < LINEAR_ERROR


def one_scale(layer: Fp8Linear, linear: nn.Linear) -> None:
    scale = linear.weight.float().abs().max() / LARGEST
    layer.scale = nn.Parameter(scale.expand(256).clone(), requires_grad=False)
    layer.weight = nn.Parameter((linear.weight / scale).to(FP8), requires_grad=False)


def test_one_scale_for_all_channels_would_be_seen(linear: nn.Linear) -> None:
    layer = Fp8Linear(linear)
    layer.bias = None
    one_scale(layer, linear)
    assert worst_errors(layer, linear)[0] > 2 * LINEAR_ERROR


def test_one_scale_for_all_tokens_would_be_seen(linear: nn.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Fp8Linear(linear)
    layer.bias = None

    def coarse(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = rows.float().abs().max() / LARGEST
        return (rows.float() / scale).to(FP8), scale.repeat(len(rows), 1)

    monkeypatch.setattr(fp8, "quantize_rows", coarse)
    assert worst_errors(layer, linear)[1] > 2 * LINEAR_ERROR


def test_the_bias_is_added(linear: nn.Linear) -> None:
    assert torch.equal(Fp8Linear(linear)(torch.zeros(1, 3, 512).bfloat16())[0, 0], linear.bias)


def test_a_row_of_zeros_stays_zero() -> None:
    quantized, scales = fp8.quantize_rows(torch.zeros(2, 16))
    assert bool((quantized.float() * scales == 0).all())


@pytest.mark.parametrize("with_before", [False, True])
def test_gelu_is_taken_in(with_before: bool) -> None:
    """[before, gelu(hidden)] under one scale; without GELU, or with it on both, this would not hold."""
    draw = torch.Generator().manual_seed(2)
    hidden, before = (torch.randn(6, width, generator=draw).bfloat16() for width in (64, 32))
    quantized, scales = gelu_rows(hidden, before if with_before else None)
    values = nn.functional.gelu(hidden.float(), approximate="tanh")
    expected = torch.cat([before.float(), values], dim=1) if with_before else values
    assert quantized.shape == expected.shape and scales.shape == (6, 1)
    assert torch.allclose(quantized.float() * scales, expected, rtol=2**-4, atol=float(scales.max()) * 2**-9)
    assert not torch.allclose(quantized.float()[:, -64:] * scales, hidden.float(), rtol=0.1, atol=0.01)


def test_a_cast_of_the_model_changes_no_number(linear: nn.Linear) -> None:
    """Catches weights that are cast to bfloat16 and left there, and scales that are rounded on their way."""
    layer = Fp8Linear(linear)
    before = layer(tokens(0))
    cast = copy.deepcopy(layer).float().bfloat16()
    assert cast.weight.dtype == FP8 and cast.scale.dtype == torch.float32
    assert torch.equal(cast(tokens(0)), before)


def test_whole_blocks_take_gelu_in_under_the_same_names() -> None:
    transformer = tiny_transformer(torch.bfloat16)
    names = [name for name, _ in transformer.named_modules()]
    report = fp8_blocks(transformer)
    assert (report.layers, report.kept) == (2 * 12 + 3 * 5, ())
    assert [name for name, _ in transformer.named_modules()] == names
    assert all(type(block) is Fp8SingleBlock for block in transformer.single_transformer_blocks)
    assert all(
        type(part) is Fp8FeedForward
        for block in transformer.transformer_blocks
        for part in (block.ff, block.ff_context)
    )
    assert transformer.dtype == torch.bfloat16  # which the pipeline casts its inputs to


def test_a_whole_transformer_is_close() -> None:
    exact = tiny_steps(tiny_transformer(torch.bfloat16))
    transformer = tiny_transformer(torch.bfloat16)
    fp8_blocks(transformer)
    error = speed_error(tiny_steps(transformer), exact, tiny_request(transformer)[0])
    assert 1e-3 < error < 0.1


def gelu_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = fp8.gelu_rows
    monkeypatch.setattr(fp8, "gelu_rows", lambda hidden, before: stock(nn.functional.gelu(hidden), before))


def product_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    after_gelu = Fp8Linear.after_gelu
    monkeypatch.setattr(Fp8Linear, "after_gelu", lambda *args, **others: 2 * after_gelu(*args, **others))


@pytest.mark.parametrize("plant", [None, gelu_twice, product_twice])
def test_taking_gelu_in_changes_no_arithmetic(
    plant: Callable[[pytest.MonkeyPatch], None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against the same layers in diffusers' own blocks; in float32, so that GELU is not rounded in between."""
    stock = tiny_transformer()
    int8.quantize_blocks(stock, Fp8Linear)
    expected = tiny_steps(stock)
    if plant is not None:
        plant(monkeypatch)
    transformer = tiny_transformer()
    fp8_blocks(transformer)
    error = speed_error(tiny_steps(transformer), expected, tiny_request(transformer)[0])
    assert error < 1e-4 if plant is None else error > 0.02


def test_widths_that_do_not_suit_stay_as_they_are() -> None:
    """... with the GELU where it was: a block whose last layer is none of ours is diffusers' own."""
    transformer = tiny_transformer()
    block = transformer.single_transformer_blocks[0]
    block.proj_mlp, block.proj_out = nn.Linear(64, 260), nn.Linear(324, 64)
    assert fp8_blocks(transformer).kept == tuple(
        f"single_transformer_blocks.0.proj_{which}" for which in ("mlp", "out")
    )
    assert not isinstance(block, Fp8SingleBlock)
    assert isinstance(transformer.single_transformer_blocks[1], Fp8SingleBlock)


def test_kernels_are_not_chosen_by_timing() -> None:
    """fp8 sums depend on how they are tiled. Modulation layers are out of the blocks by then."""
    transformer = tiny_transformer(torch.bfloat16)
    fp8_blocks(transformer)
    block = transformer.single_transformer_blocks[0]
    block.norm.linear = nn.Identity()
    assert _inductor_options(block) is _SAME_EVERYWHERE


@pytest.mark.parametrize(
    ("capability", "hip", "triton", "expected"),
    [
        ((9, 0), None, True, True),
        ((8, 9), None, True, False),
        ((9, 0), "7", True, False),
        ((9, 0), None, False, False),
    ],
)
def test_which_cards(
    capability: tuple[int, int], hip: str | None, triton: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(fp8, "find_spec", lambda name: object() if triton else None)
    assert prefers_fp8("cuda") is expected
    assert prefers_fp8("cpu") is False


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0), reason="needs a Hopper card"
)
@pytest.mark.parametrize(("rows", "width", "first"), [(5824, 12288, 3072), (33, 320, 0), (700, 12288, 0)])
def test_the_kernel_rounds_as_pytorch_does(rows: int, width: int, first: int) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(rows, width, generator=draw, device="cuda").bfloat16()
    before = torch.randn(rows, first, generator=draw, device="cuda").bfloat16() if first else None
    quantized, scales = gelu_rows(hidden, before)
    expected, expected_scales = gelu_rows(hidden.cpu(), None if before is None else before.cpu())
    assert torch.allclose(scales.cpu(), expected_scales, rtol=1e-5)
    different = quantized.cpu().float() != expected.float()
    assert float(different.float().mean()) < 1e-3  # where another last bit falls on the other side of a tie
    assert torch.allclose(quantized.cpu().float(), expected.float(), rtol=2**-3, atol=2**-8)


@pytest.mark.parametrize(("hopper", "kind"), [(True, Fp8Linear), (False, int8.Int8Linear)])
def test_the_level_takes_what_the_card_is_good_at(
    hopper: bool, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """... and a picture's record says which."""
    monkeypatch.setattr(loading, "prefers_fp8", lambda device: hopper)
    pipeline = training_pipeline()
    record = loading.tune(pipeline, Residency(load_memory_plan("cpu"), torch.device("cpu")), "fast", "off")
    assert record["products"] == ("fp8" if hopper else "int8")
    assert isinstance(pipeline.transformer.single_transformer_blocks[0].proj_out, kind)
