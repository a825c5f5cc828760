"""A model's files become a pipeline; files that do not belong together, or are nowhere, are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from uso.config import LoraFile, ModelConfig, load_model_config, with_local_files
from uso.errors import CheckpointError, ConfigError, MissingWeightsError
from uso.forecast.meta_model import MetaModel
from uso.memory.sizes import check_whole
from uso.weights import loading
from uso.weights.choices import DTYPES
from uso.weights.loading import load_pipeline


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_is_chosen_by_what_the_weights_take(
    demo_config: ModelConfig, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Catches a plan chosen by the sizes of files: float32, or fp8 on the disk, takes twice as much."""

    def refuse(name: str, device: torch.device, weight_bytes: int) -> None:
        assert weight_bytes == MetaModel.from_config(demo_config, DTYPES[dtype]).weights().total
        raise ConfigError("asked")

    monkeypatch.setattr(loading, "choose_plan", refuse)
    with pytest.raises(ConfigError, match="asked"):
        load_pipeline(demo_config, device="cpu", dtype=dtype)


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


@pytest.mark.parametrize(("component", "part"), [("image_encoder", "vision_config"), ("text_encoder", "text_config")])
def test_folders_of_whole_models_load(
    component: str, part: str, demo_config: ModelConfig, demo_pipeline: Any, tmp_path: Path
) -> None:
    """Catches a clone of SigLIP's or CLIP's repository, whose config is of both its towers, read as one of the parts:
    transformers then takes its own sizes without a word."""
    module = getattr(demo_pipeline, component)
    module.save_pretrained(tmp_path)
    own = tmp_path / "config.json"
    whole = {"model_type": "both", part: json.loads(own.read_text(encoding="utf-8"))}
    own.write_text(json.dumps(whole), encoding="utf-8")
    loaded = load_pipeline(with_local_files(demo_config, {component: str(tmp_path)}), device="cpu")
    for name, tensor in getattr(loaded, component).state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name].to(tensor)), name
    bare = {name: source for name, source in demo_config.components.items() if name not in ("lora", "projector")}
    config = with_local_files(demo_config.model_copy(update={"components": bare}), {component: str(tmp_path)})
    assert (
        load_pipeline(config, device="cpu").context_embedder.config.image_dim
        == demo_pipeline.image_encoder.config.hidden_size
    )


def test_what_no_memory_holds_is_refused_before_it_is_read(
    demo_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches FLUX on a processor of a small machine: killed by the system after minutes, without a word."""
    memory = psutil.virtual_memory()._replace(available=2**25, total=2**26)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(ConfigError, match=r"takes 0\.1 GiB of memory on cpu, and 0\.0 GiB are free\. Use"):
        load_pipeline(demo_config, device="cpu")
    with pytest.raises(ConfigError, match=r"on mps, and 0\.1 GiB are in this machine"):
        check_whole("The model", MetaModel.from_config(demo_config, torch.float32).weights(), torch.device("mps"))


def test_memory_that_runs_out_while_loading_is_said(demo_config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loading, "tune", full)
    with pytest.raises(ConfigError, match="Memory ran out while the model was loaded. Close other programs"):
        load_pipeline(demo_config, device="cpu")


def smaller(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] = tokenizer["model"]["vocab"][:500]
    tokenizer["added_tokens"] = [each for each in tokenizer["added_tokens"] if each["id"] < 500]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def word_pieces(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {}}}')


@pytest.mark.parametrize(
    ("change", "says"),
    [(smaller, "has 600 tokens, and its encoder knows 1664"), (word_pieces, "not T5's tokenizer")],
)
def test_tokenizers_of_other_models_are_refused(
    demo_config: ModelConfig, tmp_path: Path, change: Any, says: str
) -> None:
    """Catches one that is too small, whose ids are all valid and all wrong."""
    folder = tmp_path / "tokenizer_2"
    shutil.copytree(demo_config.components["tokenizer_2"].local_path, folder)
    change(folder)
    with pytest.raises(CheckpointError, match=says):
        load_pipeline(with_local_files(demo_config, {"tokenizer_2": str(folder)}), device="cpu")


@pytest.mark.parametrize(
    ("component", "config", "says"),
    [
        (
            "vae",
            {"_class_name": "AutoencoderKL", "scaling_factor": 1.5305, "shift_factor": 0.0609},
            "SD3's autoencoder",
        ),
        ("vae", {"_class_name": "AutoencoderTiny"}, "of AutoencoderTiny"),
        ("image_encoder", {"model_type": "siglip", "text_config": {"vocab_size": 256_000}}, "SigLIP 2's"),
        ("text_encoder_2", {"model_type": "umt5"}, "of umt5"),
    ],
)
def test_a_config_of_another_model_beside_the_only_file(
    demo_config: ModelConfig, tmp_path: Path, component: str, config: dict[str, Any], says: str
) -> None:
    source = demo_config.components[component].local_path  # type: ignore[index]
    file = next(source.rglob("*.safetensors")) if source.is_dir() else source
    shutil.copy(file, tmp_path / "my-own.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=says):
        load_pipeline(with_local_files(demo_config, {component: str(tmp_path / "my-own.safetensors")}), device="cpu")


def test_the_base_is_checked_before_a_lora_is_blamed(demo_config: ModelConfig, tmp_path: Path) -> None:
    lora = tmp_path / "wide.safetensors"
    name = "diffusion_model.double_blocks.0.img_attn.proj"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}, lora)
    config = demo_config.model_copy(update={"added_loras": (LoraFile(path=str(lora)),)})
    with pytest.raises(CheckpointError, match="wide.safetensors does not fit this model"):
        load_pipeline(config, device="cpu")
    tensors = load_file(demo_config.components["transformer"].local_path)
    tensors["txt_in.weight"] = torch.ones(3, 3)
    save_file(tensors, tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match="base.safetensors: txt_in.weight has shape"):
        load_pipeline(with_local_files(config, {"transformer": str(tmp_path / "base.safetensors")}), device="cpu")


def test_a_strength_beyond_all_numbers_is_refused(demo_config: ModelConfig) -> None:
    own = str(demo_config.components["lora"].local_path)
    config = demo_config.model_copy(update={"added_loras": (LoraFile(path=own, strength=1e39),)})
    with pytest.raises(CheckpointError, match="NaN or infinite: a file is damaged, or its strength too high"):
        load_pipeline(config, device="cpu")
