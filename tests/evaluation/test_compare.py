"""`bench --compare`: both ways make the same requests, and the distances and the sheet are of these pictures."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from uso.cli.main import main
from uso.config import load_model_config
from uso.errors import ConfigError
from uso.evaluation import compare as module
from uso.evaluation.compare import compare


def arguments(folder: Path, **changed: Any) -> argparse.Namespace:
    values = {
        "compare": str(folder), "model": "demo", "device": "cpu", "dtype": "auto", "memory": "auto", "speed": None,
        "compile": "off", "size": None, "steps": None, "schedule": None, "prompt": None, "content": None,
        "style": None, "seeds": 2, "real_weights": True, "weights": None, "add_lora": None,
    }  # fmt: skip
    return argparse.Namespace(**values | changed)


@pytest.mark.slow
def test_fewer_steps_are_told_beside_the_released_model_with_as_few(tmp_path: Path) -> None:
    """Catches pictures of other seeds, a LoRA that is folded into the released model too, and columns that are
    swapped: a LoRA of strength 0 leaves as much as fewer steps do, one of strength 1 does not."""
    lora = tmp_path / "few.safetensors"
    own = load_model_config("demo").components["lora"].local_path
    save_file(load_file(own), lora, metadata={"num_inference_steps": "3", "lora_scale": "0"})
    *lines, last = compare(arguments(tmp_path, add_lora=[str(lora)]))
    assert [line["seed"] for line in lines] == [0, 1]
    for line in lines:
        assert line["candidate"] == line["released, 3 steps"]
        assert line["candidate"]["latents_distance"] > 0.01 and line["candidate"]["pixel_difference"] > 0
    assert {name: way["steps"] for name, way in last["ways"].items()} == {
        "released": 8, "released, 3 steps": 3, "candidate": 3,
    }  # fmt: skip
    sheet = np.asarray(Image.open(last["sheet"]))
    side = 128
    columns = [sheet[16 : 16 + side, start : start + side] for start in range(0, 3 * (side + 4), side + 4)]
    assert np.array_equal(columns[1], columns[2]) and not np.array_equal(columns[0], columns[1])
    line, _ = compare(arguments(tmp_path, add_lora=[f"{lora}:1"], seeds=1))
    assert line["candidate"] != line["released, 3 steps"]


@pytest.mark.slow
def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "demo", "--real-weights", "--device", "cpu", "--speed", "fast", "--seeds", "1"]
    assert main(["bench", "--compare", str(tmp_path), *flags]) == 0
    line, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert 0 < line["candidate"]["latents_distance"] < 0.2
    assert Path(last["sheet"]).is_file() and list(last["ways"]) == ["released", "candidate"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"real_weights": False, "speed": "fast"}, "Add --real-weights"),
        ({}, "needs something to compare"),
        ({"speed": "exact,fast"}, "takes one --speed"),
        ({"speed": "fast", "seeds": 0}, "--seeds is 0; 1 to 12"),
    ],
)
def test_flags_that_do_not_go_together(
    wrong: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_pipeline", lambda *args, **options: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=said):
        next(compare(arguments(tmp_path, **wrong)))
