"""`python -m uso train`: configs and refusals, forecasts from shapes, and a run from the command line to its files."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from tests.support.tiny_training import tiny_batches, tiny_config, training_pipeline, write_rows
from tools.demo.training.config import STAGES_FOLDER, load_stage
from uso.cli.main import REFUSED, main
from uso.config import ROOT, load_model_config
from uso.errors import ConfigError
from uso.forecast.live_memory import LiveMemory
from uso.forecast.meta_model import MetaModel
from uso.pipeline.latents import pack
from uso.training import activations as trace
from uso.training.activations import activations
from uso.training.command import train
from uso.training.config import TrainingConfig, load_training_config, training_names
from uso.training.forecast import DryRun, as_text, dry_run
from uso.training.loop.checkpoint import checkpoints
from uso.training.loop.log import duration
from uso.training.loop.optimizer import check_optimizer
from uso.training.loop.run import stopped_by_signals
from uso.training.loop.trainer import Trainer
from uso.training.losses.flow import conditioning_of, predict
from uso.training.model.adapters import Learners

GIB = 2**30


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == REFUSED
    return capsys.readouterr().err


# Configs


def test_shipped_configs_are_the_papers() -> None:
    """Catches a typing error in the numbers of arXiv 2508.18966."""
    stage1, stage2, joint = (load_training_config(name) for name in ("stage1", "stage2", "joint"))
    assert (stage1.steps, stage1.batch, stage1.data.resolution, stage1.reward.start_step) == (23000, 16, 768, 16000)
    assert (stage2.steps, stage2.batch, stage2.data.resolution, stage2.reward.start_step) == (21000, 64, 1024, 18000)
    assert stage1.optimizer.lr == stage2.optimizer.lr == 8e-5
    assert (stage1.learns, stage1.reads) == (("projector",), ("style",))
    assert (stage2.learns, stage2.reads, stage2.lora.rank) == (("lora",), ("style", "content"), 128)
    assert (joint.learns, joint.dropout.style, joint.dropout.content) == (("projector", "lora"), 0.25, 0.25)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.lrr=1"], "There is no key optimizer.lrr. Did you mean optimizer.lr? Known here: optimizer.betas"),
        (["optimiser.lr=1"], "There is no key optimiser. Did you mean optimizer?"),
        (["steps.x=1"], "There is no key steps"),
        (["optimizer.lr"], "is no override. Write key=value"),
        (["optimizer.lr=-1"], "optimizer.lr: Input should be greater than 0"),
        (["learns=[]"], "learns must name at least one"),
        (["learns=[projector, lorra]"], "learns.1"),
        (["learns=[lora, transformer]", "start.projector=x"], "two ways to change one thing"),
        (["reads=[]"], "reads must name style where the projector learns"),
        (["learns=[lora]"], "start.projector must name a file"),
        (["precision=float32"], "base must be float32"),
        (["dropout.style=0.1"], "dropout.style must be 0 where the projector learns alone"),
        (["reward.last=30"], "last must be at most steps"),
    ],
)
def test_wrong_values_are_refused_in_words(overrides: Sequence[str], said: str) -> None:
    """Catches an override that is dropped in silence: the run would be another one than was asked for."""
    with pytest.raises(ConfigError) as error:
        load_training_config("stage1", overrides)
    assert said in str(error.value)


def test_overrides_reach_their_place(tmp_path: Path) -> None:
    """Catches an override that replaces its whole section, and a file's unknown key that is let through."""
    config = load_training_config("stage1", ["optimizer.lr=1e-4", "ema=null", "data.aspects=['1:1']"])
    assert (config.optimizer.lr, config.optimizer.warm_up, config.ema) == (1e-4, 500, None)
    assert (config.data.aspects, config.data.resolution) == (("1:1",), 768)
    path = tmp_path / "own.yaml"
    path.write_text("descriptio: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="there is no key descriptio. Did you mean description"):
        load_training_config(str(path))
    with pytest.raises(ConfigError, match="Choose one of: joint, .*stage2"):
        load_training_config("stage3")


def test_batch_does_not_depend_on_processes() -> None:
    """Catches a batch that grows with the number of cards, and one that cannot be cut up."""
    config = load_training_config("stage2")
    assert [config.accumulation(processes) for processes in (1, 8)] == [64, 8]
    with pytest.raises(ConfigError, match="batch 64 is no multiple of micro_batch 1 times 7 processes"):
        config.accumulation(7)


# Refusals before weights load


def test_what_is_missing_is_named_before_anything_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches half an hour of loading for a file name with a typing error."""
    import uso.training.model.load as load

    def loads(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(load, "load_for_training", loads)
    rows = write_rows(tmp_path / "rows", 1)
    mini = [
        str(STAGES_FOLDER / "stage1-mini.yaml"),
        f"data.rows={rows}",
        f"output={tmp_path / 'run'}",
        "tensorboard=false",
        "device=cpu",
    ]
    assert "The rows /none.jsonl could not be read" in refused(capsys, *mini, "data.rows=/none.jsonl")
    assert "start.lora: there is no file" in refused(capsys, *mini, "start.lora=none.safetensors")
    assert "There is no model" in refused(capsys, *mini, "model=flux-pro")
    assert "The descriptor 'none:none' was not found" in refused(capsys, *mini, "reward.descriptor=none:none")
    held_out = "reward.held_out_weights="
    assert "there is no file /none. Name another, or go without" in refused(capsys, *mini, held_out + "/none")
    assert "there is no file /none.bin (CSD's is at hugging" in refused(capsys, *mini, held_out + "/none.bin")
    validated = ["validation.every=1", "validation.rows=/none.jsonl"]
    assert "Name a file of rows: validation.rows=FILE." in refused(capsys, *mini, "teacher=null", *validated)
    assert "There is no device 'gpu'" in refused(capsys, *mini, "device=gpu")
    assert "is no multiple" in refused(capsys, *mini, "batch=17")
    assert "takes no guidance scale" in refused(capsys, *mini, "model=flux-schnell")
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert "Say --resume to go on from the newest" in refused(capsys, *mini)
    assert "cannot be read" in refused(capsys, *mini, "--resume")


def test_eight_bit_needs_its_package_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an ImportError from the depths, after the model was loaded."""
    import importlib.util

    eight = load_training_config("stage2", ["optimizer.kind=adamw8bit"]).optimizer
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes; or choose optimizer.kind=adamw"):
        check_optimizer(eight, torch.device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        check_optimizer(eight, torch.device("cpu"))


# Forecasts


@pytest.mark.parametrize("name", training_names())
def test_every_shipped_config_has_a_forecast(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a config of full size that does not build, or whose figures are of another model."""
    assert main(["train", name, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: ")
    assert all(line in said for line in ("frozen weights", "optimizer", "activations", "One step:"))


def test_a_forecast_counts_the_steps_with_a_reward() -> None:
    """Catches a total of the flow's steps alone: the reward of the last 30 % takes longer than all of them."""
    config = load_training_config("stage1", ["steps=10", "reward.start_step=4", "reward.every=2"])
    sizes = ("learned_parameters", "frozen", "learned", "gradients", "optimizer", "mean", "activations")
    nothing = dict.fromkeys((*sizes, "activations_stored", "reward_activations"), 0)
    said = as_text(config, DryRun(tokens=(1, 0, 1), **nothing, flops=10**17, reward_flops=3 * 10**17))
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


def cut_down(folder: Path, checkpointing: bool) -> tuple[TrainingConfig, Any]:
    rows = write_rows(folder / "rows", 2)
    config = tiny_config(folder, rows, "stage2", gradient_checkpointing=checkpointing)
    return config, training_pipeline()


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


# A run from the command line


def demo_run(folder: Path, **changes: Any) -> Path:
    """A YAML file for three steps of the demo model."""
    values = tiny_config(folder, write_rows(folder / "rows", 2), "stage1").model_dump(mode="json")
    values |= {"tensorboard": True, "validation": {"every": 3, "steps": 1, "count": 1}} | changes
    values["data"] |= {"resolution": 128, "content_size": 64}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches parts that work alone and not together: load, encode, train, draw, go on, files that load."""
    path = demo_run(tmp_path)
    assert main(["train", str(path), "steps=2"]) == 0
    projector = tmp_path / "run" / "projector.safetensors"
    assert capsys.readouterr().out.split() == [str(projector)]
    assert main(["train", str(path)]) == REFUSED
    rows = tmp_path / "rows" / "rows.jsonl"
    kept = rows.read_text(encoding="utf-8")
    rows.write_text(kept + kept.splitlines()[0] + "\n", encoding="utf-8")
    assert "was made with 2 samples, and the data now hold 3" in refused(capsys, str(path), "--resume")
    rows.write_text(kept, encoding="utf-8")
    assert main(["train", str(path), "--resume"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)] == [1, 2, 3]
    assert len(list((tmp_path / "run" / "validation").rglob("*.png"))) >= 5
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    picture = tmp_path / "out.png"
    flags = ["--model", "demo", "--projector", str(projector), "--steps", "1", "--seed", "1", "--device", "cpu"]
    style = str(tmp_path / "rows" / "style-0.png")
    assert main(["generate", "--prompt", "a house", "--style", style, "--output", str(picture), *flags]) == 0
    assert picture.is_file()


def test_a_run_that_did_nothing_names_no_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a success with files that are not there, after Ctrl-C in a first step of many micro-batches."""
    path = demo_run(tmp_path, tensorboard=False, validation={}, batch=2, micro_batch=1)
    monkeypatch.setattr(Trainer, "must_stop", lambda self, late: True)
    assert "stopped before its first step was done; nothing is written" in refused(capsys, str(path))
    assert not (tmp_path / "run" / "projector.safetensors").exists()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Catches gradients of one process alone, draws that both share, files that both write, a log of one's rewards."""
    found, logged = [], []
    reward = {"descriptor": "tests.training.losses.test_reward:mean_colour", "steps": 2, "last": 1, "start_step": 0}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        path = demo_run(
            folder, tensorboard=False, validation={}, batch=2, micro_batch=1, optimizer={"lr": 1e-3}, reward=reward
        )
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [*launch, "-m", "uso", "train", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"{processes} process" in done.stderr and f", {2 // processes} times 1 samples each" in done.stderr
        assert done.stdout.split() == [str(folder / "run" / "projector.safetensors")]
        found.append(load_file(folder / "run" / "projector.safetensors"))
        lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        logged.append([json.loads(line) for line in lines])
    for name, tensor in found[0].items():
        assert torch.allclose(tensor, found[1][name], atol=1e-4), name
    for one, two in zip(*logged, strict=True):
        assert one["reward_spread"] > 1e-3  # of two samples, one for each process
        for key in ("loss", "reward", "reward_spread"):
            assert one[key] == pytest.approx(two[key], rel=1e-3), key


@pytest.mark.parametrize("base", ["int8", "bfloat16"])
def test_a_base_in_fewer_bits_trains_with_reward_and_pictures(tmp_path: Path, base: str) -> None:
    """Catches dtypes that do not meet: in a product, in the roll-out, in validation or on the way back."""
    overrides = [f"base={base}", "precision=bfloat16", "gradient_checkpointing=true", "tensorboard=false", "steps=1"]
    overrides += ["learns=[projector, lora]", "reads=[style, content]", "lora.rank=2"]
    overrides += ["reward.descriptor=tests.training.losses.test_reward:mean_colour", "reward.steps=2", "reward.last=1"]
    config = load_training_config(str(demo_run(tmp_path, validation={"every": 1, "steps": 1, "count": 1})), overrides)
    trainer = train(config)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = {key: value for line in lines for key, value in json.loads(line).items()}
    assert {"loss", "reward", "validation/style/content_style"} <= set(values)
    assert all(math.isfinite(value) for value in values.values())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.parameters.values())


def test_a_signal_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    """Catches a job that is told to go and leaves nothing; afterwards signals mean what they did before."""
    before = signal.getsignal(signal.SIGTERM)
    config, pipeline = cut_down(tmp_path, checkpointing=False)
    trainer = Trainer(pipeline, config, tiny_batches(pipeline, config))
    with stopped_by_signals(trainer):
        signal.raise_signal(signal.SIGTERM)
        trainer.run()
    assert signal.getsignal(signal.SIGTERM) is before
    assert trainer.progress.step == 1 < config.steps
    assert [path.name for path in checkpoints(config.folder / "checkpoints")] == ["step-00000001"]
