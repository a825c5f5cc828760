"""The benchmarks as they are shipped: what they count, what they name, and where it comes from."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.drawn import needs_font
from tools.demo.world.styles import STYLES
from tools.examples import bench_styles
from uso.config import ROOT
from uso.errors import ConfigError
from uso.evaluation.bench.config import TYPES, bench_names, load_bench_config, prompts, references, worded
from uso.evaluation.bench.prepare import Made, entries_of


def made(name: str) -> Made:
    picture = references().pictures[name]
    return Made(name, picture.kind, picture.word, (b"",), {})


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mini", {"subject": 144, "style": 144, "joint-kept": 72, "joint-moved": 72}),
        ("full", {"subject": 6000, "style": 6000, "joint-kept": 2500, "joint-moved": 2500}),
    ],
)
def test_a_benchmark_asks_for_what_its_file_says(name: str, counts: dict[str, int]) -> None:
    """Catches a list that lost a part, and names that two pictures would share."""
    config = load_bench_config(name)
    rows = entries_of(config, [made(each) for each in config.contents], [made(each) for each in config.styles])
    assert sum((Counter({row["task"]: row["images"]}) for row in rows), Counter()) == counts
    assert len({row["save_dir"] for row in rows}) == len(rows)
    for row in rows:
        assert (row["prompt"] == "") == (row["task"] == "joint-kept")
        assert "{" not in row["prompt"] and not re.search(r"\ba [aeiou]", row["prompt"])
    used = Counter(row["style"] for row in rows if row["task"] == "joint-kept")
    assert len(set(used.values())) == 1, "every style is taken as often as another"


def test_every_reference_says_where_it_comes_from() -> None:
    """Catches a picture of no stated author or licence, and one of this repository that changed."""
    for name, picture in references().pictures.items():
        assert picture.author and picture.source, name
        assert re.match(r"public domain|CC0-1\.0|CC-BY(-SA)?-\d|Apache-2\.0", picture.licence), name
        assert (picture.kind == "style") == (picture.word == ""), name
        assert picture.package is None or picture.package in references().packages, name
        if picture.package is None:
            assert hashlib.sha256((ROOT / picture.file).read_bytes()).hexdigest() == picture.sha256, name


def test_wheels_are_of_the_versions_that_are_required() -> None:
    """Catches references that a fresh machine would fetch again, in another version than the one it just installed."""
    pins = "".join((ROOT / f"requirements{name}.txt").read_text() for name in ("-dev", "-evaluate"))
    for name, package in references().packages.items():
        assert f"{name}==" not in pins or f"{name}=={package.version}" in pins


def test_both_kinds_have_prompts_of_every_type() -> None:
    """Catches a benchmark that asks for more prompts than there are."""
    for kind in ("person", "object"):
        assert len(prompts().for_content(kind, 10)) == 10 * len(TYPES)
    with pytest.raises(ConfigError, match="There are 10 person descriptive prompts, not 11"):
        prompts().for_content("person", 11)


@pytest.mark.parametrize(
    ("template", "word", "text"),
    [
        ("A {word} on a hill.", "owl", "An owl on a hill."),
        ("Sketch style, a {word}.", "cat", "Sketch style, a cat."),
        ("The {word} swims.", "otter", "The otter swims."),
    ],
)
def test_words_take_their_article(template: str, word: str, text: str) -> None:
    assert worded(template, word) == text


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """Catches a misspelt key that would change a benchmark without a word."""
    with pytest.raises(ConfigError, match=f"no benchmark 'x'. Choose {' or '.join(bench_names())}"):
        load_bench_config("x")
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"title": "x", "seed": 1, "stiles": []}))
    with pytest.raises(ConfigError, match="stiles: Extra inputs are not permitted"):
        load_bench_config(str(path))
    path.write_text(yaml.safe_dump({"title": "x", "seed": 1, "styles": ["a", "a"]}))
    with pytest.raises(ConfigError, match="styles: a name is there twice"):
        load_bench_config(str(path))


@needs_font
def test_style_references_are_what_the_tool_draws() -> None:
    """Catches a change of the drawn world after which the tool would write other pictures under the same names."""
    number = next(place for place, style in enumerate(STYLES) if style.name == "marker")
    with Image.open(ROOT / "assets" / "bench" / "marker.webp") as kept:
        apart = np.abs(np.asarray(bench_styles.drawn(number), np.float32) - np.asarray(kept.convert("RGB"), np.float32))
    assert apart.mean() < 6  # of 255: WebP takes a little away
