"""Every plan draws the same picture within its budget; what visits a device leaves it; what cannot fit is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.golden import Case, check
from tests.pipeline.test_pipeline import SMALL, references, same
from uso import USOPipeline
from uso.config import load_memory_plan, memory_names
from uso.errors import ConfigError, RequestError
from uso.memory.plan import GIB, RESERVE, STAGES, Activations, device_bytes
from uso.memory.residency import NOTHING, Residency
from uso.memory.sizes import weights_of
from uso.request.request import GenerationRequest
from uso.weights.loading import load_pipeline

FLUX_BLOCKS_GIB = 15.9
"""The blocks of FLUX in bfloat16, without modulation: what a plan's device_gib is meant for."""


def scaled_budget(pipeline: USOPipeline, name: str) -> int | None:
    """A plan's budget brought down to a miniature model, so that the same share of its blocks must stream."""
    plan = load_memory_plan(name)
    if plan.device_gib is None:
        return None
    weights = weights_of(pipeline)
    share = min(1.0, max(0.0, (plan.device_gib - 4) / FLUX_BLOCKS_GIB))
    room = max(device_bytes(plan, weights, NOTHING, stage, 0) for stage in STAGES)
    return RESERVE + room + int(share * sum(weights.blocks))


@pytest.mark.parametrize("name", memory_names())
def test_every_plan_passes_the_golden_case(golden: Case, name: str) -> None:
    residency = Residency(load_memory_plan(name), "cpu", budget=scaled_budget(golden.load(), name))
    pipeline = golden.load(residency=residency)
    assert [row.what for row in check(golden, pipeline) if not row.passed] == []
    if name in ("16gb", "12gb", "8gb"):
        assert residency.blocks is not None
        assert 0 <= residency.blocks.permanent < len(residency.blocks.blocks), "nothing streamed"


@pytest.mark.parametrize("name", ["24gb", "12gb", "8gb"])
def test_streaming_draws_the_same_picture(demo_pipeline: USOPipeline, demo_config: Any, name: str) -> None:
    """Bitwise, T5 and modulation layers passing through too, over several requests."""
    pipeline = load_pipeline("demo", device="cpu", memory="cpu")
    pipeline.place(Residency(load_memory_plan(name), "cpu", budget=scaled_budget(pipeline, name)))
    values = SMALL | references("multi_style_subject")
    for prompt in ("A fox.", "A hound.", "A fox."):
        assert same(demo_pipeline(prompt, **values).images[0], pipeline(prompt, **values).images[0])


class Needs:
    """A forecaster that knows what it was told."""

    def __init__(self, needs: Activations, size: tuple[int, int] | None = None) -> None:
        self.needs, self.size = needs, size

    def activations(self, _: GenerationRequest | None) -> Activations:
        return self.needs

    def largest_size(self, *_: Any) -> tuple[int, int] | None:
        return self.size


def test_blocks_are_released_for_the_decoder_and_come_back(golden: Case) -> None:
    weights = weights_of(golden.load())
    plan = load_memory_plan("24gb")
    hungry = replace(NOTHING, decode=sum(weights.blocks) // 2)
    budget = RESERVE + device_bytes(plan, weights, NOTHING, "decode", len(weights.blocks))
    residency = Residency(plan, "cpu", budget=budget, forecaster=Needs(hungry))
    pipeline = golden.load(residency=residency)
    stream = residency.blocks
    assert stream is not None and 0 < stream.permanent < len(weights.blocks)
    residency.begin(request_of(pipeline))
    residency.enter("denoise")
    assert stream.resident == len(weights.blocks)
    residency.enter("decode")
    assert stream.resident == stream.permanent
    assert device_bytes(plan, weights, hungry, "decode", stream.resident) + RESERVE <= budget
    residency.enter("style")
    assert stream.resident == stream.permanent, "brought back for nothing"
    residency.enter("denoise")
    assert stream.resident == len(weights.blocks)
    assert [row.what for row in check(golden, pipeline) if not row.passed] == []


def request_of(pipeline: USOPipeline) -> GenerationRequest:
    return GenerationRequest.create(pipeline.model_config, width=768, height=1024)


@pytest.mark.parametrize(
    ("size", "says"), [((512, 688), "512 x 688 does."), (None, "Use fewer or smaller references")], ids=["size", "none"]
)
def test_a_request_that_cannot_fit_is_refused(golden: Case, size: tuple[int, int] | None, says: str) -> None:
    small = Needs(NOTHING)
    residency = Residency(load_memory_plan("8gb"), "cpu", forecaster=small)
    pipeline = golden.load(residency=residency)
    residency.begin(request_of(pipeline))
    residency.forecaster = Needs(replace(NOTHING, denoise=8 * GIB), size)
    with pytest.raises(RequestError, match=rf"768 x 1024 .* does not fit the memory plan '8gb' \(7.5 GiB\)\. {says}"):
        residency.begin(request_of(pipeline))


def test_a_request_beyond_the_worst_case_is_refused(golden: Case) -> None:
    """Blocks that never leave the device have no copy on the host: a request that needs them gone cannot run."""
    weights = weights_of(golden.load())
    plan = load_memory_plan("24gb")
    budget = RESERVE + device_bytes(plan, weights, NOTHING, "decode", len(weights.blocks))
    residency = Residency(plan, "cpu", budget=budget, forecaster=Needs(NOTHING))
    pipeline = golden.load(residency=residency)
    assert residency.blocks is not None and residency.blocks.permanent == len(weights.blocks)
    residency.forecaster = Needs(replace(NOTHING, decode=sum(weights.blocks) // 2))
    with pytest.raises(RequestError, match="does not fit the memory plan '24gb'"):
        residency.begin(request_of(pipeline))


def test_weights_that_cannot_fit_are_refused(golden: Case) -> None:
    with pytest.raises(ConfigError, match="weights need more. Choose a plan for a larger card"):
        golden.load(residency=Residency(load_memory_plan("8gb"), "cpu", budget=1000))


def test_visitors_leave_the_device(golden: Case) -> None:
    """A module that visits another device is back in its own host tensors afterwards, also after an error."""
    pipeline = golden.load(residency=Residency(load_memory_plan("24gb"), "cpu"))
    before = [p.data_ptr() for p in pipeline.vae.parameters()]
    pipeline.residency.device = torch.device("meta")
    on_device: list[bool] = []

    def fail() -> None:
        with pipeline.residency.visit(pipeline.vae):
            on_device.extend(p.is_meta for p in pipeline.vae.parameters())
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fail()
    assert all(on_device) and on_device
    assert [p.data_ptr() for p in pipeline.vae.parameters()] == before


def test_a_streaming_pipeline_saves_its_own_numbers(demo_pipeline: USOPipeline, tmp_path: Any) -> None:
    pipeline = load_pipeline("demo", device="cpu", memory="cpu")
    pipeline.place(Residency(load_memory_plan("8gb"), "cpu", budget=scaled_budget(pipeline, "8gb")))
    pipeline("A fox.", **SMALL)
    pipeline.save_pretrained(tmp_path)
    loaded = USOPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    assert same(demo_pipeline("A fox.", **SMALL).images[0], loaded("A fox.", **SMALL).images[0])


def test_encoders_run_once_for_a_request_that_comes_again(demo_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new seed pays for denoising and decoding alone; another prompt, style or size pays for what changed."""
    pipeline = load_pipeline(demo_config, device="cpu")
    calls: list[str] = []
    for name in ("encode_prompt", "encode_style", "encode_reference", "embed_reference"):
        right = getattr(pipeline, name)
        monkeypatch.setattr(pipeline, name, noted(calls, name, right))
    table = pipeline.exchanged.modulation.table
    monkeypatch.setattr(pipeline.exchanged.modulation, "table", noted(calls, "table", table))
    values = SMALL | references("multi_style_subject")
    everything = ["encode_prompt", "encode_style", "encode_style", "encode_reference", "embed_reference", "table"]
    for changes, expected in (
        ({}, everything),
        ({"seed": 9}, []),
        ({"prompt": "Other."}, ["encode_prompt", "table"]),
        ({"num_inference_steps": 3}, ["table"]),
        ({"guidance_scale": 3.0}, ["table"]),
        ({"content_size": 96}, ["encode_reference", "embed_reference"]),
        ({"width": 144}, []),
    ):
        calls.clear()
        pipeline(**({"prompt": "A fox."} | values | changes))
        assert calls == expected, changes


def noted(calls: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, writing down each call."""

    def call(*args: Any) -> Any:
        calls.append(name)
        return function(*args)

    return call
