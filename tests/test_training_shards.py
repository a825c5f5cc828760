"""Drawn triplets as training samples: which ways of use are learned, and in which batches."""

from pathlib import Path

import pytest

from uso.errors import ConfigError
from uso.training.buckets import Shape, epoch_batches
from uso.training.config import DropoutConfig, TrainingConfig, load_training_config
from uso.training.data.miniature.triplets import Miniature
from uso.training.data.shards import Shards, make_shards
from uso.training.demo.captions import captioned
from uso.training.shard_source import INSTRUCTED, NAMELESS, TEXT_ONLY, UNNAMED, ShardSample, said, shard_samples

SIDE = 32
COUNT = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards")
    for _ in make_shards(folder, Miniature(size=SIDE, plain_triplets=0.5), "triplets", COUNT):
        pass
    return Shards.open(folder)


def run(name: str) -> TrainingConfig:
    return load_training_config(name, [f"data.resolution={SIDE}", f"data.content_size={SIDE}"])


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
            assert told == said(words, "instruction") == f"Transform the style into {phrase}."
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


@pytest.mark.parametrize(("whole", "sizes"), [(False, [1, 1, 4, 4, 4]), (True, [4, 4, 4])])
def test_compiled_runs_take_whole_batches(whole: bool, sizes: list[int]) -> None:
    """A batch of another size is another compilation."""
    shapes = [Shape((SIDE, SIDE), None, index % 2) for index in range(10)] + [Shape((SIDE, SIDE), None, 0)] * 4
    batches = epoch_batches(shapes, DropoutConfig(), micro_batch=4, seed=0, epoch=0, whole=whole)
    assert sorted(map(len, batches)) == sizes
    few = epoch_batches(shapes[:2], DropoutConfig(), micro_batch=4, seed=0, epoch=0, whole=whole)
    assert sum(map(len, few)) == 2  # all that there is
