"""The training loop on a tiny network: it learns, stops, goes on to the bit, and leaves files that load."""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.golden import Case
from tests.support.tiny_training import (
    STAGES,
    differing,
    tiny_batches,
    tiny_config,
    tiny_trainer,
    training_pipeline,
    write_rows,
)
from uso.errors import CheckpointError, ConfigError, USOError
from uso.memory.residency import GIB
from uso.training.config import OptimizerConfig, TrainingConfig, load_training_config
from uso.training.data.batches import Position, TrainingBatch
from uso.training.data.features import Feature, FeatureCache, check_pictures
from uso.training.data.samples import read_samples
from uso.training.loop import checkpoint as state
from uso.training.loop.log import Journal, duration
from uso.training.loop.optimizer import RunningMean, learning_rate
from uso.training.loop.pictures import MODES, Validation
from uso.training.loop.trainer import Trainer
from uso.training.model.export import FILES
from uso.training.model.load import host_refusal
from uso.weights.checkpoints import load_context_embedder, load_transformer


def numbers(trainer: Trainer) -> list[torch.Tensor]:
    """Everything that a run changes: what learns, its running mean, the optimizer's moments."""
    moments = trainer.optimizer.state_dict()["state"]
    tensors = [moments[index][key] for index in sorted(moments) for key in sorted(moments[index])]
    means = [] if trainer.mean is None else list(trainer.mean.values.values())
    return [tensor.detach().clone() for tensor in (*trainer.parameters.values(), *means, *tensors)]


def metrics(config: TrainingConfig) -> list[dict[str, Any]]:
    lines = (config.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


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
    """Catches a run that goes on with another rank, seed or data and is no longer the run it says it is."""
    rows = write_rows(tmp_path / "rows")
    config = tiny_config(tmp_path, rows, steps=1)
    trainer = tiny_trainer(config)
    trainer.run()
    (checkpoint,) = state.checkpoints(config.folder / "checkpoints")
    state.check_config(checkpoint, tiny_config(tmp_path, rows, steps=9, log_every=5))
    muon = config.optimizer.model_dump() | {"kind": "muon"}
    for key, changes in (
        ("seed", {"seed": 4}),
        ("lora", {"lora": {"rank": 2}}),
        ("dropout", {"dropout": {"style": 0.5}}),
        ("optimizer.kind", {"optimizer": muon}),
    ):
        with pytest.raises(ConfigError, match=f"was made with {key}=.*output=FOLDER"):
            state.check_config(checkpoint, tiny_config(tmp_path, rows, **changes))
    state.check_samples(checkpoint, 4)
    with pytest.raises(ConfigError, match="was made with 4 samples, and the data now hold 3"):
        state.check_samples(checkpoint, 3)
    (checkpoint / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="Delete it to go on from the one before"):
        trainer.resume(checkpoint)


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


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    """Catches hours of training on NaN, and a last checkpoint that is overwritten with it."""
    trainer = tiny_trainer(tiny_config(tmp_path, write_rows(tmp_path / "rows")))
    next(iter(trainer.parameters.values())).data.fill_(math.nan)
    with pytest.raises(USOError, match="Go on from the last checkpoint"):
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


def test_validation_draws_every_mode_through_the_pipeline(tmp_path: Path) -> None:
    """Catches pictures of the weights before the last ones, a seed that wanders, and training spoiled by them."""
    rows = write_rows(tmp_path / "rows", 2)
    config = tiny_config(tmp_path, rows, steps=2, ema=0.9, validation={"every": 1, "steps": 2, "count": 1})
    pipeline = training_pipeline()
    batches = tiny_batches(pipeline, config)
    cache = batches.features
    assert isinstance(cache, FeatureCache)
    held_out = read_samples(rows, config.data.model_copy(update={"max_styles": 2}), ("style", "content"))
    validation = Validation(pipeline, config, held_out, cache)
    cache.encode(cache.missing(validation.features()))
    trainer = Trainer(pipeline, config, batches, validation=validation)
    own = [parameter.detach().clone() for parameter in trainer.parameters.values()]
    first, again = ([drawn.image.tobytes() for drawn in validation.draw(trainer.autocast)] for _ in range(2))
    assert first == again
    assert differing(own, list(trainer.parameters.values())) == 0
    trainer.run()
    folder = config.folder / "validation"
    assert {path.name for path in folder.iterdir()} == {"step-00000001", "step-00000002"}
    modes = {path.name for path in (folder / "step-00000002").iterdir()}
    assert modes == {f"{mode}-0.png" for mode in MODES if mode != "styles"}  # one row has one style
    pictures = [(folder / f"step-0000000{step}" / "content_style-0.png").read_bytes() for step in (1, 2)]
    assert pictures[0] != pictures[1]


def test_validation_never_asks_the_text_encoders(tmp_path: Path) -> None:
    """Catches prompts that modulation tables push out of what is remembered: the encoders are gone by then.
    Plants prompts that are all remembered before the first picture."""
    rows = write_rows(tmp_path / "rows", 3)
    config = tiny_config(tmp_path, rows, validation={"every": 1, "steps": 2, "count": 3})
    pipeline = training_pipeline()
    cache = FeatureCache(config.data.cache, pipeline)
    held_out = read_samples(rows, config.data, ("style", "content"))
    validation = Validation(pipeline, config, held_out, cache)
    cache.encode(cache.missing(validation.features()))
    pipeline.text_encoder = pipeline.text_encoder_2 = None
    pipeline.remembered.limit = 20_000  # less than all of it, and more than one picture's share
    drawn = list(validation.draw(nullcontext))
    assert len(drawn) == 3 * len(MODES)
    for feature in validation.features():
        prompt = cache.load(feature)
        pipeline.remember_prompt(feature.prompt, prompt["prompt_embeds"][None], prompt["pooled"][None])
    with pytest.raises(TypeError, match="NoneType"):
        all(list(pipeline.stream(request)) for _, _, request, _ in validation.requests())


def test_learning_rate_rises_and_falls() -> None:
    """Catches a first step at the full rate, and a cosine that ends anywhere but at 0."""
    config = OptimizerConfig(lr=1.0, warm_up=4, decay="cosine")
    rates = [learning_rate(config, step, 14) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.5)
    assert rates[14] == pytest.approx(0.0, abs=1e-9)
    assert learning_rate(OptimizerConfig(lr=1.0), 10**6, 10) == 1.0


def test_running_mean_follows_fast_at_first() -> None:
    """Catches a mean that is still the drawn weights after a short run."""
    weight = torch.zeros(1)
    mean = RunningMean({"w": weight}, 0.999)
    weight.fill_(1.0)
    mean.update({"w": weight}, 0)
    assert float(mean.values["w"]) == pytest.approx(0.9)
    mean.values["w"].zero_()
    mean.update({"w": weight}, 10**6)
    assert float(mean.values["w"]) == pytest.approx(0.001)


def test_journal_takes_back_what_is_done_again(tmp_path: Path) -> None:
    """Catches a curve that goes twice over the steps after a checkpoint, and a line that was cut off."""
    journal = Journal(tmp_path, 0, 9, tensorboard=True)
    for step in (1, 2, 3):
        journal.write(step, {"loss": step / 2})
    journal.close()
    assert list((tmp_path / "tensorboard").iterdir())
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    Journal(tmp_path, 2, 9, tensorboard=False).close()
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_durations_are_said_as_people_say_them() -> None:
    """Catches "86400 s left"."""
    assert [duration(seconds) for seconds in (45, 720, 12240, 181440)] == ["45 s", "12 min", "3.4 h", "2.1 days"]


def test_files_hold_the_running_mean(tmp_path: Path) -> None:
    """Catches an export of the last step's weights where the mean was asked for."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), ema=0.5)
    trainer = tiny_trainer(config)
    trainer.run()
    assert trainer.mean is not None
    for name, tensor in load_file(config.folder / FILES["lora"]).items():
        assert torch.equal(tensor, trainer.mean.values[f"lora/{name}"])


def test_damaged_pictures_are_named_before_anything_is_encoded(tmp_path: Path) -> None:
    """Catches a run that ends in the middle of the encoding; a whole picture is no fault."""
    rows = write_rows(tmp_path / "rows", 2)
    whole = [path for path in sorted(rows.parent.glob("*.png")) if "content" not in path.name]
    check_pictures(Feature("latents", path=path) for path in whole)
    damaged = rows.parent / "content-1.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"content-1\.png.*python -m uso train\.data check"):
        check_pictures([Feature("latents", path=path) for path in [*whole, damaged]])


def test_weights_that_the_host_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches processes that each load the whole model at the same moment, and are killed without a word; and weights
    counted as they are stored where they are loaded in float32."""
    config = load_training_config("stage2", [f"data.rows={write_rows(tmp_path)}", "base=bfloat16"])
    memory = psutil.virtual_memory()._replace(available=40 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert host_refusal(config) is None  # 32.4 GiB
    assert (host_refusal(config.model_copy(update={"base": "float32"})) or "").startswith("This process loads 64.")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (host_refusal(config) or "").startswith("2 processes of this machine load 64.")
