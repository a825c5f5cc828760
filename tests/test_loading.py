"""Which model, device, dtype and plan are chosen and why; files that do not belong together are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from uso import choices
from uso.choices import choose_device, choose_dtype, choose_model, choose_plan
from uso.config import ModelConfig, load_model_config, with_local_files
from uso.errors import CheckpointError, ConfigError, MissingWeightsError
from uso.loading import load_pipeline
from uso.memory import GIB


def test_auto_runs_the_demo_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    config, reason = choose_model("auto")
    assert config.name == "demo"
    assert reason == "No GPU was found, and FLUX.1-dev needs one."


@pytest.mark.parametrize(
    ("absent", "free", "name", "says"),
    [
        (["transformer", "lora"], 24, "demo", "not on this disk (transformer, lora missing)"),
        ([], 8, "demo", "needs 11 GiB of free GPU memory, and 8.0 GiB are free"),
        ([], 24, "flux-dev", "on this disk, and the GPU can hold it"),
    ],
)
def test_auto_goes_by_the_weights_and_the_memory(
    monkeypatch: pytest.MonkeyPatch, absent: list[str], free: int, name: str, says: str
) -> None:
    monkeypatch.setattr(choices, "choose_device", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(choices.hub, "missing", lambda _: absent)
    monkeypatch.setattr(choices, "free_device_bytes", lambda _: free * GIB)
    config, reason = choose_model("auto")
    assert config.name == name
    assert says in reason


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="There is no model 'typo'. Choose one of: demo, flux-dev"):
        choose_model("typo")
    with pytest.raises(ConfigError, match="There is no device 'tpux'"):
        choose_device("tpux")
    with pytest.raises(ConfigError, match=r"'cuda:99': this machine shows \d+ CUDA devices"):
        choose_device("cuda:99")
    with pytest.raises(ConfigError, match="no dtype 'float8'. Choose one of: auto, bfloat16, float32"):
        choose_dtype("float8", torch.device("cpu"))
    with pytest.raises(ConfigError, match="There is no memory plan 'tiny'"):
        choose_plan("tiny", torch.device("cpu"), 0)


def test_dtype_and_plan_follow_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert choose_dtype("auto", cuda) == torch.bfloat16
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_plan("auto", cpu, 30 * GIB).name == "full"
    monkeypatch.setattr(choices, "free_device_bytes", lambda _: 24 * GIB)
    assert choose_plan("auto", cuda, 31 * GIB).name == "offload"
    assert choose_plan("auto", cuda, 18 * GIB).name == "full"


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
