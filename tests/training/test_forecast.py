"""Forecasts of a training run, from shapes, against what steps really keep."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support.tiny_training import cut_down, tiny_batches, training_pipeline
from tools.demo.training.config import load_stage
from uso.cli.main import REFUSED, main
from uso.config import load_model_config
from uso.forecast.live_memory import LiveMemory
from uso.forecast.meta_model import MetaModel
from uso.pipeline.latents import pack
from uso.training import activations as trace
from uso.training.activations import activations
from uso.training.config import load_training_config, training_names
from uso.training.forecast import DryRun, as_text, dry_run
from uso.training.loop.log import duration
from uso.training.losses.flow import conditioning_of, predict
from uso.training.model.adapters import Learners

GIB = 2**30


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == REFUSED
    return capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", training_names())
def test_every_shipped_config_has_a_forecast(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a config of full size that does not build, or whose figures are of another model."""
    assert main(["train", name, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: ")
    assert all(
        line in said for line in ("frozen weights", "optimizer", "activations", "Cache of features", "One step:")
    )


@pytest.mark.slow
def test_a_forecast_says_what_the_cache_takes() -> None:
    """Catches a disk that is full after two days of encoding; and encoders that stay, and are not counted."""
    config, less = (load_training_config("stage2", changes) for changes in ([], ["data.cached=[style]"]))
    kept, fewer = dry_run(config), dry_run(less)
    said = as_text(config, kept)
    assert "10.5 MB a row on the disk (prompt 4.2, latents 1.3, style 5.0)" in said and "2.1 TB for the paper's" in said
    assert list(fewer.row_bytes) == ["style"] and fewer.row_bytes["style"] == kept.row_bytes["style"]
    assert fewer.frozen - kept.frozen == pytest.approx(9.1 * GIB, rel=0.03)  # T5 and CLIP
    assert "text encoders stay" in as_text(less, fewer)


def test_a_forecast_counts_the_steps_with_a_reward() -> None:
    """Catches a total of the flow's steps alone: the reward of the last 30 % takes longer than all of them."""
    config = load_training_config("stage1", ["steps=10", "reward.start_step=4", "reward.every=2"])
    sizes = ("learned_parameters", "frozen", "learned", "gradients", "optimizer", "mean", "activations")
    nothing = dict.fromkeys((*sizes, "activations_stored", "reward_activations"), 0)
    said = as_text(
        config, DryRun(tokens=(1, 0, 1), **nothing, flops=10**17, reward_flops=3 * 10**17, shared=0, row_bytes={})
    )
    assert "One step with reward: 3e+05 TFLOP more. 3 of 10 steps have one." in said
    seconds = (10 + 3 * 3) * 10**17 / 165e12
    assert f"the least: 606 s a step, {duration(seconds)} for 10 steps on one card." in said


@pytest.mark.slow
def test_a_24_gb_card_holds_stage_2_in_int8() -> None:
    """Catches a quantized base whose weights, or whose activations, are not what was promised."""
    found = dry_run(load_training_config("stage2", ["base=int8", "optimizer.kind=adamw8bit", "ema=null"]))
    assert found.total < 22 * GIB
    assert found.learned_parameters == 239_075_328
    assert found.activations < 4 * GIB < 20 * GIB < found.activations_stored
    assert 12 * GIB < found.frozen < 13 * GIB
    smaller = dry_run(load_training_config("stage2", ["base=nf4", "optimizer.kind=adamw8bit", "ema=null"]))
    assert smaller.total < 16 * GIB and 6.9 * GIB < smaller.frozen < 7.3 * GIB


@pytest.mark.parametrize("checkpointing", [False, True])
def test_forecast_of_all_blocks_is_what_all_blocks_take(monkeypatch: pytest.MonkeyPatch, checkpointing: bool) -> None:
    """Catches blocks that do not add alike: the extrapolation from two against the trace of all of them."""
    config = load_stage("stage2-mini")
    model = MetaModel.from_config(load_model_config("demo"), torch.float32).pipeline
    Learners(model, config)
    batch = trace.example_batch(model, config, (128, 128), (128, 128), 2)
    monkeypatch.setattr(trace, "FEW", 1)
    extrapolated = activations(model, batch, config, checkpointing)
    monkeypatch.setattr(trace, "FEW", 99)
    whole = activations(model, batch, config, checkpointing)
    assert extrapolated == pytest.approx(whole, rel=0.05)


def test_forecast_is_what_a_step_really_keeps(tmp_path: Path) -> None:
    """Catches activations that the trace does not see: against the bytes of real tensors of a real step."""
    config, pipeline = cut_down(tmp_path, checkpointing=False)
    learners = Learners(pipeline, config)
    batch = tiny_batches(pipeline, config).take()
    modulation = pipeline.exchanged.modulation
    modules = [pipeline.transformer, *modulation.layers, modulation.embedding, pipeline.context_embedder]
    weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    weights += list(learners.parameters.values())
    levels = torch.tensor([0.3, 0.7])
    with LiveMemory("cpu", weights=weights) as live:
        velocity = predict(pipeline, conditioning_of(pipeline, batch, 1.0), pack(batch.latents), levels)
        velocity.square().mean().backward()
        real = live.take_peak()
    forecast = training_pipeline()
    for module in [*forecast.components.values(), *forecast.exchanged.modulation.layers]:
        if isinstance(module, torch.nn.Module):
            module.to("meta")
    forecast.exchanged.modulation.embedding.to("meta")
    MetaModel(forecast)
    Learners(forecast, config)
    traced = trace.example_batch(forecast, config, (32, 32), (32, 32), 2)
    assert activations(forecast, traced, config, checkpointing=False) == pytest.approx(real, rel=0.15)


def test_backward_takes_what_the_forecast_says(tmp_path: Path) -> None:
    """Catches a factor between forwards and backwards that is not the run's: frozen weights have no gradients."""
    config, pipeline = cut_down(tmp_path, checkpointing=False)
    Learners(pipeline, config)
    batch = tiny_batches(pipeline, config).take()
    levels = torch.tensor([0.3, 0.7])
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        predict(pipeline, conditioning_of(pipeline, batch, 1.0), pack(batch.latents), levels)
    for checkpointing, passes in ((False, 2), (True, 3)):
        if checkpointing:
            pipeline.transformer.enable_gradient_checkpointing()
        with FlopCounterMode(display=False) as counter:
            velocity = predict(pipeline, conditioning_of(pipeline, batch, 1.0), pack(batch.latents), levels)
            velocity.square().mean().backward()
        assert counter.get_total_flops() / forward.get_total_flops() == pytest.approx(passes, rel=0.35)
