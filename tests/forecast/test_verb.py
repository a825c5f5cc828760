"""The forecast through the real verb: the figures that the plans promise, the table, the size that fits, refusals."""

import json

import pytest
import torch

from tests.forecast.conftest import FLUX_BLOCKS
from uso.cli.main import main
from uso.config import load_memory_plan
from uso.memory.plan import GIB, RESERVE, STAGES

pytestmark = pytest.mark.usefixtures("one_model_of_a_kind")


def verb(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["memory", *flags]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("plan", "size", "device", "host"),
    [
        ("24gb", 1024, 20.5, 30),
        ("24gb", 1536, 22.5, 30),
        ("16gb", 1024, 15.0, 64),
        ("12gb", 1024, 11.0, 64),
        ("8gb", 1024, 7.5, 64),
    ],
)
def test_plans_keep_their_promises(
    plan: str, size: int, device: float, host: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """With content and two styles, as the command line tells it: catches a change that no longer fits the card."""
    request = ["--width", str(size), "--height", str(size), "--content", "1", "--styles", "2", "--steps", "25"]
    told = json.loads(verb(capsys, "--model", "flux-dev", "--memory", plan, *request, "--json"))
    assert told["fits"]
    assert told["device_peak_gib"] <= device
    assert told["device_peak_gib"] == max(stage["peak_gib"] for stage in told["stages"])
    assert told["device_peak_gib"] <= load_memory_plan(plan).device_gib - RESERVE / GIB  # type: ignore[operator]
    assert told["host_pinned_gib"] <= host
    stages = {stage["name"]: stage for stage in told["stages"]}
    assert tuple(stages) == STAGES
    for stage in stages.values():
        assert stage["peak_gib"] == pytest.approx(stage["weights_gib"] + stage["activations_gib"], abs=0.002)
    if plan == "24gb":  # all of the transformer is there while it runs
        assert stages["denoise"]["resident_blocks"] == told["blocks"] == FLUX_BLOCKS
    else:
        assert 0 < stages["denoise"]["resident_blocks"] < FLUX_BLOCKS


def test_table_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a table without its figures."""
    told = verb(capsys, "--model", "demo", "--memory", "24gb", "--content", "1")
    for part in ("128 x 128", "content images: 1", "decode", "8 of 8", "of 22.5 that the plan allows", "Page-locked"):
        assert part in told
    assert "style  " not in told


def test_what_does_not_fit_names_the_size_that_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a refusal without a remedy, and a verb that stays silent about it."""
    flags = ["--model", "demo", "--memory", "8gb"]
    tight = load_memory_plan("8gb").model_copy(update={"device_gib": 0.29})
    monkeypatch.setattr("uso.cli.memory.load_memory_plan", lambda _: tight)
    large = ["--width", "256", "--height", "256"]
    told = json.loads(verb(capsys, *flags, *large, "--json"))
    assert not told["fits"]
    width, height = told["largest_size_that_fits"]
    assert 128 <= width == height < 256
    assert f"It does not fit; {width} x {height} does." in verb(capsys, *flags, *large)
    assert json.loads(verb(capsys, *flags, "--width", str(width), "--height", str(height), "--json"))["fits"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--memory", "24gb", "--width", "1000"], "Width is 1000; it must be a multiple of 16 from 512 to 1536"),
        (["--memory", "24gb", "--content", "1", "--content-size", "9999999"], "Content reference size is 9999999"),
        (["--memory", "24gb", "--model", "nonsense"], "There is no model 'nonsense'"),
        (["--memory", "huge"], "There is no memory plan 'huge'"),
        (["--memory", "auto"], "there is none here. Name a plan"),
    ],
)
def test_verb_refuses_in_a_sentence(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a traceback, a size that no request may have, and `auto` guessed where there is no GPU to ask."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["memory", *flags]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.out == ""
