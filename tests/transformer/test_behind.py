"""Blocks that are compiled behind pictures: nobody waits, no picture is half and half, and its record says which."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.support.tiny_flux import tiny_exchanged, tiny_inputs
from uso.config import ModelConfig
from uso.request.request import GenerationRequest, GenerationResult
from uso.transformer.behind import BlocksCompiledBehind
from uso.transformer.exchange import ExchangedTransformer
from uso.weights.loading import load_pipeline

BLOCKS = 5


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def behind_of(made: ExchangedTransformer) -> BlocksCompiledBehind:
    assert isinstance(made.eager, BlocksCompiledBehind)
    return made.eager


def watched(behind: BlocksCompiledBehind) -> Counter[str]:
    """How often blocks are called, by how they run; what the thread calls is `compiled` too."""
    calls: Counter[str] = Counter()

    def counted(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(**inputs: Any) -> Any:
            calls[kind] += 1
            return call(**inputs)

        return run

    behind._compiled = {key: counted("compiled", call) for key, call in behind._compiled.items()}
    for block in behind._blocks:
        own, eager = block.forward.args
        block.forward = type(block.forward)(behind._forward, own, counted("eager", eager))
    return calls


@pytest.fixture
def made() -> ExchangedTransformer:
    """Its graphs are traced, not turned into code."""
    exchanged = tiny_exchanged()
    exchanged.compile_behind(None, backend="eager")
    return exchanged


@torch.inference_mode()
def step(made: ExchangedTransformer, picture: int = 12, references: int = 7) -> torch.Tensor:
    tokens, given = tiny_inputs(made, picture, references)
    return made.run(tokens, **given)[:, :picture]


def test_a_picture_is_wholly_eager_or_wholly_compiled(made: ExchangedTransformer) -> None:
    """Catches a picture that waits, one that changes in the middle, and one that stays eager although it need not."""
    behind, expected = behind_of(made), step(tiny_exchanged())
    calls = watched(behind)
    made.begin_picture(12, 7)
    assert made.mode == {"compiled": False}
    assert torch.equal(step(made), expected)
    behind.wait()
    assert calls == {"eager": BLOCKS, "compiled": 2}  # the thread ran one block of each kind
    assert torch.equal(step(made), expected)  # the same picture: compiled blocks are ready, and are not used
    assert made.mode == {"compiled": False} and calls == {"eager": 2 * BLOCKS, "compiled": 2}
    made.begin_picture(12, 7)
    assert made.mode == {"compiled": True}
    assert float((step(made) - expected).norm() / expected.norm()) < 1e-6
    assert calls == {"eager": 2 * BLOCKS, "compiled": 2 + BLOCKS}


def test_every_shape_is_compiled_once(made: ExchangedTransformer) -> None:
    """Catches a new size that runs in code for another one, and a size that is compiled again."""
    behind = behind_of(made)
    calls = watched(behind)
    for size, compiled in (((12, 7), False), ((16, 0), False), ((12, 7), True), ((16, 0), True)):
        made.begin_picture(*size)
        assert made.mode == {"compiled": compiled}, size
        step(made, *size)
        behind.wait()
    assert calls == {"eager": 2 * BLOCKS, "compiled": 2 * 2 + 2 * BLOCKS}


def test_a_picture_with_style_strengths_waits(made: ExchangedTransformer) -> None:
    """Its blocks have another attention meanwhile. Catches code that is compiled for the wrong one."""
    calls = watched(behind_of(made))
    made.begin_picture(12, 7, biased=True)
    assert made.mode == {"compiled": True}
    step(made)
    assert calls == {"compiled": BLOCKS} and behind_of(made)._thread is None


def test_a_compiler_that_fails_is_told_once_and_costs_no_picture(caplog: pytest.LogCaptureFixture) -> None:
    """Catches a thread that dies in silence, and a compiler that is tried again for every picture."""

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such compiler")

    made = tiny_exchanged()
    made.compile_behind(None, backend=broken)  # type: ignore[arg-type]
    expected = step(tiny_exchanged())
    with caplog.at_level(logging.WARNING, "uso.transformer.behind"):
        for _ in range(3):
            made.begin_picture(12, 7)
            assert torch.equal(step(made), expected) and made.mode == {"compiled": False}
            behind_of(made).wait()
    assert len(caplog.records) == 1 and "Blocks stay uncompiled" in caplog.text


def test_the_stock_transformer_comes_back(made: ExchangedTransformer) -> None:
    blocks = [*made.transformer.transformer_blocks, *made.transformer.single_transformer_blocks]
    with made.stock():
        assert not any("forward" in vars(block) for block in blocks)
    assert all("forward" in vars(block) for block in blocks)


@pytest.mark.slow
def test_the_record_of_a_picture_says_how_it_was_made(demo_config: ModelConfig) -> None:
    """Through the pipeline. Catches a record that says what the model could do, not what this picture is."""
    pipeline = load_pipeline(demo_config, device="cpu", memory="full")
    pipeline.exchanged.compile_behind(None, backend="eager")
    request = GenerationRequest.create(demo_config, "a fox", num_inference_steps=2, seed=3)

    def record() -> Any:
        *_, result = pipeline.stream(request)
        assert isinstance(result, GenerationResult)
        behind_of(pipeline.exchanged).wait()
        return result.model["compiled"]

    assert [record(), record()] == [False, True]
