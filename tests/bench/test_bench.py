"""The bench runs both ways on the same weights, and what it reports is what happened."""

import argparse
from typing import Any

import pytest
import torch

from uso.bench.baseline import UnfoldedLora, run_baseline, unfolded
from uso.bench.first import first_pictures
from uso.bench.machine import Clock, MatmulRate
from uso.bench.measure import measure
from uso.bench.random_model import random_pipeline
from uso.bench.request import MODES, Request, draw_inputs
from uso.bench.runs import Timing, outside_blocks, run_ours, run_repeat, run_turns
from uso.config import load_memory_plan, load_model_config
from uso.errors import ConfigError
from uso.memory.residency import Residency
from uso.pipeline.pipeline import USOPipeline

SMALLER: dict[str, dict[str, Any]] = {
    "transformer": {"num_attention_heads": 1, "num_layers": 2, "num_single_layers": 2},
    "text_encoder": {"num_hidden_layers": 1},
    "text_encoder_2": {"num_layers": 1, "d_ff": 64, "num_heads": 2, "vocab_size": 64, "d_kv": 16},
    "image_encoder": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "image_size": 56},
    "vae": {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1},
}


@pytest.fixture(scope="module")
def pipeline() -> USOPipeline:
    config = load_model_config("flux-dev")
    made = random_pipeline(config, dtype=torch.float32, device="cpu", changes=SMALLER)
    return made.place(Residency(load_memory_plan("cpu"), "cpu"))


@pytest.mark.parametrize("mode", MODES)
def test_baseline_and_ours_compute_the_same(pipeline: USOPipeline, mode: str) -> None:
    """Otherwise their ratio would compare two different things (the baseline's LoRA is one of zeros)."""
    request = Request(mode, 128, 128, 64, 2, 4.0)
    inputs = draw_inputs(pipeline, request)
    ours, plain = run_ours(pipeline, request, inputs), run_baseline(pipeline, request, inputs, rank=4)
    assert float((ours.latents - plain.latents).norm() / plain.latents.norm()) < 1e-5
    assert len(ours.steps) == len(plain.steps) == 2
    assert ours.stages.keys() == {"text", "style", "reference", "condition", "denoise", "decode"}
    assert ours.total >= sum(ours.steps)


def test_baseline_carries_every_lora_layer(pipeline: USOPipeline) -> None:
    """4 fused layers of a double block are 8 of diffusers', 2 of a single block are 4."""
    with pipeline.exchanged.stock() as transformer:
        with unfolded(transformer, 4):
            carried = [m for m in transformer.modules() if isinstance(m, UnfoldedLora)]
        left = [m for m in transformer.modules() if isinstance(m, UnfoldedLora)]
    assert len(carried) == 2 * 8 + 2 * 4
    assert left == []


def test_time_outside_the_blocks_is_less_than_a_step(pipeline: USOPipeline) -> None:
    request = Request("text", 128, 128, 64, 3, 4.0)
    inputs = draw_inputs(pipeline, request)
    timings = []

    def run(asked: Request) -> Timing:
        timings.append(run_ours(pipeline, asked, inputs))
        return timings[-1]

    outside = outside_blocks(pipeline, request, run)
    assert 0 < outside < timings[-1].step_median
    assert not pipeline.transformer.transformer_blocks[0]._forward_hooks


def test_both_kinds_of_blocks_take_turns_on_the_same_picture(pipeline: USOPipeline) -> None:
    """Catches a turn that runs the other's blocks, and blocks that are left as diffusers' own."""
    request = Request("content+style", 128, 128, 64, 3, 4.0)
    inputs = draw_inputs(pipeline, request)
    seen: list[bool] = []
    velocity = pipeline.velocity

    def watched(*values: Any) -> torch.Tensor:
        seen.append("forward" in vars(pipeline.transformer.transformer_blocks[0]))
        return velocity(*values)

    pipeline.exchanged.run_eagerly()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "velocity", watched)
        turns = run_turns(pipeline, request, inputs)
    assert sorted(seen) == [False] * 3 + [True] * 3 and seen[:4] == [False, True, True, False]
    assert len(turns.ours) == len(turns.theirs) == len(turns.ours_cpu) == 2
    assert turns.difference == 0.0
    assert pipeline.exchanged.eager is not None


def test_repeat_is_another_picture_and_encodes_nothing(pipeline: USOPipeline) -> None:
    """Catches a repeat that pays for what was encoded before, or that takes the same seed."""
    request = Request("content+style", 128, 128, 64, 2, 4.0)
    inputs = draw_inputs(pipeline, request)
    run_ours(pipeline, request, inputs)
    seeds: list[int] = []
    worked: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: worked.append(name))
        for name, module in {
            "text": pipeline.text_encoder_2,
            "style": pipeline.image_encoder.encoder.layers[0],
            "reference": pipeline.vae.encoder,
            "modulation": pipeline.exchanged.modulation.embedding,
        }.items()
    ]
    stream = pipeline.stream

    def watched(whole: Any) -> Any:
        worked.clear()
        seeds.append(whole.seed)
        return stream(whole)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "stream", watched)
            repeat = run_repeat(pipeline, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    assert worked == [] and seeds == [1] != [inputs.whole.seed]
    assert repeat.total > repeat.denoise + repeat.decode > 0
    assert 0 < repeat.share_outside < 1


def arguments(**changed: Any) -> argparse.Namespace:
    values = {
        "model": "flux-dev", "device": "cpu", "dtype": "auto", "memory": "auto", "speed": None, "compile": "off",
        "mode": "content+style", "size": 128, "content_size": 64, "steps": 2, "warm_up": 0, "baseline": False,
        "cap_gib": None, "real_weights": False, "weights": None, "add_lora": None, "own_blocks": False,
        "first_pictures": 0,
    }  # fmt: skip
    return argparse.Namespace(**values | changed)


def test_the_rate_that_lasts_is_told_from_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device whose products take 1 s each at first, and 2 s once it is warm. Catches a rate of warm-up products,
    the two swapped, and products that are counted in tens and not one by one."""
    seconds, products = 0.0, 0

    class Product:
        def to(self, dtype: torch.dtype) -> "Product":
            return self

        def __matmul__(self, other: "Product") -> None:
            nonlocal seconds, products
            products += 1
            seconds += 1.0 if products <= 6 else 2.0

    monkeypatch.setattr(Clock, "now", lambda clock: seconds)
    monkeypatch.setattr(torch, "randn", lambda *shape, device: Product())
    rate = MatmulRate.measure(torch.device("cpu"), torch.float32)
    assert rate.best == pytest.approx(2 * 1024**3 / 1e12)
    assert rate.sustained == pytest.approx(rate.best / 2)


@pytest.mark.slow
def test_the_command_reports_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uso.bench.measure.CPU_CHANGES", SMALLER)
    (line,) = measure(arguments(baseline=True))
    assert line["memory"] == "cpu" and line["reduced"] is True and line["real_weights"] is False
    assert line["baseline"]["ratio"] == pytest.approx(line["baseline"]["step_median"] / line["step_median"], rel=0.01)
    assert line["floor_step"] == pytest.approx(line["tflop_per_step"] / line["matmul_tflop_per_s"], rel=0.05)
    assert line["share_of_matmul_rate"] == pytest.approx(line["floor_step"] / line["step_median"], rel=0.05)


@pytest.mark.slow
def test_plans_and_levels_are_run_side_by_side_on_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uso.bench.measure.CPU_CHANGES", SMALLER)
    lines = list(measure(arguments(memory="cpu,8gb", speed="exact,fast")))
    assert [(line["speed"], line["memory"]) for line in lines] == [
        ("exact", "cpu"), ("exact", "8gb"), ("fast", "cpu"), ("fast", "8gb"),
    ]  # fmt: skip
    assert "error_to_first" not in lines[0]
    assert lines[1]["error_to_first"] == 0.0
    assert 0 < lines[2]["error_to_first"] == lines[3]["error_to_first"] < 0.2
    assert lines[1]["step_to_first"] == pytest.approx(lines[1]["step_median"] / lines[0]["step_median"], rel=0.01)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"speed": "exact,quick"}, "There is no speed 'quick'"),
        ({"memory": "cpu,9gb"}, "9gb"),
        ({"cap_gib": "7"}, "no CUDA device"),
        ({"memory": "8gb", "baseline": True}, "Use full"),
        ({"own_blocks": True, "compile": "on"}, "Add --compile off"),
        ({"own_blocks": True, "speed": "exact,fast"}, "Add --compile off"),
        ({"size": 250}, "^--size is 250; it must be a multiple of 16.$"),
        ({"size": 0}, "^--size is 0; 16 or more is allowed.$"),
        ({"content_size": 15}, "^--content-size is 15; 16 or more is allowed.$"),
        ({"steps": 0}, "^--steps is 0; 1 or more is allowed.$"),
        ({"warm_up": -1}, "^--warm-up is -1; 0 or more is allowed.$"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_before_anything_is_drawn(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        next(measure(arguments(**wrong)))


def test_the_first_pictures_are_timed_one_by_one() -> None:
    """Catches a first picture whose time is lost in a warm-up. (On a processor nothing is compiled.)"""
    lines = list(first_pictures(arguments(first_pictures=3, compile="auto", dtype="float32"), SMALLER))
    assert [(line["picture"], line["compiled"]) for line in lines] == [(1, False), (2, False), (3, False)]
    assert all(line["seconds"] > 0 for line in lines)


@pytest.mark.parametrize("wrong", [{}, {"real_weights": True}, {"memory": "8gb"}, {"speed": "fast"}])
def test_the_first_pictures_need_a_card_and_random_weights(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="^--first-pictures"):
        next(first_pictures(arguments(first_pictures=1, **wrong)))


@pytest.mark.parametrize("named", [{"weights": ["folder"]}, {"add_lora": ["lora.safetensors"]}])
def test_files_of_ones_own_need_real_weights(named: dict[str, Any]) -> None:
    """Catches a LoRA that is named and not measured."""
    with pytest.raises(ConfigError, match="Add --real-weights"):
        next(measure(arguments(**named)))
