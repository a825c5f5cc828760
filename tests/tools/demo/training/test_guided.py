"""Guidance that a run learns from itself: which micro-batches, at which scales, and away from what."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from tests.support.tiny_training import tiny_config, tiny_trainer, write_rows
from tools.demo.training.config import load_stage
from tools.demo.training.guided import Guided, GuidedOptions, guided
from uso.errors import ConfigError
from uso.pipeline.latents import pack
from uso.training.data.batches import TrainingBatch
from uso.training.data.source import EMPTY
from uso.training.forecast import dry_run
from uso.training.loop.trainer import Trainer
from uso.training.losses.flow import conditioning_of, draw_levels, noised, predict, target_velocity
from uso.training.losses.seeds import generator
from uso.training.losses.teacher import make_teacher

TEACHER = "tools.demo.training.guided:Guided"


def trainer_of(folder: Path, **values: float) -> Trainer:
    return tiny_trainer(
        tiny_config(folder, write_rows(folder / "rows"), "joint", teacher=TEACHER, teacher_options=values, dropout={})
    )


def whole_batch(trainer: Trainer) -> TrainingBatch:
    batch = trainer.batches.take()
    trainer.batches.close()
    assert batch.content is not None and batch.styles
    return batch


@pytest.mark.parametrize("without_style", [0.0, 1.0])
def test_the_target_is_moved_by_what_words_and_content_change(tmp_path: Path, without_style: float) -> None:
    """By hand, and nearest mistakes: an answer moved away from that sees content, words or not the style; a scale that
    is one too large; a scale that is not told."""
    trainer = trainer_of(tmp_path, share=1.0, most=4.0, without_style=without_style)
    config, pipeline, batch = trainer.config, trainer.pipeline, whole_batch(trainer)
    with torch.no_grad():  # a LoRA that has learned nothing changes nothing
        for name, parameter in trainer.parameters.items():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(0, name)))
    loss = trainer.flow_loss(batch)
    draw = generator(config.seed, "flow", batch.number)
    levels = draw_levels(config.flow, batch.size, batch.height, batch.width, draw)
    noise = torch.randn(batch.latents.shape, generator=draw)
    tokens = pack(noised(batch.latents, noise, levels))
    assert isinstance(trainer.teacher, Guided)
    learned = guided(batch, trainer.teacher.options, config.seed)
    assert learned is not None
    scales, _ = learned

    def answer(one: TrainingBatch, scale: torch.Tensor | None = None) -> torch.Tensor:
        conditioning = conditioning_of(pipeline, one, 1.0)
        return predict(
            pipeline, conditioning if scale is None else replace(conditioning, guidance=scale), tokens, levels
        )

    def expected(untold: TrainingBatch, strength: torch.Tensor, told: torch.Tensor | None = scales) -> torch.Tensor:
        moved = strength[:, None, None] * (answer(batch) - answer(untold))
        return mse_loss(answer(batch, told), pack(target_velocity(batch.latents, noise)) + moved.detach())

    embeds, pooled = batch.prompts[EMPTY]
    styles = () if without_style else batch.styles
    right = replace(batch, prompt_embeds=embeds, pooled=pooled, content=None, styles=styles)
    torch.testing.assert_close(loss, expected(right, scales - 1), rtol=1e-5, atol=0)
    wrong = [
        expected(replace(right, content=batch.content), scales - 1),
        expected(replace(right, prompt_embeds=batch.prompt_embeds, pooled=batch.pooled), scales - 1),
        expected(replace(right, styles=() if styles else batch.styles), scales - 1),
        expected(right, scales),
        expected(right, scales - 1, told=None),
    ]
    assert all(abs(float(loss.detach() - one.detach())) > 1e-4 * float(loss.detach()) for one in wrong)
    # Gradients come from the answer that learns alone.
    loss.backward()
    name, parameter = next(iter(trainer.parameters.items()))
    assert parameter.grad is not None, name
    (alone,) = torch.autograd.grad(expected(right, scales - 1), [parameter])
    torch.testing.assert_close(parameter.grad, alone, rtol=1e-4, atol=1e-7)


def test_a_share_of_micro_batches_is_told_scales_by_its_number(tmp_path: Path) -> None:
    batch = whole_batch(trainer_of(tmp_path, share=0.5))
    config = GuidedOptions(share=0.5, most=3.0, without_style=0.25)
    found = [guided(replace(batch, number=number), config, 0) for number in range(400)]
    told = [each for each in found if each is not None]
    assert 160 < len(told) < 240
    scales = torch.cat([each[0] for each in told])
    assert scales.min() >= 1 and scales.max() <= 3 and scales.min() < 1.1 and scales.max() > 2.9
    assert 0.1 < sum(not each[1].styles for each in told) / len(told) < 0.4
    again = guided(replace(batch, number=told[0][1].number), config, 0)
    assert again is not None and torch.equal(again[0], told[0][0])


def test_without_a_share_nothing_is_read_for_it(tmp_path: Path) -> None:
    batch = whole_batch(trainer_of(tmp_path))
    assert not batch.prompts and guided(batch, GuidedOptions(), 0) is None


def test_the_forecast_counts_the_answers_without_gradient() -> None:
    flops = {share: dry_run(load_stage("joint-mini", [f"teacher_options.share={share}"])).flops for share in (0, 1)}
    assert 1.3 * flops[0] < flops[1] < 2 * flops[0]


def test_other_guidance_beside_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"guidance must be 1 where teacher_options\.share is not 0"):
        make_teacher(load_stage("joint-mini", ["teacher_options.share=0.5", "guidance=2.0"]))


def test_scales_that_the_model_refuses_are_not_learned() -> None:
    make_teacher(load_stage("joint-mini"))
    with pytest.raises(ConfigError, match=r"teacher_options\.most is 50\. Set teacher_options\.most="):
        make_teacher(load_stage("joint-mini", ["teacher_options.most=50"]))
