"""Rectified flow on the pipeline's stages: what is drawn, shown and asked for; batches and gradients through them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import BOUND, Case, relative_error
from tests.support.tiny_training import tiny_batches, tiny_config, tiny_trainer, training_pipeline, write_rows
from tools.demo.training.words import NAMED, Words
from uso.pipeline.latents import pack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.schedule import flux_mu
from uso.training.config import FlowConfig
from uso.training.losses.flow import clean_estimate, conditioning_of, draw_levels, noised, predict, target_velocity
from uso.training.losses.seeds import generator
from uso.training.model.adapters import Learners

Gradients = dict[str, torch.Tensor]

CLEAN, NOISE = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(1)).unbind(0)


def test_the_line_from_picture_to_noise() -> None:
    """Catches picture and noise swapped, or a velocity of the wrong sign: sampling would run away from the picture."""
    levels = torch.tensor([0.0, 1.0, 0.25])
    shown = noised(CLEAN, NOISE, levels)
    assert torch.equal(shown[0], CLEAN[0])
    assert torch.equal(shown[1], NOISE[1])
    assert torch.allclose(shown[2], 0.75 * CLEAN[2] + 0.25 * NOISE[2])
    velocity = target_velocity(CLEAN, NOISE)
    assert torch.allclose(clean_estimate(shown[2], velocity[2], 0.25), CLEAN[2], atol=1e-6)


def test_flux_shift_counts_tokens_truly() -> None:
    """Catches the inference rule's token count in training: its median level at 1024 x 1024 is 0.61, FLUX's 0.76."""
    config = FlowConfig(sampling="uniform")
    for side, tokens in ((1024, 4096), (256, 256)):
        median = float(draw_levels(config, 20001, side, side, generator(0, "test")).median())
        mu = torch.tensor(flux_mu(tokens))
        assert median == pytest.approx(float(torch.sigmoid(mu)), abs=0.01)


def test_unos_levels_reach_further_than_ours() -> None:
    """Catches a preset that is ours by another name, and shares that `FlowConfig` tells wrongly."""
    ours, unos = (
        draw_levels(FlowConfig(sampling=sampling), 40_000, 1024, 1024, generator(0, "test"))
        for sampling in ("logit_normal", "uno")
    )
    for levels, above, below in ((ours, 0.04, 0.01), (unos, 0.14, 0.095)):
        assert float(levels.median()) == pytest.approx(0.76, abs=0.01)
        assert float((levels > 0.95).float().mean()) == pytest.approx(above, abs=0.006)
        assert float((levels < 0.25).float().mean()) == pytest.approx(below, abs=0.006)


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal"])
def test_levels_are_inside_and_repeat(sampling: Any) -> None:
    """Catches a level of 0 or 1, where the shift divides by zero, and draws that depend on something else."""
    config = FlowConfig(sampling=sampling, shift=None, deviation=20.0)
    first, again = (draw_levels(config, 1000, 64, 64, generator(3, "flow", 7)) for _ in range(2))
    assert torch.equal(first, again)
    assert float(first.min()) > 0 and float(first.max()) < 1
    assert not torch.equal(first, draw_levels(config, 1000, 64, 64, generator(3, "flow", 8)))


@pytest.mark.parametrize("mode", ["text", "style_subject", "multi_style_subject"])
def test_training_says_what_inference_says(golden: Case, golden_pipeline: USOPipeline, mode: str) -> None:
    """Catches a second copy of the network's arithmetic that drifts: the golden velocity, outside of inference mode."""
    conditioning = golden.condition(golden_pipeline, mode)
    level = torch.tensor([golden.values["velocity_timestep"]])
    velocity = predict(golden_pipeline, conditioning, pack(golden.expected["noise"]), level)
    assert relative_error(velocity, golden.expected[f"{mode}.velocity"]) < BOUND
    golden_pipeline.remembered.clear()


@pytest.fixture(scope="module")
def pipeline() -> USOPipeline:
    return training_pipeline()


def test_a_batch_is_its_samples(pipeline: USOPipeline, tmp_path: Path) -> None:
    """Catches a level, a guidance or a reference that the first sample lends to the others of its batch."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 2))
    batch = tiny_batches(pipeline, config).take()
    levels = torch.tensor([0.2, 0.9])
    tokens = pack(batch.latents)
    with torch.no_grad():
        together = predict(pipeline, conditioning_of(pipeline, batch, 2.0), tokens, levels)
        alone = predict(pipeline, conditioning_of(pipeline, batch.first(1), 2.0), tokens[:1], levels[:1])
        other = predict(pipeline, conditioning_of(pipeline, batch.first(1), 2.0), tokens[:1], levels[1:])
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert float((together[:1] - other).abs().max()) > 1e-3


def test_a_step_in_use_leaves_training_alone(pipeline: USOPipeline, tmp_path: Path) -> None:
    """Catches tensors of inference mode that stay behind in the pipeline: the next backward pass would refuse them."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 2), "stage1", batch=1, micro_batch=1)
    learners = Learners(pipeline, config)
    batch = tiny_batches(pipeline, config).take()
    tokens, level = pack(batch.latents), torch.tensor([0.5])
    with torch.inference_mode():
        conditioning = conditioning_of(pipeline, batch, 1.0)
        (row,) = pipeline.modulation_table(conditioning, level)
        pipeline.velocity(conditioning, tokens, row)
    pipeline.remembered.clear()
    with torch.no_grad():
        predict(pipeline, conditioning_of(pipeline, batch, 1.0), tokens, level)
    predict(pipeline, conditioning_of(pipeline, batch, 1.0), tokens, level).square().mean().backward()
    assert all(parameter.grad is not None for parameter in learners.parameters.values())


def gradients(
    folder: Path, *, checkpointing: bool, guided: float = 0.0, words: bool = False, after: bool = False
) -> Gradients:
    """Of one micro-batch's flow loss.

    Args:
        after: plants a pass without gradient between the loss and the way back.
    """
    changes: dict[str, Any] = {}
    if guided:
        changes = {"teacher": "tools.demo.training.guided:Guided", "teacher_options": {"share": guided}}
    config = tiny_config(
        folder, write_rows(folder / "rows"), "joint", dropout={}, gradient_checkpointing=checkpointing, **changes
    )
    trainer = tiny_trainer(config)
    for name, parameter in trainer.parameters.items():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator(0, name)))
    batch = trainer.batches.take()
    trainer.batches.close()
    if words:
        batch = replace(batch, prompts={NAMED: (0.5 * batch.prompt_embeds, 0.5 * batch.pooled)})
        trainer.teacher = Words(config.model_copy(update={"learns": ("projector",), "reads": ("style",)}))
    loss = trainer.flow_loss(batch)
    if after:
        with torch.no_grad():
            other = replace(batch, pooled=-batch.pooled)
            predict(trainer.pipeline, conditioning_of(trainer.pipeline, other, 3.0), pack(batch.latents), torch.ones(2))
    loss.backward()
    return {name: parameter.grad for name, parameter in trainer.parameters.items() if parameter.grad is not None}


def same(first: Gradients, second: Gradients) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-7) for name in first
    )


@pytest.mark.parametrize("teacher", [{}, {"guided": 1.0}, {"words": True}], ids=["alone", "guided", "words"])
def test_checkpointing_changes_no_gradient(teacher: dict[str, Any], tmp_path: Path) -> None:
    """Catches a modulation row that is another one when blocks run again on the way back: that of an answer without
    gradient, whether the loss or the test (once) asked for it."""
    plain = gradients(tmp_path / "plain", checkpointing=False, **teacher)
    assert plain and same(plain, gradients(tmp_path / "again", checkpointing=True, **teacher))
    assert not same(plain, gradients(tmp_path / "planted", checkpointing=True, after=True, **teacher))
