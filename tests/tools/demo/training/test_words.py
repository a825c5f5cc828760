"""Words that name the style as a second teacher of the projector."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from tests.support.tiny_parts import SIDE, shards
from tests.support.tiny_training import tiny_config, tiny_trainer, write_rows
from tools.demo.shards.shards import Shards
from tools.demo.shards.source import said, shard_samples
from uso.errors import ConfigError
from uso.forecast.meta_model import MetaModel
from uso.pipeline.latents import pack
from uso.training.activations import example_batch
from uso.training.command import read_rows
from uso.training.config import load_training_config
from uso.training.forecast import dry_run
from uso.training.losses.flow import draw_levels, noised
from uso.training.losses.network import conditioning_of, predict
from uso.training.losses.seeds import generator
from uso.training.model.load import training_model


def test_the_error_against_the_answer_to_words_is_added(tmp_path: Path) -> None:
    """Catches an answer that sees the style's picture, that is given at other levels, or that gradients go through."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), "stage1", words=0.5)
    trainer = tiny_trainer(config)
    pipeline, batch = trainer.pipeline, trainer.batches.take()
    trainer.batches.close()
    assert batch.named is None
    flow = trainer.flow_loss(batch)
    words = (0.5 * batch.prompt_embeds, 0.5 * batch.pooled)
    both = trainer.flow_loss(replace(batch, named=words))
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
    samples = shard_samples(opened, load_training_config("stage1-mini", ["words=1.0", *sides]))
    for sample, words in zip(samples, opened.words, strict=True):
        assert sample.features.prompt.prompt == words["sentence"]
        named = sample.features.named
        assert named is not None and named.prompt == said(words, "caption") == words["caption"]
    without = shard_samples(opened, load_training_config("stage1-mini", ["words=0", *sides]))
    assert all(sample.features.named is None for sample in without)


def test_the_forecast_counts_the_answer_to_words() -> None:
    """Catches a forecast, and a benchmark, of a run without it: one pass more, without the style's tokens."""
    plain = load_training_config("stage1-mini", ["words=0"])
    flops, base = dry_run(load_training_config("stage1-mini")).flops, dry_run(plain).flops
    assert base < flops < 1.5 * base
    pipeline = MetaModel.from_config(training_model(plain), torch.float32).pipeline
    for config in (plain, load_training_config("stage1-mini")):
        batch = example_batch(pipeline, config, (128, 128), (128, 128), 4)
        assert (batch.named is not None) == (config.words > 0)


def test_words_are_refused_where_there_are_none_or_no_projector_learns_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="words must be 0 where more than the projector learns"):
        load_training_config("joint-mini", ["words=1.0"])
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows"), "stage1", words=0.5)
    with pytest.raises(ConfigError, match=r"words must be 0 where data\.rows are files"):
        read_rows(config)
