"""The released network's numbers, and that each check sees the mistake it is there for."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from tests.golden import BOUND, MODES, Case, Row, check, check_encoders, check_mode, check_schedules, check_sizes
from uso.pipeline import latents as latents_module
from uso.pipeline import schedule as schedule_module
from uso.pipeline.latents import pack
from uso.pipeline.pipeline import USOPipeline
from uso.transformer.context_embedder import ContextEmbedder


def failed(rows: Sequence[Row]) -> list[str]:
    return [row.what for row in rows if not row.passed]


def test_every_row_passes(golden: Case, golden_pipeline: USOPipeline) -> None:
    rows = list(check(golden, golden_pipeline))
    assert failed(rows) == []
    assert len(rows) == 2 + 1 + len(golden.values["schedules"]) + 1 + 4 + 3 + 3 * len(MODES) + 4


@pytest.mark.slow
def test_script_fails_on_a_wrong_number(golden_folder: Path, tmp_path: Path) -> None:
    """The script must exit 1 when an expected number is not met (here: a shifted schedule entry)."""
    for file in golden_folder.rglob("*"):
        if file.is_file() and file.name != "case.json":
            target = tmp_path / file.relative_to(golden_folder)
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)
    text = (golden_folder / "case.json").read_text()
    assert "0.9745572805404663" in text
    (tmp_path / "case.json").write_text(text.replace("0.9745572805404663", "0.9755"))
    script = Path(__file__).with_name("golden.py")
    run = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout.count("FAILED") == 1
    assert "schedule 1024x1024@25" in next(line for line in run.stdout.splitlines() if "FAILED" in line)


def test_sees_style_after_text(golden: Case, golden_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ContextEmbedder.forward

    def text_first(self: ContextEmbedder, prompt_embeds: torch.Tensor, style_tokens: Any = ()) -> torch.Tensor:
        return torch.cat([right(self, prompt_embeds), *style_tokens], dim=1)

    monkeypatch.setattr(ContextEmbedder, "forward", text_first)
    assert failed(list(check_mode(golden, golden_pipeline, "multi_style"))) == ["multi_style: style leads the context"]


def test_sees_ids_off_by_one(golden: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = golden.load()  # a fresh one: it remembers positions
    right = latents_module.grid_ids
    monkeypatch.setattr(
        latents_module,
        "grid_ids",
        lambda rows, columns, row=0, column=0, **kw: right(rows, columns, row + bool(row), column, **kw),
    )
    assert "reference ids" in failed(list(check_encoders(golden, pipeline)))
    assert "subject: velocity" in failed(list(check_mode(golden, pipeline, "subject")))


def test_sees_lora_left_out(golden: Case) -> None:
    assert "text: velocity" in failed(list(check_mode(golden, golden.load(lora_scale=0.0), "text")))


def test_sees_style_or_reference_dropped(golden: Case, golden_pipeline: USOPipeline) -> None:
    text = golden.condition(golden_pipeline, "text")
    for mode in ("style", "subject"):
        expected = golden.expected[f"{mode}.velocity"]
        with torch.inference_mode():
            (row,) = golden_pipeline.modulation_table(text, torch.tensor([golden.values["velocity_timestep"]]))
            dropped = golden_pipeline.velocity(text, pack(golden.expected["noise"]), row)
        assert float((dropped - expected).norm() / expected.norm()) > 100 * BOUND


def test_sees_sampled_posterior(golden: Case, golden_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    right = DiagonalGaussianDistribution.__init__

    def sampled(self: DiagonalGaussianDistribution, *args: Any, **kwargs: Any) -> None:
        right(self, *args, **kwargs)
        self.mean = self.sample()

    monkeypatch.setattr(DiagonalGaussianDistribution, "__init__", sampled)
    assert "reference latents" in failed(list(check_encoders(golden, golden_pipeline)))


def test_sees_flux_schedule(golden: Case, golden_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    right = schedule_module.schedule_mu
    monkeypatch.setattr(schedule_module, "schedule_mu", lambda schedule, height, width: right("flux", height, width))
    assert "schedule 1024x1024@25" in failed(list(check_schedules(golden)))


def test_sees_a_changed_fit(golden: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding instead of cutting off, the obvious "improvement" of the released arithmetic."""
    import tests.golden as script

    monkeypatch.setattr(
        script, "fitted_size", lambda w, h, long: (None, tuple(round(s * long / max(w, h)) // 16 * 16 for s in (w, h)))
    )
    assert any("fitted sizes" in what for what in failed(list(check_sizes(golden))))
