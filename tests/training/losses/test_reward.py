"""Style reward learning with a descriptor of three numbers: gradients, ascent, and nothing before its first step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.tiny_training import (
    differing,
    tiny_batches,
    tiny_config,
    tiny_trainer,
    training_pipeline,
    write_rows,
)
from uso.errors import ConfigError
from uso.images.pixels import open_image
from uso.pipeline.latents import image_to_tensor, pack, unpack
from uso.pipeline.schedule import schedule_sigmas
from uso.training.data.features import FeatureCache
from uso.training.loop.trainer import Judges, Trainer
from uso.training.losses.reward import StyleReward, StyleScore, load_descriptor
from uso.training.losses.seeds import generator

CPU = torch.device("cpu")


class MeanColour(nn.Module):
    """The direction of a picture's mean colour, from mid-grey."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, 3], unit vectors."""
        return nn.functional.normalize(self.gain * pixels.mean(dim=(2, 3)), dim=1)


def mean_colour(weights: str | None) -> MeanColour:
    """As configs name it."""
    assert weights is None
    return MeanColour()


def judge() -> StyleScore:
    return StyleScore(MeanColour().requires_grad_(False), CPU)


MEAN_COLOUR = f"{__name__}:mean_colour"


def reward_config(**changes: Any) -> dict[str, Any]:
    return {
        "descriptor": MEAN_COLOUR,
        "steps": 6,
        "last": 3,
        "weight": 1.0,
        **changes,
    }


def rewarded(folder: Path, stage: str = "joint", **changes: Any) -> Trainer:
    options: dict[str, Any] = {"reward": reward_config()} | changes
    config = tiny_config(folder, write_rows(folder / "rows", 2), stage, **({"dropout": {}} | options))
    return tiny_trainer(config, Judges(learned=judge()))


def test_reward_is_the_cosine_at_a_clean_estimate(tmp_path: Path) -> None:
    """Catches a roll-out with another schedule, seed or guidance than in use, or a step too many or too few.

    The same picture, made by the pipeline's own `denoise`, must get the same score.
    """
    trainer = rewarded(tmp_path, reward=reward_config(last=1))  # the last of the steps
    batch = trainer.batches.take().first(1)
    assert trainer.reward is not None
    with torch.no_grad():
        found = trainer.reward.rewards(batch, trainer.autocast)
    assert found is not None
    draw = generator(trainer.config.seed, "reward", batch.number)
    torch.randint(5, 6, (), generator=draw)
    noise = torch.randn(1, 16, 4, 4, generator=draw)
    pipeline = trainer.pipeline
    pipeline.remembered.clear()
    (path,) = batch.style_pictures[0]
    assert isinstance(path, Path)
    with torch.inference_mode():
        embeds, pooled = batch.prompt_embeds, batch.pooled
        conditioning = pipeline.make_conditioning(
            embeds,
            pooled,
            style_tokens=[pipeline.encode_style(open_image(path.read_bytes()))],
            reference_latents=[batch.content] if batch.content is not None else [],
            height=32,
            width=32,
            guidance_scale=pipeline.model_config.defaults.guidance_scale,
        )
        *_, last = pipeline.denoise(conditioning, noise, num_inference_steps=6, schedule="uso")
        pixels = pipeline.decode(unpack(last.denoised, 32, 32)).clamp(-1, 1)
        style = image_to_tensor(open_image(path.read_bytes()))
        expected = (MeanColour()(pixels) * MeanColour()(style)).sum()
    assert float(found[0]) == pytest.approx(float(expected), abs=1e-4)
    trainer.batches.close()


def test_the_step_with_gradients_is_one_of_the_last(tmp_path: Path) -> None:
    """Catches a draw off by one: a level of the first steps, whose estimate is mush, or the level 0."""
    trainer = rewarded(tmp_path)
    assert trainer.reward is not None
    levels = schedule_sigmas("uso", 6, 32, 32)
    seen: set[float] = set()
    right = trainer.pipeline.velocity

    def watched(conditioning: Any, latents: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            table = trainer.pipeline.exchanged.modulation.table(
                torch.tensor(levels), conditioning.guidance, conditioning.pooled_prompt_embeds
            )
            seen.add(levels[[torch.equal(row, other) for other in table].index(True)])
        return right(conditioning, latents, row)

    trainer.pipeline.velocity = watched  # type: ignore[method-assign]
    for _ in range(12):
        trainer.reward.rewards(trainer.batches.take().first(1), trainer.autocast)
    assert seen == set(levels[-3:])
    trainer.batches.close()


@pytest.mark.parametrize("stage", ["stage1", "stage2", "joint"])
def test_gradients_reach_what_learns_and_nothing_else(tmp_path: Path, stage: str) -> None:
    """Catches a roll-out that cuts the graph off, and a descriptor that learns to be pleased."""
    trainer = rewarded(tmp_path, stage)
    for name, parameter in trainer.parameters.items():
        if name.endswith("up.weight"):
            parameter.data.normal_(0, 0.05, generator=generator(0, "test"))
    assert trainer.reward is not None
    found = trainer.reward.rewards(trainer.batches.take(), trainer.autocast)
    assert found is not None and found.shape == (2,)
    found.mean().backward()
    assert all(parameter.grad is not None for parameter in trainer.parameters.values())
    assert any(bool(parameter.grad.any()) for parameter in trainer.parameters.values() if parameter.grad is not None)
    frozen = [*trainer.pipeline.vae.parameters(), *trainer.reward.score.descriptor.parameters()]
    learning = {id(parameter) for parameter in trainer.parameters.values()}
    frozen += [p for p in trainer.pipeline.transformer.parameters() if id(p) not in learning]
    assert all(parameter.grad is None for parameter in frozen)
    trainer.batches.close()


def test_ascent_raises_the_reward(tmp_path: Path) -> None:
    """Catches a reward that is descended: the style would be driven out of the pictures."""
    trainer = rewarded(tmp_path, optimizer={"lr": 0.01})
    batch = trainer.batches.take()
    assert trainer.reward is not None
    scores = []
    for _ in range(8):
        found = trainer.reward.rewards(batch, trainer.autocast)
        assert found is not None
        (-found.mean()).backward()
        trainer.apply(-float(found.detach().mean()))
        scores.append(float(found.detach().mean()))
    assert scores[-1] > scores[0] + 0.05
    trainer.batches.close()


def test_nothing_of_it_before_its_first_step(tmp_path: Path) -> None:
    """Catches a weight of 0 that still draws numbers or adds zeros: to the bit the run is one without reward."""
    with_reward = rewarded(tmp_path / "a", reward=reward_config(start_step=2), steps=2)
    config = tiny_config(tmp_path / "b", write_rows(tmp_path / "b" / "rows", 2), "joint", dropout={}, steps=2)
    without = tiny_trainer(config)
    for trainer in (with_reward, without):
        trainer.run()
    assert differing(list(with_reward.parameters.values()), list(without.parameters.values())) == 0
    assert with_reward.reward is not None
    assert [with_reward.config.reward.weight_at(step) for step in (0, 1, 2, 3)] == [0.0, 0.0, 1.0, 1.0]


def test_reward_changes_the_run_and_is_logged(tmp_path: Path) -> None:
    """Catches a reward whose gradient never reaches the optimizer, and a log in which its hacking would not show."""
    changes = reward_config(weight=5.0)
    with_reward = rewarded(tmp_path / "a", reward=changes, steps=2)
    without = rewarded(tmp_path / "b", reward=changes | {"start_step": 9}, steps=2)
    values = [trainer.update() for trainer in (with_reward, without)]
    assert -1 <= values[0]["reward"] <= 1 and values[0]["reward_spread"] >= 0
    assert "reward" not in values[1]
    assert values[0]["loss"] == values[1]["loss"]
    assert differing(list(with_reward.parameters.values()), list(without.parameters.values())) > 0
    for trainer in (with_reward, without):
        trainer.batches.close()


def test_every_so_many_steps_and_no_styles(tmp_path: Path) -> None:
    """Catches a reward for a sample whose style was left out: it would be judged against nothing."""
    trainer = rewarded(tmp_path, reward=reward_config(start_step=4, every=3), dropout={"style": 1.0})
    assert trainer.reward is not None
    assert [bool(trainer.config.reward.weight_at(step)) for step in range(4, 11)] == [True, False, False] * 2 + [True]
    assert trainer.reward.rewards(trainer.batches.take(), trainer.autocast) is None
    trainer.batches.close()


def test_decode_size_keeps_the_picture(tmp_path: Path) -> None:
    """Catches a crop or a blank where a smaller decode was asked for."""
    pipeline = training_pipeline()
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 1), reward=reward_config(decode_size=32))
    reward = StyleReward(pipeline, config.reward, judge(), 0)
    latents = torch.randn(1, 16, 8, 6, generator=generator(0, "test"))
    smaller = reward._resized(latents)
    assert smaller.shape == (1, 16, 4, 3)
    assert torch.allclose(smaller.mean((2, 3)), latents.mean((2, 3)), atol=0.2)
    assert reward._resized(smaller) is smaller
    assert pipeline.to_pixels(smaller).shape == (1, 3, 32, 24)
    assert torch.equal(unpack(pack(latents), 64, 48), latents)


def test_descriptors_by_name() -> None:
    """Catches a wrong name that is found out after the weights were loaded, and a descriptor that learns."""
    descriptor = load_descriptor(MEAN_COLOUR, None, CPU)
    assert not any(parameter.requires_grad for parameter in descriptor.parameters())
    for name in (
        "tests.training.losses.test_reward",
        "tests.none:mean_colour",
        "tests.training.losses.test_reward:None_",
    ):
        with pytest.raises(ConfigError, match="was not found"):
            load_descriptor(name, None, CPU)


def test_held_out_scores_are_of_another_descriptor(tmp_path: Path) -> None:
    """Catches a held-out score that is the reward itself: hacking would look like success."""
    from uso.training.data.samples import read_samples
    from uso.training.loop.pictures import Validation, style_scores

    rows = write_rows(tmp_path / "rows", 1)
    config = tiny_config(tmp_path, rows, validation={"every": 1, "steps": 1, "count": 1})
    pipeline = training_pipeline()
    samples = read_samples(rows, config.data, ("style", "content"))
    cache = tiny_batches(pipeline, config).features
    assert isinstance(cache, FeatureCache)
    validation = Validation(pipeline, config, samples, cache)
    trainer = Trainer(pipeline, config, tiny_batches(pipeline, config))
    drawn = list(validation.draw(trainer.autocast))
    other = StyleScore(nn.Sequential(MeanColour(), nn.Hardtanh(-0.1, 0.1)).requires_grad_(False), CPU)
    scores = style_scores(drawn, Judges(judge(), other).by_name(), CPU)
    modes = {"style", "content_style", "layout_style"}
    assert set(scores) == {f"validation/{name}/{mode}" for name in ("style", "style_held_out") for mode in modes}
    assert scores["validation/style/style"] != scores["validation/style_held_out/style"]
    trainer.batches.close()


def test_vectors_of_references_do_not_pile_up(tmp_path: Path) -> None:
    """Catches a device that fills up with the vector of every style picture of the data."""
    write_rows(tmp_path, 3)
    score = judge()
    for number in range(3):
        score.score(torch.ones(1, 3, 8, 8), ((tmp_path / f"style-{number}.png",),))
    one = score._vectors.bytes // 3
    assert (len(score._vectors), one) == (3, 12)  # three numbers each, in host memory, within a limit
    score._vectors.limit = 2 * one
    write_rows(tmp_path / "more", 1)
    score.score(torch.ones(1, 3, 8, 8), ((tmp_path / "more" / "style-0.png",),))
    assert score._vectors.bytes <= 2 * one
