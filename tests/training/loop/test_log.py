"""The records of a run, and durations for people."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.support.tiny_training import tiny_config
from uso.errors import ConfigError
from uso.training.loop.log import Journal, check_trackers, duration, trackers_of


def test_journal_takes_back_what_is_done_again(tmp_path: Path) -> None:
    """Catches a curve that goes twice over the steps after a checkpoint, and a line that was cut off."""
    journal = Journal(tmp_path, 0, 9, trackers=["tensorboard"])
    for step in (1, 2, 3):
        journal.write(step, {"loss": step / 2})
    journal.close()
    assert list((tmp_path / "tensorboard").iterdir())
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    Journal(tmp_path, 2, 9).close()
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_run_is_logged_to_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a project or a step that is left out, and pictures in an argument that the package does not know; through
    accelerate's own tracker, with a stand-in for the package, which no requirement names."""
    logged: list[Any] = []
    package = ModuleType("wandb")
    run = SimpleNamespace(log=lambda values, step: logged.append((values, step)), finish=lambda: logged.append("end"))

    def init(**options: Any) -> SimpleNamespace:
        logged.append(options)
        return run

    package.__dict__.update(init=init, Image=lambda pixels: pixels.shape)
    monkeypatch.setitem(sys.modules, "wandb", package)
    journal = Journal(tmp_path / "mine", 0, 9, trackers=["wandb:uso"])
    journal.write(1, {"loss": 0.5})
    journal.picture(1, "validation/text-0", Image.new("RGB", (4, 2)))
    journal.close()
    begun, *rest = logged
    assert (begun["project"], begun["name"], begun["resume"]) == ("uso", "mine", "allow")
    assert rest == [({"loss": 0.5}, 1), ({"validation/text-0": [(2, 4, 3)]}, 1), "end"]


def test_a_tracker_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, tmp_path, wandb="uso")
    assert trackers_of(config) == ["wandb:uso"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb; or set wandb=null"):
        check_trackers(config)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="alone with tensorboard=false"):
        check_trackers(tiny_config(tmp_path, tmp_path, tensorboard=True))


def test_durations_are_said_as_people_say_them() -> None:
    """Catches "86400 s left"."""
    assert [duration(seconds) for seconds in (45, 720, 12240, 181440)] == ["45 s", "12 min", "3.4 h", "2.1 days"]
