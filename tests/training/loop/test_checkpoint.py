"""Checkpoints: a run continues bit for bit, and refuses what is another run's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny_training import (
    differing,
    metrics,
    tiny_batches,
    tiny_config,
    tiny_trainer,
    training_pipeline,
    write_rows,
)
from uso.errors import CheckpointError, ConfigError
from uso.training.data.batches import Position, TrainingBatch
from uso.training.loop import checkpoint as state
from uso.training.loop.optimizer import RunningMean
from uso.training.loop.trainer import Trainer
from uso.training.model.export import FILES


def numbers(trainer: Trainer) -> list[torch.Tensor]:
    """Everything that a run changes: what learns, its running mean, the optimizer's moments."""
    moments = trainer.optimizer.state_dict()["state"]
    tensors = [moments[index][key] for index in sorted(moments) for key in sorted(moments[index])]
    means = [] if trainer.mean is None else list(trainer.mean.values.values())
    return [tensor.detach().clone() for tensor in (*trainer.parameters.values(), *means, *tensors)]


FOUR_STEPS: dict[str, Any] = {
    "steps": 4,
    "ema": 0.9,
    "batch": 4,
    "dropout": {"text": 0.3, "style": 0.25, "content": 0.25},
    "optimizer": {"lr": 1e-3, "warm_up": 3, "decay": "cosine"},
}


def straight_and_resumed(folder: Path, before_second: Callable[[], None] = lambda: None) -> tuple[Trainer, Trainer]:
    """A run of 4 steps in one piece, and one that is ended after 2 and begun again from its checkpoint."""
    rows = write_rows(folder / "rows", 5)
    whole = tiny_trainer(tiny_config(folder / "a", rows, "joint", **FOUR_STEPS))
    whole.run()
    config = tiny_config(folder / "b", rows, "joint", **FOUR_STEPS)
    first = tiny_trainer(config)
    first.update()
    first.update()
    first.save()
    first.update()  # lost: the run was killed before the next checkpoint
    first.batches.close()
    before_second()
    second = tiny_trainer(config)
    second.resume(state.checkpoints(config.folder / "checkpoints")[-1])
    second.run()
    return whole, second


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    """Catches anything a checkpoint forgets: moments, running mean, schedule, place in the data, random draws."""
    whole, resumed = straight_and_resumed(tmp_path)
    assert differing(numbers(whole), numbers(resumed)) == 0
    assert whole.progress.position == resumed.progress.position
    losses = [entry["loss"] for entry in metrics(whole.config)]
    assert [entry["loss"] for entry in metrics(resumed.config)] == losses[2:]


@pytest.mark.parametrize("half_done", [True, False])
def test_a_stop_within_a_step_loses_nothing(half_done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches half a step's gradients, or its samples, in what goes on; and a step that is finished all the same, which
    a launcher would not wait for."""
    rows = write_rows(tmp_path / "rows", 5)
    whole = tiny_trainer(tiny_config(tmp_path / "a", rows, "joint", **FOUR_STEPS))
    whole.run()
    config = tiny_config(tmp_path / "b", rows, "joint", **FOUR_STEPS)
    first = tiny_trainer(config)
    calls = []

    def loss(batch: TrainingBatch) -> torch.Tensor:
        calls.append(batch.number)
        first.stopping = len(calls) == (5 if half_done else 4)  # of two micro-batches a step
        return Trainer.flow_loss(first, batch)

    monkeypatch.setattr(first, "flow_loss", loss)
    first.run()
    assert (first.progress.step, len(calls)) == ((2, 5) if half_done else (2, 4))
    second = tiny_trainer(config)
    (checkpoint,) = state.checkpoints(config.folder / "checkpoints")
    second.resume(checkpoint)
    second.run()
    assert differing(numbers(whole), numbers(second)) == 0


def test_a_stop_within_the_first_step_leaves_no_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 5), "joint", **FOUR_STEPS)
    trainer = tiny_trainer(config)
    trainer.stopping = True
    trainer.run()
    assert trainer.progress.step == 0 and not state.checkpoints(config.folder / "checkpoints")
    assert not list(config.folder.glob("*.safetensors"))


def test_a_stop_within_the_first_step_after_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    """Catches a checkpoint that is taken away and written again while a launcher waits for its end."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 5), "joint", **FOUR_STEPS)
    first = tiny_trainer(config)
    first.update()
    first.save()
    first.batches.close()
    (checkpoint,) = state.checkpoints(config.folder / "checkpoints")
    made = checkpoint.stat().st_ino
    second = tiny_trainer(config)
    second.resume(checkpoint)
    second.stopping = True
    second.run()
    assert second.progress.step == 1 and checkpoint.stat().st_ino == made


@pytest.mark.parametrize("forgotten", ["draws", "moments", "mean", "step"])
def test_a_forgetful_checkpoint_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str) -> None:
    """The test above must fail when one part of the state is not restored."""
    right = state.restore

    def wrong(checkpoint: Path, parameters: Any, optimizer: Any, mean: RunningMean | None) -> state.Progress:
        fresh = optimizer.state_dict()
        values = None if mean is None else {name: value.clone() for name, value in mean.values.items()}
        found = right(checkpoint, parameters, optimizer, mean)
        if forgotten == "draws":
            return state.Progress(found.step, Position(**found.position.model_dump() | {"taken": 0}))
        if forgotten == "moments":
            optimizer.load_state_dict(fresh)
        if forgotten == "mean" and mean is not None and values is not None:
            mean.values.update(values)
        return state.Progress(0 if forgotten == "step" else found.step, found.position)

    whole, resumed = straight_and_resumed(tmp_path, lambda: monkeypatch.setattr(state, "restore", wrong))
    assert differing(numbers(whole), numbers(resumed)) > 0


def test_the_last_checkpoints_are_kept_whole(tmp_path: Path) -> None:
    """Catches a disk that fills up, and a half-written folder that is taken for a checkpoint."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), steps=4, checkpoint={"every": 1, "last": 2})
    folder = config.folder / "checkpoints"
    left = folder / "step-00000009.123.part"
    left.mkdir(parents=True)
    trainer = tiny_trainer(config)
    assert state.checkpoints(folder) == []
    trainer.run()
    assert [path.name for path in state.checkpoints(folder)] == ["step-00000003", "step-00000004"]
    assert not left.exists()
    assert not list(config.folder.rglob("*.part"))


def test_every_checkpoint_has_its_results(tmp_path: Path) -> None:
    """Catches results of the last step beside an earlier checkpoint, and an export that is not the run's own file."""
    rows = write_rows(tmp_path / "rows")
    config = tiny_config(tmp_path, rows, "joint", steps=2, ema=0.5, checkpoint={"every": 1}, export_dtype="bfloat16")
    tiny_trainer(config).run()
    first, last = state.checkpoints(config.folder / "checkpoints")
    again = tmp_path / "again"
    assert state.export(first, again) == [again / FILES[part] for part in ("lora", "projector")]
    (last / FILES["lora"]).unlink()
    state.export(config.folder)  # of a run: its newest checkpoint
    for name in FILES["projector"], FILES["lora"]:
        kept, exported, newest, result = (
            list(load_file(place / name).values()) for place in (first, again, last, config.folder)
        )
        assert differing(kept, exported) == differing(newest, result) == 0 < differing(kept, newest)
    with pytest.raises(ConfigError, match="is no checkpoint"):
        state.export(tmp_path)


class Nesting(torch.optim.AdamW):
    """Gives its moments as bitsandbytes' 8-bit optimizers do, in a dictionary of their own, and takes them flat."""

    def state_dict(self) -> dict[str, Any]:
        found = super().state_dict()
        found["state"] = {
            index: {"step": moments["step"], "nested": {key: moments[key] for key in ("exp_avg", "exp_avg_sq")}}
            for index, moments in found["state"].items()
        }
        return found


def test_moments_in_a_dictionary_are_kept(tmp_path: Path) -> None:
    """Catches a run with `adamw8bit` that ends at its first checkpoint: the dictionary is no JSON."""
    weight = torch.nn.Parameter(torch.ones(3, 2))
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 1))
    first, second = Nesting([weight], lr=0.1), Nesting([weight], lr=0.1)
    weight.square().sum().backward()
    first.step()
    kept = state.save(tmp_path / "kept", config, state.Progress(step=1), {"weight": weight}, first, None)
    state.restore(kept, {"weight": weight}, second, None)
    before, after = first.state[weight], second.state[weight]
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Catches a run that goes on with another rank, seed, learning rate or data, and is not the run it says it is."""
    rows = write_rows(tmp_path / "rows")
    config = tiny_config(tmp_path, rows, steps=1)
    trainer = tiny_trainer(config)
    trainer.run()
    (checkpoint,) = state.checkpoints(config.folder / "checkpoints")
    free: dict[str, Any] = {"steps": 9, "log_every": 5, "compile": True, "validation": {"every": 2}, "device": "cuda"}
    state.check_config(checkpoint, tiny_config(tmp_path, rows, **free))
    for key, changes in (
        ("seed", {"seed": 4}),
        ("lora.rank", {"lora": {"rank": 2}}),
        ("dropout.style", {"dropout": {"style": 0.5}}),
        ("optimizer.kind", {"optimizer": {"lr": 1e-3, "kind": "adamw8bit"}}),
        ("optimizer.lr", {"optimizer": {"lr": 2e-3}}),
        ("flow.sampling", {"flow": {"sampling": "uno"}}),
        ("teacher", {"teacher": "tools.demo.training.guided:Guided"}),
        ("teacher_options.share", {"teacher_options": {"share": 0.5}}),
        ("reward.weight", {"reward": {"weight": 0.5}}),
        ("guidance", {"guidance": 2.0}),
    ):
        with pytest.raises(ConfigError, match=f"was made with {key}=.*output=FOLDER"):
            state.check_config(checkpoint, tiny_config(tmp_path, rows, **changes))
    cosine: dict[str, Any] = {"optimizer": {"lr": 1e-3, "decay": "cosine"}}
    other = state.save(
        tmp_path / "cosine",
        tiny_config(tmp_path, rows, steps=3, **cosine),
        trainer.progress,
        {},
        trainer.optimizer,
        None,
    )
    with pytest.raises(ConfigError, match="was made with steps=3, and this run has 9"):
        state.check_config(other, tiny_config(tmp_path, rows, steps=9, **cosine))
    record = json.loads((other / "state.json").read_text())
    (other / "state.json").write_text(json.dumps({key: value for key, value in record.items() if key != "format"}))
    with pytest.raises(ConfigError, match="whose epochs have another order"):
        state.check_config(other, tiny_config(tmp_path, rows, steps=3, **cosine))
    state.check_samples(checkpoint, 4)
    with pytest.raises(ConfigError, match="was made with 4 samples, and the data now hold 3"):
        state.check_samples(checkpoint, 3)
    (checkpoint / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="Delete it to go on from the one before"):
        trainer.resume(checkpoint)


def test_the_order_does_not_depend_on_compilation(tmp_path: Path) -> None:
    """Catches a resumed run in which samples come twice or never, because compiled ones leave out short batches."""
    rows = write_rows(tmp_path / "rows", 5)
    orders = []
    for compiled in (False, True):
        batches = tiny_batches(training_pipeline(), tiny_config(tmp_path, rows, "joint", compile=compiled))
        orders.append([batches._batches(epoch) for epoch in range(3)])
        batches.close()
    assert orders[0] == orders[1]


def test_a_run_goes_on_with_more_processes(tmp_path: Path) -> None:
    """Catches an index beyond the last batch.

    Of more processes each takes a batch at once, so what is left of an epoch may be too little for all.
    """
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 6))
    pipeline = training_pipeline()
    alone = tiny_batches(pipeline, config)
    for _ in range(2):
        alone.take()
    left = alone.position
    assert (left.epoch, left.index, left.taken, left.samples) == (0, 2, 2, 6)
    pair = tiny_batches(pipeline, config, rank=1, processes=2)
    pair.position = left
    assert (pair.position.epoch, pair.position.index, pair.position.taken) == (1, 0, 2)
    assert pair.take().number == 3
    for batches in (alone, pair):
        batches.close()
