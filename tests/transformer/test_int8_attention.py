"""int8 attention: near exact attention for all lengths, with and without bias, in PyTorch and in the Triton kernel.

The kernel runs in Triton's interpreter, in a process of its own: Triton decides at its import whether it interprets.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from tests.support.tiny_flux import tiny_exchanged, tiny_inputs, tiny_request, tiny_steps, tiny_transformer
from tests.support.tiny_training import training_pipeline
from uso.config import ROOT, load_memory_plan
from uso.memory.residency import Residency
from uso.transformer import attention, operators
from uso.transformer.attention import Int8Processor, exact_attention, rotate_in_one_pass, strength_bias
from uso.transformer.compile import compile_blocks, speed_error
from uso.transformer.operators import int8_attention
from uso.weights import loading

ERROR = 0.02
"""||int8 - exact|| / ||exact|| on normally distributed numbers; 0.013 to 0.015 was found."""

Numbers = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]


def numbers(tokens: int, size: int, biased: bool, common: float = 16.0) -> Numbers:
    """Queries, keys, values and bias, bfloat16; tokens of very different size, and keys that share a large part."""
    draw = torch.Generator().manual_seed(tokens)
    query, key, value = (torch.randn(2, tokens, 3, size, generator=draw) for _ in range(3))
    key = key + common * torch.randn(2, 1, 3, size, generator=draw)
    bias = strength_bias([tokens // 3], [3.0], tokens) if biased else None
    return query.bfloat16(), key.bfloat16(), value.bfloat16(), bias


def error_of(attend: Callable[..., torch.Tensor], given: Numbers) -> float:
    exact = exact_attention(*given)
    return float((attend(*given).float() - exact).norm() / exact.norm())


CASES = [(7, 64, True), (64, 128, False), (200, 128, True), (257, 64, False), (333, 128, True)]
"""Less than a block, one block, and blocks that are not full."""


@pytest.mark.parametrize(("tokens", "size", "biased"), CASES)
def test_it_is_near_exact_attention(tokens: int, size: int, biased: bool) -> None:
    given = numbers(tokens, size, biased)
    assert 1e-4 < error_of(int8_attention, given) < ERROR
    assert int8_attention(*given).dtype == torch.bfloat16


def without_mean(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Any) -> torch.Tensor:
    """As if the mean was not subtracted: a second copy of all tokens, with keys of the other sign, has mean 0."""
    doubled = torch.cat([key, -key], dim=1)
    shut = torch.cat([torch.zeros(key.shape[1]), torch.full((key.shape[1],), -1e4)])[None, None, None]
    if bias is not None:
        shut = shut + torch.cat([bias, bias], dim=-1)
    twice = [torch.cat([part, part], dim=1) for part in (query, value)]
    return int8_attention(twice[0], doubled, twice[1], shut)[:, : key.shape[1]]


def without_bias(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Any) -> torch.Tensor:
    return int8_attention(query, key, value, None)


def with_a_wrong_scale(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Any) -> torch.Tensor:
    return int8_attention(query * 1.1, key, value, bias)


@pytest.mark.parametrize("plant", [without_mean, without_bias, with_a_wrong_scale])
def test_a_wrong_operator_is_seen(plant: Callable[..., torch.Tensor]) -> None:
    assert error_of(plant, numbers(333, 128, True)) > 2 * ERROR


def test_one_scale_for_all_tokens_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tokens in one block must not cost the others their digits."""
    query, key, value, _ = numbers(512, 64, False, common=0)
    query[:, :128] *= 100
    given = query, key, value, None
    exact = exact_attention(*given)[:, 128:]

    def error() -> float:
        return float((int8_attention(*given)[:, 128:].float() - exact).norm() / exact.norm())

    assert error() < ERROR
    monkeypatch.setattr(operators, "QUERY_BLOCK", 512)
    assert error() > 2 * ERROR


INTERPRETED = """
from uso.system.garbage import collect_seldom
collect_seldom()
import torch
from tests.transformer.test_int8_attention import CASES, error_of, numbers
from uso.transformer import kernels
from uso.transformer.operators import int8_attention

kernels._PRODUCTS = torch.float16  # the interpreter cannot multiply bfloat16
in_blocks, plant = kernels._in_blocks, ""

def planted(values, mean, factor, block):
    if plant == "mean" and mean is not None:
        mean = torch.zeros_like(mean)
    rounded, scales = in_blocks(values, mean, factor, block)
    return rounded, scales * (1.1 if plant == "scale" else 1)

def attend(query, key, value, bias):
    return kernels.int8_attention(query, key, value, None if plant == "bias" else bias)

kernels._in_blocks = planted
for case in CASES:
    given = numbers(*case)
    plain = int8_attention(*given).float()
    print("right", error_of(attend, given), float((attend(*given).float() - plain).norm() / plain.norm()))
for plant in ("mean", "scale", "bias"):
    print(plant, error_of(attend, numbers(200, 128, True)), 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, whose interpreter runs on a CPU")
def test_the_kernel_computes_the_operator() -> None:
    """Within rounding of the plain form. The mean or the bias left out, or a wrong scale, is seen."""
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [*["right"] * len(CASES), "mean", "scale", "bias"]
    for what, error, away in lines:
        if what == "right":
            assert float(error) < ERROR and float(away) < ERROR / 4
        else:
            assert float(error) > 2 * ERROR


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("tokens", "size", "biased"), [*CASES, (5824, 128, True)])
def test_the_kernel_agrees_on_a_card(tokens: int, size: int, biased: bool) -> None:
    given = numbers(tokens, size, biased)
    there = [None if part is None else part.cuda() for part in given]
    assert error_of(lambda *_: int8_attention(*there).cpu(), given) < ERROR


def test_a_transformer_is_near_what_it_was() -> None:
    exact = tiny_steps(tiny_transformer(torch.bfloat16))
    transformer = tiny_transformer(torch.bfloat16)
    rotate_in_one_pass(transformer, Int8Processor)
    error = speed_error(tiny_steps(transformer), exact, tiny_request(transformer)[0])
    assert 1e-4 < error < 0.02


@pytest.mark.parametrize("plant", [False, True])
def test_style_strengths_reach_it(plant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a processor that drops the mask, or that the bias takes PyTorch's own attention instead of."""
    stock, ours = tiny_exchanged(), tiny_exchanged()
    rotate_in_one_pass(ours.transformer, Int8Processor)
    tokens, given = tiny_inputs(stock, 33, 16)
    given["attention_bias"] = strength_bias([6], [4.0], len(given["positions"][0]))
    calls = []

    def counted(query: Any, key: Any, value: Any, bias: Any) -> torch.Tensor:
        calls.append(bias is not None)
        return int8_attention(query, key, value, None if plant else bias)

    monkeypatch.setattr(attention, "int8_attention", counted)
    with torch.inference_mode():
        expected, found = stock.run(tokens, **given), ours.run(tokens, **given)
    assert calls == [True] * 5
    error = float((found - expected).norm() / expected.norm())
    assert error > 0.03 if plant else error < 0.015


def test_compiled_blocks_see_through_it() -> None:
    transformer = tiny_transformer(torch.bfloat16)
    rotate_in_one_pass(transformer, Int8Processor)
    plain = tiny_steps(transformer)
    compile_blocks(transformer, None, backend="eager")
    assert torch.equal(tiny_steps(transformer), plain)


class Card:
    """A CUDA card that is not there: what the choice asks of it, with attention computed on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(attention, "find_spec", lambda name: object())
        error = attention.int8_attention_error
        monkeypatch.setattr(attention, "int8_attention_error", lambda device, size: error(torch.device("cpu"), size))


def big_headed() -> Any:
    transformer = tiny_transformer(torch.bfloat16)
    transformer.register_to_config(attention_head_dim=128)
    return transformer


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), False), ((12, 0), True)]
)
def test_which_cards(capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch, capability)
    assert attention.int8_attention_works(big_headed(), "cuda") is expected
    assert attention.int8_attention_works(big_headed(), "cpu") is False
    assert attention.int8_attention_works(tiny_transformer(torch.bfloat16), "cuda") is False  # heads of 32


@pytest.mark.parametrize(("plant", "words"), [("fails", "failed (no such instruction)"), ("wrong", "is wrong here by")])
def test_a_kernel_that_does_not_work_is_left_out(
    plant: str, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a picture that fails, or is noise, on a card that nobody has tried."""
    Card(monkeypatch, (8, 9))

    def kernel(query: Any, key: Any, value: Any, bias: Any) -> torch.Tensor:
        if plant == "fails":
            raise RuntimeError("no such instruction\nadvice")
        return int8_attention(query, key, value, None)

    monkeypatch.setattr(attention, "int8_attention", kernel)
    assert attention.int8_attention_works(big_headed(), "cuda") is False
    assert words in caplog.text


@pytest.mark.parametrize(("speed", "works", "expected"), [("fast", True, "int8"), ("fast", False, "native")])
def test_the_level_takes_it_and_the_record_says_so(
    speed: Any, works: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "int8_attention_works", lambda transformer, device: works)
    pipeline = training_pipeline()
    record = loading.tune(pipeline, Residency(load_memory_plan("cpu"), torch.device("cpu")), speed, "off")
    assert record["attention"] == expected
    processors = {type(block.attn.processor) for block in pipeline.transformer.transformer_blocks}
    assert (processors == {Int8Processor}) is works


def test_the_exact_level_never_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "int8_attention_works", lambda transformer, device: True)
    pipeline = training_pipeline()
    record = loading.tune(pipeline, Residency(load_memory_plan("cpu"), torch.device("cpu")), "exact", "off")
    assert record["attention"] == "native" and "decode" not in record
