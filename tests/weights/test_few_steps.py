"""LoRAs that distil a model: their own default steps, guidance and strength, and what a person gives wins."""

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from uso.cli.main import main
from uso.config import LoraFile, ModelConfig, load_model_config
from uso.errors import ConfigError
from uso.output import read
from uso.request.request import GenerationRequest
from uso.web.page.inputs import advanced_fields
from uso.weights.few_steps import few_steps
from uso.weights.flags import with_added_loras
from uso.weights.loading import load_pipeline

HYPER = "Hyper-FLUX.1-dev-8steps-lora.safetensors"


def lora(folder: Path, name: str, **metadata: str) -> Path:
    """A LoRA of the demo's shape: its own, so that it fits."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    own = load_model_config("demo").components["lora"].local_path
    save_file(load_file(own), path, metadata=metadata or None)
    return path


def flags(*added: object) -> argparse.Namespace:
    return argparse.Namespace(add_lora=[str(each) for each in added])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (HYPER, (8, 3.5, 0.125)),
        ("hyper-flux.1-dev-16steps-lora.safetensors", (16, 3.5, 0.125)),
        ("Hyper-FLUX.1-dev-8steps-lora-fp16.safetensors", (8, 3.5, 0.125)),
        ("FLUX.1-Turbo-Alpha.safetensors", (8, 3.5, 1.0)),
        ("flux1_dev_turbo_alpha.safetensors", (8, 3.5, 1.0)),
        ("FLUX.1-Turbo-Alpha/diffusion_pytorch_model.safetensors", (8, 3.5, 1.0)),
        (
            "models--alimama-creative--FLUX.1-Turbo-Alpha/snapshots/1bece31/diffusion_pytorch_model.safetensors",
            (8, 3.5, 1.0),
        ),
        ("FLUX.1-Turbo-Alpha/ink.safetensors", None),
        ("Hyper-SDXL-8steps-lora.safetensors", None),
        ("ink.safetensors", None),
    ],
)
def test_known_files(tmp_path: Path, name: str, expected: tuple[int, float, float] | None) -> None:
    """By the names that their authors and others gave them. Catches a LoRA of another kind that shares a folder."""
    found = few_steps(lora(tmp_path, name))
    assert (found and (found.steps, found.guidance, found.strength)) == expected
    assert found is None or "model card" in found.source


def test_a_file_speaks_for_itself(tmp_path: Path) -> None:
    """... even where its name is known."""
    path = lora(tmp_path, HYPER, num_inference_steps="4", guidance_scale="2.5", lora_scale="0.5")
    found = few_steps(path)
    assert found and (found.steps, found.guidance, found.strength) == (4, 2.5, 0.5)
    bare = few_steps(lora(tmp_path, "ink.safetensors", num_inference_steps="6"))
    assert bare and (bare.steps, bare.guidance, bare.strength) == (6, None, 1.0)


@pytest.mark.parametrize("values", [{"num_inference_steps": "few"}, {"num_inference_steps": "4", "lora_scale": "inf"}])
def test_nonsense_does_not_count(tmp_path: Path, values: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert few_steps(lora(tmp_path, "ink.safetensors", **values)) is None
    assert "do not count" in caplog.text and list(values)[-1] in caplog.text


def test_defaults_come_from_it_and_its_strength(tmp_path: Path) -> None:
    config = with_added_loras(load_model_config("flux-dev"), flags(path := lora(tmp_path, HYPER)))
    assert (config.defaults.num_inference_steps, config.defaults.guidance_scale) == (8, 3.5)
    assert config.added_loras == (LoraFile(path=str(path), strength=0.125),)
    assert config.defaults.schedule == "uso"


def test_what_is_given_wins(tmp_path: Path) -> None:
    path = lora(tmp_path, HYPER)
    config = with_added_loras(load_model_config("flux-dev"), flags(f"{path}:1"))
    assert config.added_loras[0].strength == 1
    asked = GenerationRequest.create(config, "A fox.", num_inference_steps=25, guidance_scale=4.0)
    assert (asked.num_inference_steps, asked.guidance_scale) == (25, 4.0)
    unasked = GenerationRequest.create(config, "A fox.")
    assert (unasked.num_inference_steps, unasked.guidance_scale) == (8, 3.5)


def test_the_page_starts_with_them(tmp_path: Path) -> None:
    config = with_added_loras(load_model_config("flux-dev"), flags(lora(tmp_path, HYPER)))
    steps, guidance, _ = advanced_fields(config)
    assert (steps.value, guidance.value) == (8, 3.5)


def test_two_are_refused(tmp_path: Path) -> None:
    one, other = lora(tmp_path, HYPER), lora(tmp_path, "FLUX.1-Turbo-Alpha.safetensors")
    with pytest.raises(ConfigError, match=r"Turbo-Alpha.safetensors each distil .* Add one of them"):
        with_added_loras(load_model_config("flux-dev"), flags(one, other))


def test_values_that_the_model_does_not_take_are_refused(tmp_path: Path) -> None:
    path = lora(tmp_path, "ink.safetensors", num_inference_steps="99")
    with pytest.raises(ConfigError, match="99 steps at guidance 4, as the file's metadata says"):
        with_added_loras(load_model_config("flux-dev"), flags(path))


def test_it_is_folded_at_its_strength_and_recorded(
    demo_config: ModelConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On miniature files: the weights are those of the strength given by hand, and every picture says which LoRA."""
    path = lora(tmp_path, HYPER)
    with caplog.at_level(logging.INFO, logger="uso"):
        config = with_added_loras(demo_config, flags(path))
    assert f"{HYPER}: 8 steps and guidance 3.5 are the defaults" in caplog.text
    made = load_pipeline(config, device="cpu")
    by_hand = load_pipeline(with_added_loras(demo_config, flags(f"{path}:0.125")), device="cpu")
    strong = load_pipeline(with_added_loras(demo_config, flags(f"{path}:1")), device="cpu")

    def matrix(pipeline: Any) -> torch.Tensor:
        return pipeline.transformer.single_transformer_blocks[0].attn.to_q.weight

    assert torch.equal(matrix(made), matrix(by_hand)) and not torch.equal(matrix(made), matrix(strong))
    (record,) = made.provenance["added_loras"]
    assert record["file"] == HYPER and record["strength"] == 0.125
    assert record["few_steps"] == {
        "num_inference_steps": 8,
        "guidance_scale": 3.5,
        "source": "the model card of ByteDance/Hyper-SD",
    }


@pytest.mark.slow
def test_the_command_line_takes_them(tmp_path: Path) -> None:
    path = lora(tmp_path, "few.safetensors", num_inference_steps="3", guidance_scale="1.5", lora_scale="0.25")
    flags = ["--model", "demo", "--device", "cpu", "--add-lora", str(path), "--prompt", "A fox.", "--seed", "1"]
    assert main(["generate", *flags, "--output", str(tmp_path / "a.png")]) == 0
    assert main(["generate", *flags, "--steps", "2", "--output", str(tmp_path / "b.png")]) == 0
    first, second = (read(tmp_path / name).record for name in ("a.png", "b.png"))
    assert (first["request"]["num_inference_steps"], first["request"]["guidance_scale"]) == (3, 1.5)
    assert (second["request"]["num_inference_steps"], second["request"]["guidance_scale"]) == (2, 1.5)
    assert first["model"]["added_loras"][0]["few_steps"]["num_inference_steps"] == 3
