"""`train CONFIG --bench N` takes the run's own steps on random weights, and reports what happened."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tools.demo.training.config import load_stage
from uso.cli.main import REFUSED, main
from uso.training import bench
from uso.training.config import load_training_config
from uso.training.forecast import dry_run
from uso.training.loop.precision import multiplies_bfloat16
from uso.training.loop.trainer import Trainer
from uso.training.prepare import processes_on

CPU = torch.device("cpu")
SMALLER: dict[str, dict[str, Any]] = {
    "transformer": {"num_attention_heads": 1, "num_layers": 2, "num_single_layers": 2},
    "image_encoder": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "image_size": 56},
    "vae": {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1},
}
REWARD = "reward.start_step=0"


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CPU_CHANGES", SMALLER)
    monkeypatch.setattr(bench, "CPU_SIDE", 64)


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["train", *arguments, "device=cpu", "lora.rank=4"]) == 0
    line: dict[str, Any] = json.loads(capsys.readouterr().out)
    return line


def made(config: str, *overrides: str) -> Trainer:
    values = load_training_config(config, ["device=cpu", "lora.rank=4", *overrides])
    device, process = processes_on(CPU)
    values, changes = bench.reduced(bench.benched(values), device)
    return bench.make_trainer(values, device, process, changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "overrides", "tokens"),
    [
        ("stage1", [], [16, 0, 704]),
        ("stage2", ["optimizer.kind=tools.demo.training.muon:MuonAndAdamW"], [16, 16, 704]),
        ("joint", ["base=int8", REWARD], [16, 16, 704]),
        ("stage1", ["base=float32", "micro_batch=1", REWARD], [16, 0, 704]),
    ],
)
def test_a_line_says_what_was_run(
    capsys: pytest.CaptureFixture[str], stage: str, overrides: Sequence[str], tokens: list[int]
) -> None:
    """Catches a stage that cannot be measured, and figures of another run than was asked for."""
    line = measured(capsys, "--bench", "2", stage, *overrides)
    config = load_training_config(stage, overrides)
    base = config.base if multiplies_bfloat16("cpu") or config.base != "bfloat16" else "float32"
    assert (line["run"], line["learns"], line["base"]) == (stage, list(config.learns), base)
    assert line["reduced"] is True and line["steps"] == 2 and line["batch"] == line["micro_batch"] == config.micro_batch
    assert list(line["tokens"].values()) == tokens
    assert line["content_size"] == (64 if "content" in config.reads else None)
    assert 0 < line["step_median"] < 60 and line["step_first"] > 0
    assert line["loss_first"] > 0 and line["loss_last"] > 0
    assert line["peak_device_gib"] is None and line["peak_host_gib"] > 0 and line["forecast_device_gib"] > 0
    assert (line["reward"] is not None) == (REWARD in overrides)


@pytest.mark.slow
def test_work_is_counted_with_the_reward_where_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a rate that is too good by a roll-out, or too bad by one that was not run."""
    plain, rewarded = (measured(capsys, "--bench", "1", "stage1", *more) for more in ([], [REWARD]))
    config, changes = bench.reduced(load_training_config("stage1", [REWARD]), CPU)
    forecast = dry_run(config, changes)
    assert plain["tflop_per_step"] == pytest.approx(forecast.flops / 1e12, abs=1e-4)
    assert rewarded["tflop_per_step"] == pytest.approx((forecast.flops + forecast.reward_flops) / 1e12, abs=1e-4)


def test_it_is_set_up_as_a_run_is() -> None:
    """Catches memory that no run takes (text encoders), or one that it takes and is not there."""
    trainer = made("joint", REWARD)
    pipeline = trainer.pipeline
    assert pipeline.text_encoder is None and pipeline.text_encoder_2 is None
    assert pipeline.transformer.dtype == pipeline.image_encoder.dtype
    assert {parameter.dtype for parameter in trainer.parameters.values()} == {torch.float32}
    assert {name.partition("/")[0] for name in trainer.parameters} == {"projector", "lora"}
    assert pipeline.transformer.gradient_checkpointing and trainer.reward is not None and trainer.mean is not None
    learned = sum(parameter.numel() for parameter in trainer.parameters.values())
    assert learned == dry_run(trainer.config, SMALLER).learned_parameters


def test_batches_are_new_each_time_and_the_same_again() -> None:
    trainer, again = made("stage2"), made("stage2")
    first, second = trainer.batches.take(), trainer.batches.take()
    assert (first.number, second.number, trainer.batches.position.taken) == (0, 1, 2)
    assert first.content is not None and second.content is not None
    assert not torch.equal(first.latents, second.latents) and not torch.equal(first.content, second.content)
    assert first.style_pictures != second.style_pictures
    assert torch.equal(first.latents, again.batches.take().latents)


def test_the_descriptor_has_the_published_size() -> None:
    """CSD's checkpoint holds 303 million numbers in its tower, and two matrices."""
    with torch.device("meta"):
        descriptor = bench.CSD(bench.CLIPVisionConfig(**bench.TOWER), bench.VECTOR)
    assert sum(parameter.numel() for parameter in descriptor.backbone.parameters()) == 303_179_776
    assert descriptor.last_layer_style.shape == descriptor.last_layer_content.shape == (1024, 768)


def test_the_demo_model_is_not_reduced() -> None:
    config = load_stage("stage1-mini")
    assert bench.reduced(config, CPU) == (config, None)
    flux = load_training_config("stage1")
    assert bench.reduced(flux, torch.device("cuda")) == (flux, None)


@pytest.mark.parametrize(
    ("multiplies", "base", "measured"),
    [(True, "bfloat16", "bfloat16"), (False, "bfloat16", "float32"), (False, "int8", "int8")],
)
def test_bfloat16_is_measured_where_it_is_not_imitated(
    monkeypatch: pytest.MonkeyPatch, multiplies: bool, base: str, measured: str
) -> None:
    """Catches minutes for a step on a processor without instructions for bfloat16."""
    monkeypatch.setattr(bench, "multiplies_bfloat16", lambda _: multiplies)
    config, _ = bench.reduced(load_training_config("stage1", [f"base={base}"]), CPU)
    assert config.base == measured


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bench", "2", "--dry-run", "stage1"], "neither --dry-run nor --resume"),
        (["--bench", "2", "--resume", "stage1"], "neither --dry-run nor --resume"),
        (["--bench", "0", "stage1"], "1 or more steps"),
        (["--bench", "2", "stage1", "batch=3"], "batch 3 is no multiple of micro_batch 2"),
        (["--bench", "2", "stage1", "guidance=null"], "needs a guidance scale"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    assert main(["train", *arguments]) == REFUSED
    assert said in capsys.readouterr().err
