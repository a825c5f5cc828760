"""Decoding in TF32 (`--speed fast`): the decoder's convolutions alone, and the flag goes back."""

from typing import Any

import pytest
import torch

from tests.pipeline.test_pipeline import SMALL, references
from tests.support.tiny_training import training_pipeline
from uso import USOPipeline
from uso.config import load_memory_plan
from uso.memory.residency import Residency
from uso.pipeline.encoders import has_tf32
from uso.weights import loading


@pytest.fixture
def seen(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Whether TF32 was allowed, at every convolution: with `encode` or `decode`."""
    found: list[tuple[str, bool]] = []
    convolve, stage = torch.nn.Conv2d.forward, ["encode"]

    def watched(layer: torch.nn.Conv2d, values: torch.Tensor) -> torch.Tensor:
        found.append((stage[0], torch.backends.cudnn.allow_tf32))
        return convolve(layer, values)

    decode = demo_pipeline.decode

    def decoding(*args: Any, **options: Any) -> torch.Tensor:
        stage[0] = "decode"
        try:
            return decode(*args, **options)
        finally:
            stage[0] = "encode"

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    monkeypatch.setattr(demo_pipeline, "decode", decoding)
    return found


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_only_decoding_is_in_tf32(
    fast: bool, before: bool, seen: list[tuple[str, bool]], demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches style and content encoded in TF32, a decoder that is not, and a flag that is left behind."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    monkeypatch.setattr(demo_pipeline, "decodes_in_tf32", fast)
    demo_pipeline.remembered.clear()
    demo_pipeline("A fox.", **SMALL, **references("multi_style_subject"))
    assert set(seen) == {("encode", False), ("decode", fast)}
    assert torch.backends.cudnn.allow_tf32 is before


def test_an_error_puts_the_flag_back(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(demo_pipeline, "decodes_in_tf32", True)
    with pytest.raises(RuntimeError):
        demo_pipeline.decode(torch.zeros(1, 3, 4, 4))
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize(
    ("device", "capability", "expected"), [("cuda", (8, 9), True), ("cuda", (7, 5), False), ("cpu", (9, 0), False)]
)
def test_which_cards(device: str, capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert has_tf32(torch.device(device)) is expected


@pytest.mark.parametrize(
    ("speed", "alone", "recorded"),
    [("exact", True, None), ("fast", True, "tf32"), ("fast", False, "float32")],
)
def test_the_level_takes_it_and_the_record_says_so(
    speed: Any, alone: bool, recorded: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never beside another pipeline: the flag is the whole process's, and would round what that one encodes."""
    monkeypatch.setattr(loading, "has_tf32", lambda device: True)
    pipeline = training_pipeline()
    residency = Residency(load_memory_plan("cpu"), torch.device("cpu"))
    record = loading.tune(pipeline, residency, speed, "off", alone)
    assert record.get("decode") == recorded
    assert pipeline.decodes_in_tf32 is (recorded == "tf32")
