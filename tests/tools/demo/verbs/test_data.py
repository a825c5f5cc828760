"""`python -m tools.demo data` and `sheet`: drawn data as files and shards, and what they look like."""

from pathlib import Path

import pytest

from tests.support.drawn import needs_font
from tools.demo.__main__ import main
from tools.demo.shards.shards import Shards
from uso.cli.main import main as uso
from uso.images.pixels import open_image
from uso.training.data.rows import read_rows


@needs_font
def test_the_command_draws_checks_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a verb that is not wired, or whose exit status says the opposite."""
    folder, sheet = tmp_path / "data", tmp_path / "sheet.png"
    assert main(["data", str(folder), "--count", "3", "--size", "64"]) == 0
    rows = folder / "rows.jsonl"
    assert capsys.readouterr().out.split() == [str(rows)]
    assert uso(["train.data", "check", str(rows)]) == 0
    assert "3 rows and 9 pictures: all can be used." in capsys.readouterr().out
    assert uso(["train.data", "check", str(rows), "--min-side", "65"]) == 1
    assert "3 of 3 rows cannot be used:" in capsys.readouterr().out
    assert main(["sheet", str(sheet), "--of", "triplets", "--count", "2", "--size", "32"]) == 0
    assert open_image(sheet.read_bytes()).height == 2 * (32 + 4 + 16)
    strange = ["--strangers", "1", "--moved", "1", "--same-pose", "1"]
    assert main(["data", str(folder), "--count", "2", "--size", "64", *strange]) == 0
    assert uso(["train.data", "check", str(rows)]) == 0
    assert all(row.labels["stranger"] and row.labels["same_pose"] for row in read_rows(rows))
    two = ["--two-styles", "1"]
    assert main(["data", str(folder), "--count", "2", "--size", "64", *two]) == 0
    assert all(len(row.styles) == 2 and row.labels["params_2"] for row in read_rows(rows))
    assert main(["sheet", str(sheet), "--of", "triplets", "--count", "2", "--size", "32", *two]) == 0
    assert open_image(sheet.read_bytes()).width == 4 * (32 + 4) + 220
    shaped = ["--sizes", "64x64,96x64", "--every-way"]
    assert main(["data", str(folder), "--count", "2", *shaped]) == 0
    assert uso(["train.data", "check", str(rows)]) == 0
    assert [open_image((folder / row.target).read_bytes()).width for row in read_rows(rows)][-1] == 96
    form = ["--form", "samples", "--part", "1/1"]
    assert main(["data", str(tmp_path / "shards"), "--count", "3", "--size", "32", *form]) == 0
    assert len(Shards.open(tmp_path / "shards")) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data", "x", "--count", "0"], "--count must be at least 1"),
        (["data", "x", "--count", "1", "--split", "all"], "There is no split 'all'"),
        (["data", "x", "--count", "9", "--form", "samples", "--part", "3/2"], "--part is '3/2'"),
        (["data", "x", "--count", "9", "--part", "1/2"], "--part is for shards"),
        (["data", "x", "--count", "9", "--sizes", "100x64"], "--sizes: '100x64' is no size"),
        (["data", "x", "--count", "9", "--form", "samples", "--every-way"], "--sizes and --every-way are for files"),
        (["sheet", "x.jpg"], "must end in .png"),
    ],
)
def test_the_commands_refuse_in_a_sentence(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a stack trace, and a folder left behind by a call that did nothing."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["data", "sheet", "part", "stage", "evaluate", "showcase"])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a verb that is not listed, and a percent sign that argparse takes for a format."""
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0 and f"tools.demo {verb}" in capsys.readouterr().out
