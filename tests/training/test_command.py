"""`python -m uso train`: refusals before weights load, and runs from the command line to their files."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import draw_picture
from tests.golden import relative_error
from tests.support.running import free_port
from tests.support.tiny_training import cut_down, tiny_batches, tiny_config, write_rows
from tools.demo.training.config import STAGES_FOLDER
from uso.cli.main import REFUSED, main
from uso.config import ROOT
from uso.errors import ConfigError
from uso.training.command import train
from uso.training.config import load_training_config
from uso.training.loop.checkpoint import checkpoints
from uso.training.loop.optimizer import check_optimizer
from uso.training.loop.run import stopped_by_signals
from uso.training.loop.trainer import Trainer

GIB = 2**30


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == REFUSED
    return capsys.readouterr().err


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
    assert "The rows file /none.jsonl could not be read" in refused(capsys, *mini, "data.rows=/none.jsonl")
    assert "start.lora: there is no file" in refused(capsys, *mini, "start.lora=none.safetensors")
    home = Path.home()
    assert f"there is no file {home}/none. Train" in refused(capsys, *mini, "start.projector=~/none")
    assert f"there is no file {home}/none. Name" in refused(capsys, *mini, "reward.held_out_weights=~/none")
    assert "There is no model" in refused(capsys, *mini, "model=flux-pro")
    assert "The descriptor 'none:none' was not found" in refused(capsys, *mini, "reward.descriptor=none:none")
    held_out = "reward.held_out_weights="
    assert "there is no file /none. Name another, or go without" in refused(capsys, *mini, held_out + "/none")
    assert "there is no file /none.bin (CSD's is at hugging" in refused(capsys, *mini, held_out + "/none.bin")
    validated = ["validation.every=1", "validation.rows=/none.jsonl"]
    remedy = "Name a file of rows or a folder of pictures: validation.rows=PATH."
    assert remedy in refused(capsys, *mini, "teacher=null", *validated)
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


# A run from the command line


def captioned(folder: Path, count: int) -> Path:
    """A folder of pictures with captions."""
    folder.mkdir()
    for number in range(count):
        draw_picture(128, 128, number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"The house number {number}.")
    return folder


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
    assert len(list((tmp_path / "run" / "validation").rglob("*.png"))) == 6  # with a sheet at each step
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    picture = tmp_path / "out.png"
    flags = ["--model", "demo", "--projector", str(projector), "--steps", "1", "--seed", "1", "--device", "cpu"]
    style = str(tmp_path / "rows" / "style-0.png")
    assert main(["generate", "--prompt", "a house", "--style", style, "--output", str(picture), *flags]) == 0
    assert picture.is_file()


@pytest.mark.slow
def test_blocks_that_are_shared_out_learn_the_same(tmp_path: Path) -> None:
    """Catches a process that waits for another's blocks, in validation or at the end, and gradients of half a block.
    The example of a sharded run, on two CPU processes."""
    pictures = captioned(tmp_path / "pictures", 4)
    found = []
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for processes in (1, 2):
        run = tmp_path / str(processes)
        overrides = [f"data.rows={pictures}", f"output={run}", f"data.cache={tmp_path / 'cache'}", "shard=true"]
        overrides += ["steps=3", "batch=2", "micro_batch=1", "validation.every=2", "validation.steps=1", "ema=null"]
        overrides += ["gradient_checkpointing=true", "export_dtype=float32", "optimizer.lr=1e-3"]
        launch, alone = [sys.executable], {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}
        if processes > 1:
            launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [*launch, "-m", "uso", "train", "finetune-demo", *overrides],
            cwd=ROOT,
            env=os.environ | ({} if processes > 1 else alone | meeting),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(load_file(run / "dit_lora.safetensors"))
        assert len(list((run / "validation").glob("*/sheet.png"))) == 2
    begun = load_file(ROOT / "assets" / "demo-model" / "dit_lora.safetensors")
    for name, tensor in found[0].items():
        assert relative_error(found[1][name] - begun[name].float(), tensor - begun[name].float()) < 0.02, name


@pytest.mark.slow
def test_finetuning_goes_on_from_released_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a LoRA that begins anew where it should go on, on the demo model's files in the released layout, and
    results that do not load."""
    pictures = captioned(tmp_path / "pictures", 20)
    run = tmp_path / "run"
    places = [f"data.rows={pictures}", f"output={run}", f"data.cache={tmp_path / 'cache'}"]
    assert main(["train", "finetune-demo", *places, "steps=4", "checkpoint.every=2", "validation.every=null"]) == 0
    (lora,) = map(Path, capsys.readouterr().out.split())
    assert lora == run / "dit_lora.safetensors"
    learned, released = load_file(lora), load_file(ROOT / "assets" / "demo-model" / "dit_lora.safetensors")
    change = {name: relative_error(tensor.float(), released[name].float()) for name, tensor in learned.items()}
    assert 0 < max(change.values()) < 0.2
    exported = tmp_path / "exported"
    assert main(["train", "export", str(run / "checkpoints" / "step-00000002"), str(exported)]) == 0
    flags = ["--model", "demo", "--steps", "1", "--seed", "1", "--device", "cpu", "--prompt", "a house"]
    projector = ["--projector", str(ROOT / "assets" / "demo-model" / "projector.safetensors")]
    pictures_of = []
    for file in (lora, exported / "dit_lora.safetensors"):
        picture = tmp_path / f"{file.parent.name}.png"
        flag = ["--lora", str(file), *projector, "--style", str(pictures / "0.png"), "--output", str(picture)]
        assert main(["generate", *flags, *flag]) == 0
        pictures_of.append(picture.read_bytes())
    assert pictures_of[0] != pictures_of[1]


def test_a_run_that_did_nothing_names_no_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a success with files that are not there, after Ctrl-C in a first step of many micro-batches."""
    path = demo_run(tmp_path, tensorboard=False, validation={}, batch=2, micro_batch=1)
    monkeypatch.setattr(Trainer, "must_stop", lambda self, late: True)
    assert "stopped before its first step was done; nothing is written" in refused(capsys, str(path))
    assert not (tmp_path / "run" / "projector.safetensors").exists()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Catches gradients of one process alone, draws that both share, files that both write, a log of one's rewards."""
    found, logged = [], []
    reward = {"descriptor": "tests.training.losses.test_reward:mean_colour", "steps": 2, "last": 1, "start_step": 0}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        path = demo_run(
            folder, tensorboard=False, validation={}, batch=2, micro_batch=1, optimizer={"lr": 1e-3}, reward=reward
        )
        if processes == 1:
            assert main(["train", str(path)]) == 0
        else:
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            subprocess.run([*launch, "-m", "uso", "train", str(path)], cwd=ROOT, check=True)
        said = capfd.readouterr()
        assert f"{processes} process" in said.err and f", {2 // processes} times 1 samples each" in said.err
        assert said.out.split() == [str(folder / "run" / "projector.safetensors")]
        found.append(load_file(folder / "run" / "projector.safetensors"))
        lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        logged.append([json.loads(line) for line in lines])
    for name, tensor in found[0].items():
        assert torch.allclose(tensor, found[1][name], atol=1e-4), name
    for one, two in zip(*logged, strict=True):
        assert one["reward_spread"] > 1e-3  # of two samples, one for each process
        for key in ("loss", "reward", "reward_spread"):
            assert one[key] == pytest.approx(two[key], rel=1e-3), key


@pytest.mark.slow
@pytest.mark.parametrize("base", ["nf4", "int8", "bfloat16"])
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
