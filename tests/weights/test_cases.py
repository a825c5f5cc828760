"""Tiny files of many kinds, as other programs write them, in `../shared/cases`: each does what its table says.

They are one tiny model in other layouts. Without that folder the tests are skipped; the same kinds are written and read
in `formats/test_kinds.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from uso.config import ROOT, LoraFile, ModelConfig, load_model_config
from uso.errors import USOError
from uso.weights import checkpoints
from uso.weights.loading import load_pipeline

CASES = ROOT.parent / "shared" / "cases" / "files"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the files lie beside the checkout alone")

LOADERS: dict[str, Callable[..., Any]] = {
    "transformer": checkpoints.load_transformer,
    "vae": checkpoints.load_autoencoder,
    "text_encoder": checkpoints.load_text_encoder,
    "text_encoder_2": checkpoints.load_text_encoder_2,
    "image_encoder": checkpoints.load_image_encoder,
}

TRUTH = {
    "transformer": "tiny/flux1-dev.safetensors",
    "vae": "tiny/ae.safetensors",
    "text_encoder": "tiny/text_encoder",
    "text_encoder_2": "tiny/text_encoder_2",
    "image_encoder": "tiny/siglip/model.safetensors",
}

EQUAL = {
    "transformer": (
        "bfl-bf16.safetensors bfl-fp16.safetensors comfy-modelsave-prefix.safetensors srpo diffusers-shards "
        "prefix-diffusion_model.safetensors flux1-dev.sft"
    ),
    "vae": "ae.sft ae-bf16.safetensors prefix-vae.safetensors diffusers",
    "text_encoder": "clip_l.safetensors from-aio.safetensors openai-full-clip",
    "text_encoder_2": "t5xxl_fp16.safetensors with-decoder.safetensors",
    "image_encoder": "sigclip_vision_patch14_384.safetensors",
}

QUANTISED = {
    "transformer": (
        "kijai-fp8-e4m3fn.safetensors comfy-fp8-scaled-old.safetensors comfy-quant-fp8-tensors.safetensors "
        "flux1-dev-Q8_0.gguf flux1-dev-Q4_0.gguf nf4-unet-only.safetensors aio-flux1-dev-fp8.safetensors"
    ),
    "text_encoder_2": (
        "t5xxl_fp8_e4m3fn.safetensors t5xxl_fp8_e4m3fn_scaled.safetensors t5-v1_1-xxl-encoder-Q8_0.gguf "
        "../transformer/aio-flux1-dev-fp8.safetensors"
    ),
}

REFUSED = {
    "transformer/lfs-pointer.safetensors": "git-LFS pointer",
    "transformer/rel-fill.safetensors": "FLUX.1 Fill",
    "transformer/rel-schnell.safetensors": "schnell",
    "transformer/rel-redux.safetensors": "Redux",
    "transformer/truncated.safetensors": "truncated",
    "transformer/truncated-sparse.safetensors": "unfinished download.*zeros",
    "transformer/svdq-int4_r32-flux.1-dev.safetensors": "svdquant",
    "vae/rel-sdxl-vae.safetensors": "SDXL",
    "text_encoder/rel-longclip.safetensors": "long CLIP",
    "image_encoder/rel-siglip-224.safetensors": "SigLIP",
}


def files_of(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def loaded(component: str, path: str) -> dict[str, torch.Tensor]:
    config = json.loads((CASES / "tiny" / "arch" / f"{component}.json").read_text())
    module = LOADERS[component](config, files_of(CASES / path), dtype=torch.float32)
    return dict(module.named_parameters())


def listed(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(component, name) for component, names in table.items() for name in names.split()]


def apart(component: str, path: str) -> float:
    """The relative distance of a file's numbers from the tiny model's."""
    found, truth = loaded(component, path), loaded(component, TRUTH[component])
    assert found.keys() == truth.keys()
    difference = sum(float((found[name] - truth[name]).square().sum()) for name in truth)
    return float((difference / sum(float(value.square().sum()) for value in truth.values())) ** 0.5)


@pytest.mark.parametrize(("component", "name"), listed(EQUAL))
def test_loads_equal(component: str, name: str) -> None:
    half = ("fp16", "clip_l", "from-aio", "sigclip")  # stored in float16, which rounds the smallest numbers
    assert apart(component, f"{component}/{name}") <= (1e-7 if any(part in name for part in half) else 0)


@pytest.mark.parametrize(("component", "name"), listed(QUANTISED))
def test_loads_quantised(component: str, name: str) -> None:
    """Their own numbers are held in `formats/test_kinds.py`; a wrong scale would be far from these."""
    assert 0 < apart(component, f"{component}/{name}") < 0.1


@pytest.mark.parametrize("path", REFUSED)
def test_refused_by_name(path: str) -> None:
    with pytest.raises(USOError, match=REFUSED[path]):
        loaded(path.split("/")[0], path)


@pytest.fixture(scope="module")
def tiny() -> ModelConfig:
    config = load_model_config(str(CASES / "tiny.yaml"))
    home = CASES.parent.parent  # the paths in it start at the checkout
    components = {
        name: source.model_copy(update={"path": str(home.parent / source.path.removeprefix("../"))})
        for name, source in config.components.items()
    }
    architecture = str(home.parent / config.architecture.removeprefix("../"))
    return config.model_copy(update={"components": components, "architecture": architecture})


def with_files(config: ModelConfig, **paths: str) -> ModelConfig:
    components = dict(config.components)
    for name, path in paths.items():
        source = components[name]  # type: ignore[index]
        components[name] = source.model_copy(update={"path": str(CASES / path)})  # type: ignore[index]
    return config.model_copy(update={"components": components})


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ({"vae": "folders/sd3-vae"}, "SD3"),
        ({"transformer": "folders/fill-384"}, "Fill"),
        ({"tokenizer_2": "folders/t5_spiece_only"}, "spiece.model alone"),
        ({"tokenizer": "tiny/tokenizer_2"}, "T5's tokenizer, not CLIP's"),
        ({"tokenizer_2": "tiny/tokenizer"}, "CLIP's tokenizer, not T5's"),
        ({"lora": "lora/kohya.safetensors"}, "a LoRA .*--add-lora"),
        ({"lora": "lora/diffusers-peft.safetensors"}, "a LoRA.*--add-lora"),
        ({"lora": "lora/uno-dit_lora-rank512.safetensors"}, "UNO's LoRA"),
        ({"lora": "lora/kohya-dora.safetensors"}, "DoRA"),
        ({"transformer": "lora/kohya.safetensors"}, "a LoRA"),
    ],
)
def test_what_does_not_belong_is_refused_before_the_first_request(
    tiny: ModelConfig, paths: dict[str, str], says: str
) -> None:
    with pytest.raises(USOError, match=says):
        load_pipeline(with_files(tiny, **paths), device="cpu")


@pytest.mark.parametrize("name", ["kohya", "kohya-te1", "diffusers-peft", "aitoolkit-bfl", "uso-flux1-dit-lora-v1"])
def test_loras_fold_beside_usos(tiny: ModelConfig, name: str) -> None:
    path = CASES / "lora" / f"{name}.safetensors"
    with_lora = load_pipeline(tiny.model_copy(update={"added_loras": (LoraFile(path=str(path)),)}), device="cpu")
    plain = load_pipeline(tiny, device="cpu")
    pairs = zip(with_lora.transformer.parameters(), plain.transformer.parameters(), strict=True)
    assert sum(not torch.equal(one, other) for one, other in pairs) >= 24
    assert with_lora.provenance["added_loras"][0]["file"] == path.name
    texts = zip(with_lora.text_encoder.parameters(), plain.text_encoder.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in texts) == (name == "kohya-te1")
