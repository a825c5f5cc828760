"""The training loop on a tiny network: it learns, stops, and leaves files that load."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.golden import Case
from tests.support.tiny_training import (
    STAGES,
    differing,
    metrics,
    tiny_batches,
    tiny_config,
    tiny_trainer,
    training_pipeline,
    write_rows,
)
from uso.errors import USOError
from uso.training.config import TrainingConfig
from uso.training.data.batches import Position
from uso.training.loop import checkpoint as state
from uso.training.loop.trainer import Trainer
from uso.training.model.export import FILES
from uso.weights.checkpoints import load_context_embedder, load_transformer


@pytest.mark.parametrize("stage", list(STAGES))
def test_three_steps_of_each_stage(golden: Case, golden_folder: Path, tmp_path: Path, stage: str) -> None:
    """Catches a stage whose loss is no number, that moves nothing, or whose files do not load."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), stage)
    trainer = tiny_trainer(config)
    before = [parameter.detach().clone() for parameter in trainer.parameters.values()]
    trainer.run()
    assert [entry["step"] for entry in metrics(config)] == [1, 2, 3]
    assert all(math.isfinite(entry["loss"]) and entry["loss"] > 0 for entry in metrics(config))
    moved = differing(before, list(trainer.parameters.values()))
    assert moved == len(before)
    if "projector" in config.learns:
        load_context_embedder([config.folder / FILES["projector"]])
    if "lora" in config.learns:
        files = [golden_folder / "flux1.safetensors"]
        load_transformer(golden.transformer_config(), files, lora=[config.folder / FILES["lora"]])
    written = {path.name for path in config.folder.glob("*.safetensors")}
    assert written == {FILES[learner] for learner in config.learns}


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    """Catches gradients of the wrong sign or of nothing: on the same samples and draws the loss must fall."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 2), optimizer={"lr": 0.01})
    trainer = tiny_trainer(config)
    batch = trainer.batches.take()
    losses = []
    for _ in range(15):
        loss = trainer.flow_loss(batch)
        loss.backward()
        trainer.apply(float(loss.detach()))
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    trainer.batches.close()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    """Catches hours of training on NaN, and a last checkpoint that is overwritten with it."""
    trainer = tiny_trainer(tiny_config(tmp_path, write_rows(tmp_path / "rows")))
    next(iter(trainer.parameters.values())).data.fill_(math.nan)
    with pytest.raises(USOError, match="Begin another run with a smaller optimizer.lr"):
        trainer.run()
    assert state.checkpoints(trainer.checkpoints) == []


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    """Catches gradients that are summed instead of averaged: the learning rate would depend on the card."""
    rows = write_rows(tmp_path / "rows", 4)
    config = tiny_config(tmp_path, rows, batch=4, micro_batch=2, optimizer={"lr": 1e-3, "clip": None})
    trainer = tiny_trainer(config)
    losses = [trainer.flow_loss(trainer.batches.take()) for _ in range(2)]
    expected = torch.autograd.grad(torch.stack(losses).mean(), list(trainer.parameters.values()))
    trainer.batches.position = Position()
    norm = trainer.update()["gradient_norm"]
    assert norm == pytest.approx(float(torch.stack([gradient.norm() for gradient in expected]).norm()), rel=1e-4)
    trainer.batches.close()


def test_every_sample_weighs_the_same_in_a_short_micro_batch(tmp_path: Path) -> None:
    """Catches the last sample of a bucket, alone in its micro-batch, that weighs double."""
    rows = write_rows(tmp_path / "rows", 3)
    config = tiny_config(tmp_path, rows, batch=4, micro_batch=2, optimizer={"lr": 1e-3, "clip": None})
    trainer = tiny_trainer(config)
    batches = [trainer.batches.take() for _ in range(2)]
    assert sorted(batch.size for batch in batches) == [1, 2]
    loss = torch.stack([batch.size * trainer.flow_loss(batch) for batch in batches]).sum() / 3
    expected = torch.autograd.grad(loss, list(trainer.parameters.values()))
    trainer.batches.position = Position()
    values = trainer.update()
    assert values["gradient_norm"] == pytest.approx(float(torch.stack([g.norm() for g in expected]).norm()), rel=1e-4)
    assert values["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    trainer.batches.close()


def test_short_micro_batches_run_uncompiled(tmp_path: Path) -> None:
    """Catches minutes of compilation for the one short batch of every bucket."""
    rows = write_rows(tmp_path / "rows", 3)
    trainer = tiny_trainer(tiny_config(tmp_path, rows, batch=4, micro_batch=2, compile=True))
    block = trainer.pipeline.transformer.transformer_blocks[0]
    own, sizes = block.forward, []

    def compiled(*args: Any, **options: Any) -> Any:
        sizes.append(options["hidden_states"].shape[0])
        return own(*args, **options)

    block.forward = compiled
    trainer.update()
    assert sizes == [2]  # and not the last sample's
    trainer.batches.close()


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # of norms, under autocast
def test_bfloat16_keeps_what_learns_in_float32(tmp_path: Path) -> None:
    """Catches a cast of masters to bfloat16, in which small updates vanish, under both ways to compute in it."""
    rows = write_rows(tmp_path / "rows")
    for base in ("float32", "bfloat16"):
        options: dict[str, Any] = {"precision": "bfloat16", "gradient_checkpointing": True, "steps": 1}
        config = tiny_config(tmp_path / base, rows, "joint", base=base, **options)
        pipeline = training_pipeline()
        batches = tiny_batches(pipeline, config)
        if base == "bfloat16":
            modulation = pipeline.exchanged.modulation
            for module in (pipeline.transformer, pipeline.context_embedder, modulation.embedding, *modulation.layers):
                module.to(torch.bfloat16)
        trainer = Trainer(pipeline, config, batches)
        trainer.run()
        assert all(parameter.dtype == torch.float32 for parameter in trainer.parameters.values())
        assert metrics(config)[0]["loss"] == pytest.approx(metrics(tiny_run(tmp_path, rows))[0]["loss"], rel=0.05)


def tiny_run(folder: Path, rows: Path) -> TrainingConfig:
    """The same in float32."""
    config = tiny_config(folder / "float32-run", rows, "joint", steps=1)
    if not (config.folder / "metrics.jsonl").is_file():
        tiny_trainer(config).run()
    return config


def test_a_run_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """Catches a run of 90 minutes that loses its last steps, or does not go on from them."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), steps=100, stop_after_minutes=1e-9)
    trainer = tiny_trainer(config)
    trainer.run()
    assert trainer.progress.step == 1
    assert [path.name for path in state.checkpoints(trainer.checkpoints)] == ["step-00000001"]
    assert (config.folder / FILES["lora"]).is_file()


def test_files_hold_the_running_mean(tmp_path: Path) -> None:
    """Catches an export of the last step's weights where the mean was asked for."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), ema=0.5)
    trainer = tiny_trainer(config)
    trainer.run()
    assert trainer.mean is not None
    for name, tensor in load_file(config.folder / FILES["lora"]).items():
        assert torch.equal(tensor, trainer.mean.values[f"lora/{name}"])
