"""Rows as training samples: what the checker lets through can be learned from, and each stage reads what it can use."""

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from tests.conftest import draw_picture
from tests.support.tiny_training import tiny_config, training_pipeline, write_rows
from uso.errors import ConfigError
from uso.training.data.check import check_rows
from uso.training.data.features import FeatureCache
from uso.training.data.samples import read_samples
from uso.training.loop.pictures import Validation
from uso.training.prepare import assemble, read_data


def changed(rows: Path, number: int, **values: Any) -> None:
    """One row of a file, with other values."""
    lines = rows.read_text(encoding="utf-8").splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | values)
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_what_the_checker_passes_is_read(tmp_path: Path) -> None:
    """Catches two readers of one file: a mark at its beginning, and a line separator inside a prompt."""
    rows = write_rows(tmp_path / "rows", 2)
    lines = rows.read_text(encoding="utf-8").replace("a red house 1", "a red\u2028house 1")
    rows.write_text("\ufeff" + lines, encoding="utf-8")
    assert not check_rows(rows, 16, lambda done, total: None, 1).problems
    config = tiny_config(tmp_path, rows)
    samples = read_samples(rows, config.data, config.reads)
    assert [sample.prompt for sample in samples] == ["a red house 0", "a red\u2028house 1"]
    with pytest.raises(ConfigError, match=r"could not be read \(No such file or directory\)\. Name a file of rows"):
        read_samples(tmp_path / "none.jsonl", config.data, config.reads)


def test_without_content_the_sentence_is_the_prompt(tmp_path: Path) -> None:
    """Catches a style alignment that is told nothing: an empty prompt means a layout that it cannot see."""
    rows = write_rows(tmp_path / "rows", 2)
    changed(rows, 0, prompt="", sentence="A house stands.")
    told = {}
    for stage in ("stage1", "stage2"):
        config = tiny_config(tmp_path, rows, stage)
        told[stage] = [sample.prompt for sample in read_samples(rows, config.data, config.reads)]
    assert told == {"stage1": ["A house stands.", "a red house 1"], "stage2": ["", "a red house 1"]}
    changed(rows, 0, sentence=7)
    with pytest.raises(ConfigError, match='line 1: "sentence": Input should be a valid string'):
        read_samples(rows, config.data, config.reads)


def test_a_target_in_two_styles_is_not_learned_from_one(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", 2)
    (style,) = json.loads(rows.read_text(encoding="utf-8").splitlines()[1])["styles"]
    changed(rows, 1, styles=[style, style], style_2="neon")
    one = tiny_config(tmp_path, rows).data.model_copy(update={"max_styles": 1})
    with pytest.raises(ConfigError, match=r"line 2: its target is in two styles.*data\.max_styles=2"):
        read_samples(rows, one, ("style",))
    assert [
        len(sample.styles) for sample in read_samples(rows, one.model_copy(update={"max_styles": 2}), ("style",))
    ] == [1, 2]
    assert len(read_samples(rows, one, ("content",))) == 2


def test_validation_tells_what_a_picture_shows(tmp_path: Path) -> None:
    """Catches modes with words that are drawn without any, because a row keeps its layout."""
    rows = write_rows(tmp_path / "rows", 1)
    changed(rows, 0, prompt="", sentence="A house stands.")
    config = tiny_config(tmp_path, rows, validation={"every": 1, "count": 1})
    pipeline = training_pipeline()
    validation = Validation(pipeline, config, read_data(config)[1], FeatureCache(config.data.cache, pipeline))
    told = {mode: request.prompt for mode, _, request, _ in validation.requests()}
    assert told == {"text": "A house stands.", "content": "A house stands.", "style": "A house stands."} | {
        "content_style": "A house stands.",
        "layout_style": "",
    }
    assert [feature.prompt for feature in validation.features()] == ["", "A house stands."]
    for reads, modes in ((("style",), {"text", "style"}), (("content",), {"text", "content"}), ((), {"text"})):
        validation.config = config.model_copy(update={"reads": reads})
        assert {mode for mode, *_ in validation.requests()} == modes  # what the run cannot do is not drawn


def test_targets_that_are_enlarged_are_told(tmp_path: Path) -> None:
    """Catches a network that learns blur from small pictures without a word."""
    rows = write_rows(tmp_path / "rows", 3)
    draw_picture(40, 24).save(rows.parent / "target-1.png")
    said: list[str] = []
    read_data(tiny_config(tmp_path, rows), said.append)
    assert len(said) == 1 and said[0].startswith("1 of 3 targets have fewer pixels than 32 x 32 and are enlarged: ")


def test_a_projector_alone_learns_from_styles_alone(tmp_path: Path) -> None:
    """Catches a step without anything to learn, hours after the start, and validation that asks for content."""
    rows = write_rows(tmp_path / "rows", 4)
    changed(rows, 1, styles=[])
    changed(rows, 2, content=None)
    changed(rows, 3, prompt="")
    options = {"validation": {"every": 1, "count": 3}}
    said: list[str] = []
    source, drawn = read_data(tiny_config(tmp_path, rows, "stage1", **options), said.append)
    assert [bool(sample.styles) for sample in source.samples] == [True] * 3
    assert said[0].startswith("1 of 4 rows say nothing of what they show")
    assert said[1].startswith("1 of 4 samples have no style picture and are left out")
    assert said[2].startswith("validation.rows names no file") and len(said) == 3
    assert len(drawn) == 3 and drawn[2].content is None
    source, _ = read_data(tiny_config(tmp_path, rows, "stage2", **options))
    assert len(source.samples) == 4
    assert read_data(tiny_config(tmp_path, rows, "stage2"), said.append)[1] == [] and len(said) == 3
    for number in range(4):
        changed(rows, number, content=None)
    assert len(read_data(tiny_config(tmp_path, rows, "stage1", **options))[1]) == 3
    with pytest.raises(ConfigError, match="no row has a content picture, and the run reads one"):
        read_data(tiny_config(tmp_path, rows, "stage2"))


def test_nobody_encodes_before_all_have_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a process that shares out what another has begun to encode: some features would be nobody's."""
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 2))
    waits = []

    def wait(process: PartialState) -> None:
        waits.append(sum(path.is_file() for path in (tmp_path / "cache").rglob("*.safetensors")))

    monkeypatch.setattr(PartialState, "wait_for_everyone", wait)
    source, held_out = read_data(config)
    trainer = assemble(training_pipeline(), config, source, held_out, PartialState(cpu=True))
    trainer.batches.close()
    assert waits[:2] == [0, 0] and waits[2] > 0  # after hashing, after listing, after encoding
