"""A model's files become a pipeline; files that do not belong together, or are nowhere, are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from uso.config import ModelConfig, load_model_config, with_local_files
from uso.errors import CheckpointError, ConfigError, MissingWeightsError
from uso.loading import load_pipeline


def test_loading_reports_rising_shares(demo_config: ModelConfig) -> None:
    seen: list[tuple[str, float]] = []
    load_pipeline(demo_config, device="cpu", on_progress=lambda stage, share: seen.append((stage, share)))
    loading_shares = [share for stage, share in seen if stage.startswith("Loading")]
    assert loading_shares == sorted(loading_shares)
    assert 0 <= loading_shares[0] < 0.1 and 0.9 < loading_shares[-1] <= 1
    assert len({stage for stage, _ in seen}) >= 6


def test_local_files_replace_components(demo_config: ModelConfig, tmp_path: Path) -> None:
    """A `--vae FILE` of its own is what is loaded and recorded."""
    source = demo_config.components["vae"].local_path
    tensors = load_file(source)
    tensors["decoder.conv_out.bias"] += 1
    own = tmp_path / "my-ae.safetensors"
    save_file(tensors, own)
    pipeline = load_pipeline(with_local_files(demo_config, {"vae": str(own)}), device="cpu")
    assert torch.equal(pipeline.vae.decoder.conv_out.bias, tensors["decoder.conv_out.bias"].float())
    assert pipeline.provenance["components"]["vae"]["file"] == "my-ae.safetensors"
    assert str(tmp_path) not in json.dumps(pipeline.provenance)


def test_diffusers_folders_load_with_their_own_configs(
    demo_pipeline: Any, demo_config: ModelConfig, tmp_path: Path
) -> None:
    """Local folders in the diffusers layout, as a user has FLUX.1-dev on disk: folded once, so no LoRA on top."""
    demo_pipeline.save_pretrained(tmp_path)
    names = ("transformer", "vae", "text_encoder", "text_encoder_2", "image_encoder", "tokenizer", "tokenizer_2")
    files = {name: str(tmp_path / name) for name in names}
    pipeline = load_pipeline(with_local_files(demo_config, files), device="cpu", lora_scale=0.0)
    values: dict[str, Any] = {"width": 128, "height": 128, "num_inference_steps": 1, "seed": 3}
    ours, theirs = pipeline("A fox.", **values).images[0], demo_pipeline("A fox.", **values).images[0]
    assert ours.tobytes() == theirs.tobytes()


def test_files_of_different_models_are_refused(demo_config: ModelConfig, golden_folder: Path) -> None:
    files = {"projector": str(golden_folder / "projector.safetensors")}
    with pytest.raises(CheckpointError, match="do not belong together: the projector's width is 64, not"):
        load_pipeline(with_local_files(demo_config, files), device="cpu")


def test_weights_that_are_nowhere_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="uso download --model flux-dev"):
        load_pipeline(load_model_config("flux-dev"), device="cpu", offline=True)


def test_a_missing_local_path_is_refused(demo_config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="--text-encoder-2 nowhere: there is no such file or folder"):
        with_local_files(demo_config, {"text_encoder_2": "nowhere"})
