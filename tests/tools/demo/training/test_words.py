"""Words that name the style as a second teacher of the projector."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from tests.support.tiny_parts import SIDE, shards
from tests.support.tiny_training import tiny_config, tiny_trainer, write_rows
from tools.demo.shards.samples import shard_samples, text_of
from tools.demo.shards.shards import Shards
from tools.demo.training.config import load_stage
from tools.demo.training.words import NAMED, Words
from uso.errors import ConfigError
from uso.forecast.meta_model import MetaModel
from uso.pipeline.latents import pack
from uso.training.activations import example_batch
from uso.training.forecast import dry_run
from uso.training.losses.flow import conditioning_of, draw_levels, noised, predict
from uso.training.losses.seeds import generator
from uso.training.losses.teacher import make_teacher
from uso.training.model.load import training_model
from uso.training.prepare import read_data


def test_the_error_against_the_answer_to_words_is_added(tmp_path: Path) -> None:
    """Catches an answer that sees the style's picture, that is given at other levels, or that gradients go through."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), "stage1")
    trainer = tiny_trainer(config)
    trainer.teacher = Words(config.model_copy(update={"teacher_options": {"weight": 0.5}}))
    pipeline, batch = trainer.pipeline, trainer.batches.take()
    trainer.batches.close()
    assert NAMED not in batch.prompts
    flow = trainer.flow_loss(batch)
    words = (0.5 * batch.prompt_embeds, 0.5 * batch.pooled)
    both = trainer.flow_loss(replace(batch, prompts={NAMED: words}))
    draw = generator(config.seed, "flow", batch.number)
    levels = draw_levels(config.flow, batch.size, batch.height, batch.width, draw)
    tokens = pack(noised(batch.latents, torch.randn(batch.latents.shape, generator=draw), levels))
    told = replace(batch, prompt_embeds=words[0], pooled=words[1], styles=())
    seen, answer = (
        predict(pipeline, conditioning_of(pipeline, one, config.guidance), tokens, levels) for one in (batch, told)
    )
    assert not answer.requires_grad
    assert torch.allclose(both, flow + 0.5 * mse_loss(seen, answer), rtol=1e-5)
    assert (both > flow + 1e-4).item()
    both.backward()
    assert all(parameter.grad is not None for parameter in trainer.parameters.values())


def test_the_words_are_those_of_the_target_with_its_style(tmp_path: Path) -> None:
    opened = Shards.open(shards(tmp_path / "triplets", "triplets", 4))
    sides = [f"data.resolution={SIDE}", f"data.content_size={SIDE}"]
    samples = shard_samples(opened, load_stage("stage1-mini", sides))
    for sample, words in zip(samples, opened.words, strict=True):
        assert sample.features.prompt.prompt == words["sentence"]
        assert sample.features.prompts[NAMED].prompt == text_of(words, "caption") == words["caption"]
    without = shard_samples(opened, load_stage("stage1-mini", ["teacher=null", *sides]))
    assert not any(sample.features.prompts for sample in without)


def test_the_forecast_counts_the_answer_to_words() -> None:
    """Catches a forecast, and a benchmark, of a run without it: one pass more, without the style's tokens."""
    plain = load_stage("stage1-mini", ["teacher=null"])
    flops, base = dry_run(load_stage("stage1-mini")).flops, dry_run(plain).flops
    assert base < flops < 1.5 * base
    pipeline = MetaModel.from_config(training_model(plain), torch.float32).pipeline
    for config in (plain, load_stage("stage1-mini")):
        batch = example_batch(pipeline, config, (128, 128), (128, 128), 4)
        assert (NAMED in batch.prompts) == (config.teacher is not None)


def test_words_are_refused_where_there_are_none_or_no_projector_learns_alone(tmp_path: Path) -> None:
    teacher, options = "tools.demo.training.words:Words", "teacher_options={}"
    with pytest.raises(ConfigError, match=r"teacher must not be .*words:Words where more than the projector learns"):
        make_teacher(load_stage("joint-mini", [f"teacher={teacher}", options]))
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), "stage1", teacher=teacher)
    with pytest.raises(ConfigError, match=r"teacher must be null where data\.rows are files"):
        read_data(config)


@pytest.mark.parametrize(
    ("option", "message"), [("wieght=1", "wieght"), ("weight=-1", "weight"), ("weight=0", "weight")]
)
def test_options_are_checked(option: str, message: str) -> None:
    """Catches an option that is dropped in silence: its dictionary is free in the config."""
    with pytest.raises(ConfigError, match=rf"teacher_options\.{message}: "):
        make_teacher(load_stage("stage1-mini", [f"teacher_options.{option}"]))
