"""Data on disk: rows, the checker that reads them before a run does, shards and files of drawn samples, the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.drawn import needs_font
from tests.support.tiny_training import tiny_config
from tools.demo.shards import shards as shards_module
from tools.demo.shards.files import make_files
from tools.demo.shards.shards import Shards, make_shards
from tools.demo.world.triplets import Miniature, Sample, Triplet
from uso.cli.main import main
from uso.errors import ConfigError, RequestError
from uso.training.data.check import check_rows
from uso.training.data.rows import Row, checked_row, parse_row, read_rows, write_rows
from uso.training.data.samples import read_samples

Values = dict[str, Any]


def row(**changes: Any) -> Values:
    return {"prompt": "A fox.", "content": "a.png", "styles": ["b.png"], "target": "c.png"} | changes


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Image.Image]) -> Path:
    for number, name in enumerate("abc"):
        picture(96, 80, number).save(tmp_path / f"{name}.png")
    return tmp_path


def problems(folder: Path, *rows: Values | str, **options: Any) -> list[str]:
    """What the checker says of a file with these rows."""
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [str(problem) for problem in check_rows(folder / "rows.jsonl", **options).problems]


# Rows


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Catches a label that is lost, or a text that JSON lines break apart."""
    rows = [
        Row(prompt="", content="x/a.png", styles=("b.png", "c.png"), target="d.png", layout="kept"),
        checked_row({"prompt": 'Ein Fuchs\u2028 "im Schnee"\n.', "target": "e.png", "params": {"ink": [0.1, 0.2]}}),
    ]
    write_rows(tmp_path / "deep" / "rows.jsonl", rows)
    assert read_rows(tmp_path / "deep" / "rows.jsonl") == rows
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "It is not JSON"),
        ("[1]", "It is no JSON object"),
        (json.dumps({"promt": "x", "target": "a.png"}), 'There is no "promt". Did you mean "prompt"?'),
        (json.dumps({"prompt": ""}), '"target": Field required'),
        (json.dumps(row(prompt=3)), '"prompt": Input should be a valid string'),
        (json.dumps(row(layout="same")), "\"layout\": Input should be 'kept' or 'moved'"),
    ],
)
def test_a_line_that_is_no_row_is_refused(line: str, says: str, tmp_path: Path) -> None:
    """Catches a typo that would be a condition left out of the whole run."""
    with pytest.raises(RequestError) as error:
        parse_row(line)
    assert str(error.value).startswith(says)
    (tmp_path / "rows.jsonl").write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"rows\.jsonl, line 2: "):
        read_rows(tmp_path / "rows.jsonl")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """Catches an empty run, and an error in somebody else's words."""
    with pytest.raises(RequestError, match="could not be read"):
        read_rows(tmp_path / "nothing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(RequestError, match="hold no row"):
        read_rows(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(RequestError, match="UTF-8"):
        read_rows(tmp_path / "latin.jsonl")


# The checker


def test_good_rows_pass(folder: Path) -> None:
    """Catches a checker that refuses what the trainer takes: kept layouts, also by an instruction, one kind of
    reference or none, shared pictures and targets, labels of one's own, pictures elsewhere. Both read the same rows."""
    good = [
        row(),
        row(prompt="", target="b.png", styles=["a.png"], layout="kept"),
        row(layout="kept", prompt="Transform the style into ink."),
        row(content=None, score=[1, 2], seed="a7"),
        row(styles=None, prompt=""),
        row(content=str(folder / "a.png"), styles=[f"../{folder.name}/b.png"]),
        {"target": "c.png", "sentence": "A fox."},
    ]
    assert problems(folder, *good) == []
    samples = read_samples(folder / "rows.jsonl", tiny_config(folder, folder).data, ("style", "content"))
    assert [sample.moved for sample in samples] == [True, False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"content": "no.png"}, '"content": no.png is not there.'),
        ({"styles": ["c.png", "no.png"]}, '"styles[2]": no.png is not there.'),
        ({"target": "broken.png"}, '"target": broken.png cannot be used: it is damaged or incomplete'),
        ({"target": "text.png"}, '"target": text.png cannot be used: it is not a picture'),
        ({"content": "small.png"}, '"content": small.png has 96 x 40 pixels; the short side needs at least 64.'),
        ({"target": ""}, '"target" names no file'),
        ({"target": "a.png"}, '"content" is the target itself'),
        ({"prompt": "", "layout": "moved"}, '"prompt" is empty though "layout" is "moved"'),
    ],
)
def test_every_kind_of_bad_row_is_named(
    folder: Path, changes: Values, says: str, picture: Callable[..., Image.Image]
) -> None:
    """Catches a row that would stop a run after an hour."""
    whole = (folder / "a.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    picture(96, 40).save(folder / "small.png")
    changed = row(**({"target": "b.png", "styles": ["c.png"]} | changes))
    found = problems(folder, row(), changed, min_side=64)
    assert any(text.startswith("line 2: ") and says in text for text in found), found
    assert all(text.startswith("line 2: ") for text in found)


def test_all_bad_rows_are_named_at_once(folder: Path) -> None:
    """Catches a checker that stops at the first: an hour per mistake."""
    found = problems(folder, row(content="no.png"), "{", row(target="b.png", styles=[]), row(styles=["no.png"]))
    assert [text.split(":")[0] for text in found] == ["line 1", "line 2", "line 4"]


def test_a_lower_limit_may_be_asked_for(folder: Path) -> None:
    """Catches a limit that is not the one that was named."""
    assert problems(folder, row(), min_side=80) == []
    assert len(problems(folder, row(), min_side=81)) == 3


# Drawn samples on disk


@needs_font
def test_files_pass_the_checker_and_hold_the_samples(tmp_path: Path) -> None:
    """Catches pictures under each other's names, and rows that the trainer would refuse."""
    data = Miniature(size=64)
    assert list(make_files(tmp_path, data, 5, first=2)) == [1, 2, 3, 4, 5]
    assert check_rows(tmp_path / "rows.jsonl").problems == ()
    for index, one in enumerate(read_rows(tmp_path / "rows.jsonl"), start=2):
        triplet = data.triplet(index)
        assert (one.prompt, one.layout) == (triplet.prompt, triplet.labels.layout)
        assert one.labels["subject"] == triplet.labels.subject
        assert one.content is not None
        for name, pixels in (
            (one.content, triplet.content),
            (one.styles[0], triplet.style),
            (one.target, triplet.target),
        ):
            with Image.open(tmp_path / name) as opened:
                np.testing.assert_array_equal(np.asarray(opened), pixels)


@needs_font
def test_files_of_two_styles_list_both(tmp_path: Path) -> None:
    """Catches a second style image that no row names, or one under a target's name."""
    data = Miniature(size=64, two_styles=0.5)
    list(make_files(tmp_path, data, 8))
    report = check_rows(tmp_path / "rows.jsonl")
    counts = []
    for index, one in enumerate(read_rows(tmp_path / "rows.jsonl")):
        triplet = data.triplet(index)
        expected = [pixels for pixels in (triplet.style, triplet.style_2) if pixels is not None]
        counts.append(len(expected))
        assert one.style_2 == triplet.labels.style_2
        assert one.labels.get("style_subject_2") == triplet.labels.style_subject_2
        for name, pixels in zip((*one.styles, one.target), (*expected, triplet.target), strict=True):
            with Image.open(tmp_path / name) as opened:
                np.testing.assert_array_equal(np.asarray(opened), pixels)
    assert set(counts) == {1, 2}
    assert report.problems == () and report.pictures == 2 * 8 + sum(counts)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(shards_module, "SHARD", 4)
    return 4


def same(left: Triplet | Sample, right: Triplet | Sample) -> bool:
    names = ("content", "style", "target", "style_2") if isinstance(left, Triplet) else ("picture",)
    pixels = all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)
    return pixels and left.caption == right.caption and left.labels.as_json() == right.labels.as_json()


@needs_font
@pytest.mark.usefixtures("small_shards")
def test_shards_hold_what_the_generator_draws(tmp_path: Path) -> None:
    """Catches a sample under another's number, and two processes that overlap or leave gaps."""
    data = Miniature(size=32)
    for part in (1, 0):
        list(make_shards(tmp_path / "triplets", data, "triplets", 10, first=3, part=part, parts=2))
    stored = Shards.open(tmp_path / "triplets")
    assert len(stored) == 10 and stored.pixels(9).shape == (3, 32, 32, 3)
    assert all(same(stored[index], data.triplet(index + 3)) for index in range(10))
    list(make_shards(tmp_path / "samples", data, "samples", 6))
    singles = Shards.open(tmp_path / "samples")
    assert all(same(singles[index], data.sample(index)) for index in range(6))
    with pytest.raises(IndexError):
        singles[6]


@needs_font
@pytest.mark.usefixtures("small_shards")
def test_shards_of_two_styles_hold_both(tmp_path: Path) -> None:
    """Catches a second style under the target's place, and one that those with one style are given."""
    data = Miniature(size=32, two_styles=0.5)
    list(make_shards(tmp_path / "triplets", data, "triplets", 10))
    stored = Shards.open(tmp_path / "triplets")
    assert stored.definition["data"]["two_styles"] == 0.5
    assert all(stored.pixels(index).shape == (4, 32, 32, 3) for index in range(10))
    assert all(same(stored[index], data.triplet(index)) for index in range(10))
    second = [stored.pixels(index)[3].any() for index in range(10)]
    assert second == ["style_2" in words["labels"] for words in stored.words] and 0 < sum(second) < 10
    list(make_shards(tmp_path / "samples", data, "samples", 2))
    assert Shards.open(tmp_path / "samples").pixels(0).shape == (1, 32, 32, 3)


@needs_font
@pytest.mark.usefixtures("small_shards")
def test_shards_go_on_and_grow(tmp_path: Path) -> None:
    """Catches a run that begins anew, half a shard that is taken for a whole one, and a folder of two kinds of data."""
    data = Miniature(size=32)
    work = make_shards(tmp_path, data, "samples", 8)
    assert next(work) == 4
    work.close()  # killed after one of two
    with pytest.raises(ConfigError, match="lacks 1 shards"):
        Shards.open(tmp_path)
    first = (tmp_path / "shard-00000.npy").stat().st_mtime_ns
    assert list(make_shards(tmp_path, data, "samples", 8)) == [4]
    assert list(make_shards(tmp_path, data, "samples", 10)) == [2]
    assert (tmp_path / "shard-00000.npy").stat().st_mtime_ns == first
    assert len(Shards.open(tmp_path)) == 10
    with pytest.raises(ConfigError, match="holds other data: its kind is samples"):
        list(make_shards(tmp_path, data, "triplets", 10))
    with pytest.raises(ConfigError, match="its count is 10, asked for is 12"):  # its last shard is not whole
        list(make_shards(tmp_path, data, "samples", 12))
    with pytest.raises(ConfigError, match="holds no shards"):
        Shards.open(tmp_path / "elsewhere")


@needs_font
@pytest.mark.usefixtures("small_shards")
def test_shards_of_before_a_number_existed_go_on(tmp_path: Path) -> None:
    """Catches a folder that cannot grow any more because the program has learned to draw more kinds of data."""
    list(make_shards(tmp_path, Miniature(size=32), "triplets", 4))
    path = tmp_path / "definition.json"
    definition = json.loads(path.read_text())
    del definition["data"]["same_pose"], definition["data"]["two_styles"]
    path.write_text(json.dumps(definition))
    with pytest.raises(ConfigError, match="holds other data: its data is"):
        list(make_shards(tmp_path, Miniature(size=32, same_pose=0.5), "triplets", 8))
    assert list(make_shards(tmp_path, Miniature(size=32), "triplets", 8)) == [4]
    assert Shards.open(tmp_path).definition == definition | {"count": 8}  # what was encoded of it is known by this


# The command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "nothing.jsonl"], "could not be read"),
        (
            ["make", "x", "--output", "y", "--csd", "no.bin", "--experts", "none"],
            "There is no experts' configuration 'none'",
        ),
        (["make", "x", "--output", "y", "--csd", "no.bin"], "There is no folder x."),
        (["make", ".", "--output", "y", "--csd", "no.bin"], "no.bin is not there"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a stack trace, and a folder left behind by a call that did nothing."""
    monkeypatch.chdir(tmp_path)
    assert main(["train.data", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
