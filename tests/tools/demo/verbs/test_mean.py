"""`python -m tools.demo mean`: weights between those of two runs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tools.demo.__main__ import main
from tools.demo.verbs.mean import PARTS


def folder(path: Path, value: float, columns: int = 3) -> Path:
    for part in PARTS:
        (path / part).parent.mkdir(parents=True, exist_ok=True)
        weight = torch.full((2, columns), value, dtype=torch.bfloat16)
        save_file({"proj.down.weight": weight, "proj.up.weight": weight.clone()}, path / part)
    return path


def test_the_share_is_the_first_folders(tmp_path: Path) -> None:
    """Catches a share that is the other folder's, a mean in the few bits of the files, and a part that is left out."""
    one, other = folder(tmp_path / "one", 1.0), folder(tmp_path / "other", 3.0)
    assert main(["mean", str(one), str(other), str(other), "--share", "0.75"]) == 0  # into one of the two
    for part in PARTS:
        for weight in load_file(other / part).values():
            assert weight.dtype == torch.bfloat16 and weight.unique().tolist() == [1.5]


def test_the_lora_alone_is_made_stronger(tmp_path: Path) -> None:
    """Catches a scale that is squared, for it is in both factors, and one that reaches projector or image encoder."""
    one = folder(tmp_path / "one", 1.0)
    assert main(["mean", str(one), str(one), str(tmp_path / "out"), "--lora-scale", "1.5"]) == 0
    for part in PARTS:
        weights = load_file(tmp_path / "out" / part)
        product = weights["proj.up.weight"] * weights["proj.down.weight"]
        assert product.unique().tolist() == [1.5 if part == "dit_lora.safetensors" else 1.0]


def test_what_has_no_mean_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches half a mean that is written, and tensors that are broadcast to each other's shape."""
    one, wide = folder(tmp_path / "one", 1.0), folder(tmp_path / "wide", 1.0, columns=1)
    for arguments, why in (
        ([one, wide, tmp_path / "out"], "their tensors differ"),
        ([one, tmp_path / "none", tmp_path / "out"], "is not there. Name two folders"),
        ([one, one, tmp_path / "out", "--share", "2"], "--share must be from 0 to 1, not 2."),
        ([one, one, tmp_path / "out", "--lora-scale", "0"], "--lora-scale must be a number above 0, not 0."),
    ):
        assert main(["mean", *map(str, arguments)]) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
