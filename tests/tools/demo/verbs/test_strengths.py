"""`python -m tools.demo strengths`: refusals, a whole run at the smallest size, and the plot."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support.drawn import needs_font
from tools.demo.__main__ import main
from tools.demo.judge.strengths import STRENGTHS, Point, plot
from uso.evaluation.report import Figure


def test_the_plot_shows_every_point() -> None:
    """Catches a scale that is upside down, and a point that is left out."""
    rising = [Point(s, Figure(s / 2, 0, 1, 9), Figure(0, 0, 0, 9), Figure(0.5, 0, 1, 9)) for s in STRENGTHS]
    drawn = ET.fromstring(plot(rising, "a < b".replace("<", "&lt;")))
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in drawn.iter() if dot.tag.endswith("circle")]
    style = dots[: len(STRENGTHS)]
    assert len(dots) == 2 * len(STRENGTHS) and style == sorted(style)
    assert [y for _, y in style] == sorted((y for _, y in style), reverse=True)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--count", "0"], "--count is 0"),
        (["--judge", "no/such"], "There is no judge"),
        (["--model", "no"], "no model"),
    ],
)
def test_command_refuses(flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strengths", *flags]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.slow
@needs_font
@pytest.mark.usefixtures("few_examples")
def test_command_measures(tmp_path: Path, judge_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a strength that does not arrive: without a style its likeness must be another one."""
    flags = ["--judge", str(judge_file), "--count", "2", "--batch", "2", "--json", str(tmp_path / "all.json")]
    assert main(["strengths", str(tmp_path / "plot.svg"), *flags]) == 0
    assert (tmp_path / "plot.svg").read_text().startswith("<svg") and "likeness" in capsys.readouterr().out
    points = json.loads((tmp_path / "all.json").read_text())
    assert [point["strength"] for point in points] == list(STRENGTHS)
    assert len({point["likeness"]["value"] for point in points}) == len(STRENGTHS)
