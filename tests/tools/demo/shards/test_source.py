"""Drawn triplets as training samples: which ways of use are learned, and in which batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny_training import training_pipeline
from tools.demo.parts.captions import captioned
from tools.demo.shards.arrays import name_of
from tools.demo.shards.samples import (
    INSTRUCTED,
    NAMELESS,
    STYLE,
    STYLE_2,
    TEXT_ONLY,
    UNNAMED,
    ShardPicture,
    ShardSample,
    shard_samples,
    text_of,
)
from tools.demo.shards.shards import Shards, make_shards
from tools.demo.shards.source import ShardFeatures, style_features_of
from tools.demo.training.config import load_stage
from tools.demo.training.words import NAMED
from tools.demo.world.triplets import Miniature
from uso.errors import ConfigError
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.data.batches import Batches
from uso.training.data.buckets import Draw
from uso.training.losses.reward import StyleScore
from uso.training.prepare import read_data

SIDE = 32
COUNT = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards")
    for _ in make_shards(folder, Miniature(size=SIDE, plain_triplets=0.5), "triplets", COUNT):
        pass
    return Shards.open(folder)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """With one style, with two, and plain."""
    folder = tmp_path_factory.mktemp("mixed")
    for _ in make_shards(folder, Miniature(size=SIDE, plain_triplets=0.25, two_styles=0.5), "triplets", 4 * COUNT):
        pass
    return Shards.open(folder)


def in_two_styles(shards: Shards) -> set[int]:
    return {index for index, words in enumerate(shards.words) if "style_2" in words["labels"]}


def run(name: str, *overrides: str) -> TrainingConfig:
    return load_stage(name, [f"data.resolution={SIDE}", f"data.content_size={SIDE}", *overrides])


def way(sample: ShardSample) -> tuple[bool, bool]:
    """(content, style)"""
    assert len(sample.styles) == len(sample.features.styles) == sample.shape.styles
    assert (sample.shape.content is None) == (sample.features.content is None)
    return sample.features.content is not None, bool(sample.styles)


def test_plain_triplets_show_the_subject_alone() -> None:
    """The target of a plain triplet is the content picture itself where the layout is kept, in no style."""
    data, styled = Miniature(size=SIDE, plain_triplets=1.0), Miniature(size=SIDE)
    for index in range(8):
        plain, other = data.triplet(index), styled.triplet(index)
        assert plain.labels.style is None and plain.caption == plain.sentence == other.sentence
        assert (plain.content == other.content).all() and (plain.target != other.target).any()
        assert (plain.target == plain.content).all() == (plain.labels.layout == "kept")


def test_every_way_of_use_is_learned(shards: Shards) -> None:
    """Catches a way that nothing teaches, or one that is taught with words of another."""
    samples = shard_samples(shards, run("stage2-mini"))
    assert {way(sample) for sample in samples} == {(True, True), (True, False), (False, True), (False, False)}
    instructed, unnamed = 0, set()
    for sample in samples:
        words, told = shards.words[sample.features.target.index], sample.features.prompt.prompt
        if way(sample) == (True, False) and "style" in words["labels"]:
            assert words["labels"]["layout"] == "kept"  # nothing says where the subject would go
            phrase = words["caption"].split(" of ")[0]
            assert told == text_of(words, "instruction") == f"Transform the style into {phrase}."
            instructed += 1
            continue
        labels = words["labels"]
        if sample.features.content is not None and labels["index"] // 2 % UNNAMED == 0 and labels["layout"] == "moved":
            assert told.endswith(words["prompt"].removeprefix(f"The {labels['subject']}")) and told != words["prompt"]
            unnamed.add(told.split()[1])
            continue
        expected = {(False, True): "sentence", (False, False): "caption"}.get(way(sample), "prompt")
        assert told == words[expected]
    assert 1 < len(unnamed) <= len(NAMELESS) and unnamed <= set(NAMELESS)
    kept = [words["labels"] for words in shards.words[::INSTRUCTED] if words["labels"]["layout"] == "kept"]
    assert instructed == sum("style" in labels for labels in kept) > 0
    assert sum(sample.features.content is not None for sample in samples) == COUNT + instructed
    assert sum(way(sample) == (False, False) for sample in samples) == COUNT // TEXT_ONLY


def test_strangers_are_never_told_by_words_alone(tmp_path: Path) -> None:
    """Catches the name of a stranger being learned, where the picture should be looked at."""
    for _ in make_shards(tmp_path, Miniature(size=SIDE, strangers=0.5), "triplets", 2 * COUNT):
        pass
    shards = Shards.open(tmp_path)
    strange = {index for index, words in enumerate(shards.words) if words["labels"].get("stranger")}
    samples = shard_samples(shards, run("stage2-mini"))
    assert {way(s) for s in samples if s.features.target.index in strange} <= {(True, True), (True, False)}
    assert {way(s) for s in samples if s.features.target.index not in strange} >= {(False, True), (False, False)}
    assert strange <= {s.features.target.index for s in samples}
    told = {s.features.target.index for s in shard_samples(shards, run("stage1-mini"))}
    assert told == {index for index, _ in captioned(shards)[0]} == set(range(2 * COUNT)) - strange


def test_strangers_alone_are_refused_where_nobody_sees_them(tmp_path: Path) -> None:
    for _ in make_shards(tmp_path, Miniature(size=SIDE, strangers=1.0), "triplets", 2):
        pass
    assert shard_samples(Shards.open(tmp_path), run("stage2-mini"))
    with pytest.raises(ConfigError, match="shows strangers alone"):
        shard_samples(Shards.open(tmp_path), run("stage1-mini"))
    with pytest.raises(ConfigError, match="shows strangers alone"):
        captioned(Shards.open(tmp_path))


def test_without_content_words_say_what_is_there(shards: Shards) -> None:
    samples = shard_samples(shards, run("stage1-mini"))
    assert [way(sample) for sample in samples] == [(False, True)] * COUNT
    assert all(s.features.prompt.prompt == words["sentence"] for s, words in zip(samples, shards.words, strict=True))


# Two styles


@pytest.mark.parametrize("name", ["stage1-mini", "stage2-mini"])
def test_triplets_with_two_styles_are_read_with_both(mixed: Shards, name: str) -> None:
    """Catches a target in two styles that is learned from one of them, and one that is learned from none."""
    two = in_two_styles(mixed)
    samples = shard_samples(mixed, run(name, "data.max_styles=2"))
    assert two and two <= {sample.features.target.index for sample in samples}
    for sample in samples:
        index, styles = sample.features.target.index, len(sample.features.styles)
        assert len(sample.styles) == styles == sample.shape.styles
        assert [feature.slot for feature in sample.features.styles] == [STYLE, STYLE_2][:styles]
        assert [picture.slot for picture in sample.styles] == [STYLE, STYLE_2][:styles]
        assert styles in ((0, 2) if index in two else (0, 1))
        told = sample.features.prompt.prompt
        if index in two and styles == 0:  # words must name both
            assert told == mixed.words[index]["caption"] and " and " in told.split(" of ")[0]
        assert NAMED not in sample.features.prompts or index not in two
    ways = {way(sample) for sample in samples if sample.features.target.index in two}
    assert ways == ({(False, True)} if name == "stage1-mini" else {(True, True), (False, True), (False, False)})


@pytest.mark.parametrize("name", ["stage1-mini", "stage2-mini"])
def test_a_run_that_reads_one_style_leaves_those_with_two_out(mixed: Shards, name: str) -> None:
    """Catches a silent half of the data, and other ways of use of the rest than without them."""
    both, one = (shard_samples(mixed, run(name, f"data.max_styles={most}")) for most in (2, 1))
    two = in_two_styles(mixed)
    assert one == [sample for sample in both if sample.features.target.index not in two]
    reports: list[str] = []
    folder = f"data.rows={mixed.folder}"
    read_data(run(name, folder, "data.max_styles=1"), reports.append)
    assert f"{len(two)} of {len(mixed)} triplets have two styles and are left out. Read: data.max_styles=2." in reports
    assert not any("two styles" in line for line in reports[1:])
    reports.clear()
    read_data(run(name, folder, "data.max_styles=2"), reports.append)
    assert not any("two styles" in line for line in reports)


def test_two_styles_throughout_are_refused_where_one_is_read(tmp_path: Path) -> None:
    for _ in make_shards(tmp_path, Miniature(size=SIDE, two_styles=1.0), "triplets", 2):
        pass
    for name in ("stage1-mini", "stage2-mini"):
        with pytest.raises(ConfigError, match=r"shows two styles throughout.*data\.max_styles=2"):
            shard_samples(Shards.open(tmp_path), run(name, "data.max_styles=1"))


@pytest.fixture(scope="module")
def pipeline() -> USOPipeline:
    found = training_pipeline()
    found.model_config = found.model_config.model_copy(update={"max_sequence_length": 64})
    return found


def test_batches_hold_the_features_of_both_styles(mixed: Shards, pipeline: USOPipeline, tmp_path: Path) -> None:
    """Catches a slot read for another, and a picture under another one's feature."""
    config = run("stage2-mini", "data.max_styles=2", "micro_batch=4", "compile=false")
    samples, two = shard_samples(mixed, config), in_two_styles(mixed)
    batches = Batches(samples, ShardFeatures(pipeline, mixed, tmp_path, config.reads), config)
    numbers = [n for n, sample in enumerate(samples) if way(sample) == (True, True) and sample.shape.styles == 2]
    assert {samples[number].features.target.index for number in numbers} == two
    batch = batches.collate([Draw(number, True, True, True) for number in numbers[:3]], 0)
    assert len(batch.styles) == 2
    for row, number in enumerate(numbers[:3]):
        index = samples[number].features.target.index
        for place, slot in enumerate((STYLE, STYLE_2)):
            assert batch.style_pictures[row][place] == ShardPicture(mixed, index, slot)
            states = pipeline.style_features(Image.fromarray(np.asarray(mixed.pixels(index)[slot])))
            for layer, kept in batch.styles[place].items():
                state = states[layer]
                assert state is not None and torch.allclose(kept[row], state[0].float(), atol=0.02)
                assert not torch.allclose(batch.styles[1 - place][layer][row], state[0].float(), atol=0.02)
    batches.close()


def test_the_reward_of_two_styles_is_the_mean_of_both(mixed: Shards) -> None:
    """Catches a reward for the first style alone: by hand, of a descriptor that knows mean colours."""

    class Colours(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(pixels.mean(dim=(2, 3)) + 1, dim=1)

    config = run("stage2-mini", "data.max_styles=2")
    styles = next(sample.styles for sample in shard_samples(mixed, config) if len(sample.styles) == 2)
    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    score = StyleScore(Colours(), torch.device("cpu"))
    both, first, second = (float(score.score(pixels, (pictures,))) for pictures in (styles, styles[:1], styles[1:]))
    assert both == pytest.approx((first + second) / 2, abs=1e-6) and abs(first - second) > 1e-4


def test_features_of_folders_from_before_keep_their_name(tmp_path: Path, pipeline: USOPipeline) -> None:
    """Catches hours of encoding anew because the program has learned to draw a second style."""
    for _ in make_shards(tmp_path / "triplets", Miniature(size=SIDE), "triplets", 2):
        pass
    path = tmp_path / "triplets" / "definition.json"
    definition = json.loads(path.read_text())
    del definition["data"]["two_styles"]
    path.write_text(json.dumps(definition))
    old = Shards.open(tmp_path / "triplets")
    found = style_features_of(pipeline, old, tmp_path / "cache")
    size = pipeline.image_encoder.config.image_size
    assert found.folder.name == name_of("styles", old, (1,), pipeline.image_encoder, size) and len(found[0]) == 1
