"""`python -m tools.demo evaluate`: refusals, and a whole report."""

import json
from pathlib import Path

import pytest

from tests.support.drawn import needs_font
from tools.demo.__main__ import main
from tools.demo.judge.material import FIRST
from tools.demo.judge.report import LEGEND

pytestmark = needs_font


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--count", "0"], "--count is 0"),
        (["--batch", "0"], "--batch is 0"),
        (["--model", "none-such"], "There is no model"),
        (["--judge", "no/such/judge.safetensors"], "There is no judge"),
        (["--before", "no/such/folder"], "holds no projector.safetensors"),
        (["--only", "seen,old-styles"], "there is no condition 'old-styles'"),
        (["--size", "128x128,192x128"], "'128x128,192x128' is no size"),
    ],
    ids=["count", "batch", "model", "judge", "before", "only", "size"],
)
def test_command_refuses(flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is loaded, in a sentence."""
    assert main(["evaluate", *flags]) == 2
    captured = capsys.readouterr()
    assert reason in captured.err and captured.out == ""


@pytest.mark.parametrize(("flag", "value"), [("--steps", "0"), ("--guidance", "99")])
def test_command_refuses_what_the_model_does_not_take(
    flag: str, value: str, judge_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--judge", str(judge_file), flag, value]) == 2
    assert "allowed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("few_examples")
def test_command_measures_the_demo_model(tmp_path: Path, judge_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches flags that do not arrive; the demo model beside itself must score as itself."""
    flags = {
        "--judge": judge_file,
        "--count": 2,
        "--batch": 2,
        "--steps": 1,
        "--guidance": 2,
        "--before": "assets/demo-model",
        "--pictures": tmp_path / "pictures",
        "--json": tmp_path / "numbers" / "report.json",
    }
    assert main(["evaluate", *(str(part) for pair in flags.items() for part in pair)]) == 0
    captured = capsys.readouterr()
    assert "2 pictures per condition, 128 x 128, 1 steps, guidance 2" in captured.out
    assert captured.out.rstrip().endswith(LEGEND) and "two-styles: 2 of 2" in captured.err
    report = json.loads((tmp_path / "numbers" / "report.json").read_text(encoding="utf-8"))
    assert (report["settings"]["steps"], report["settings"]["guidance"], report["settings"]["seed"]) == (1, 2, FIRST)
    assert set(report["settings"]["models"]) == {"before", "after"}
    assert report["settings"]["autoencoder_psnr_of_all_kinds"] >= 27  # what was asked of the shipped one
    for score in report["scores"]:
        assert score["models"]["before"] == pytest.approx(score["models"]["after"], abs=1e-6)
    assert len(list((tmp_path / "pictures").glob("*/*/*.png"))) == 8 * 2 * 2
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 8
