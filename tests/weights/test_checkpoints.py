"""Released layouts load strictly; what does not fit stops with file, key and shapes; memory stays bounded."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionModel, T5Config, T5EncoderModel

from tests.golden import Case
from uso.config import CONFIGS, ROOT
from uso.errors import CheckpointError
from uso.transformer.context_embedder import ContextEmbedder
from uso.weights import checkpoints
from uso.weights.checkpoints import load_autoencoder, load_context_embedder, load_transformer
from uso.weights.formats.layouts import (
    Part,
    autoencoder_part,
    flux_part,
    lora_modules,
    lora_target,
    projector_part,
    source_shapes,
)
from uso.weights.formats.patches import uso_patches
from uso.weights.formats.tensor_files import TensorFiles, check_shapes

LAYOUT = json.loads((ROOT / "tests" / "golden" / "released_layout.json").read_text())

Change = Callable[[dict[str, torch.Tensor]], None]


def architecture(folder: str, name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((CONFIGS / "architectures" / folder / f"{name}.json").read_text())
    return values


def released(file: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in LAYOUT[file].items()}


def needed(module: torch.nn.Module, part_of: Callable[[str], Part]) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    return source_shapes({name: part_of(name) for name in shapes}, shapes)


def in_memory(shapes: dict[str, tuple[int, ...]]) -> TensorFiles:
    return TensorFiles([Path("released.safetensors")], shapes=dict(shapes))


@pytest.mark.parametrize("model", ["flux-dev", "flux-schnell"])
def test_released_transformer_and_lora_fit_the_full_size_class(model: str) -> None:
    """Every key and shape of the released files, against 12 billion parameters on the meta device."""
    file = {"flux-dev": "flux1-dev.safetensors", "flux-schnell": "flux1-schnell.safetensors"}[model]
    with init_empty_weights():
        transformer = FluxTransformer2DModel.from_config(architecture(model, "transformer"))
    check_shapes(in_memory(released(file)), needed(transformer, flux_part))
    uso_patches(in_memory(released("dit_lora.safetensors")), transformer, 1.0)
    other = "flux1-schnell.safetensors" if model == "flux-dev" else "flux1-dev.safetensors"
    with pytest.raises(CheckpointError, match="guidance_in"):
        check_shapes(in_memory(released(other)), needed(transformer, flux_part))


def test_released_autoencoder_and_projector_fit_the_full_size_classes() -> None:
    with init_empty_weights():
        autoencoder = AutoencoderKL.from_config(architecture("flux-dev", "vae"))
        embedder = ContextEmbedder()
    check_shapes(in_memory(released("ae.safetensors")), needed(autoencoder, lambda name: autoencoder_part(name, 4)))
    check_shapes(in_memory(released("projector.safetensors")), needed(embedder, projector_part))


def test_shipped_encoder_configs_are_the_released_sizes() -> None:
    """Parameter counts of CLIP-L's text model, T5-XXL's encoder and SigLIP so400m's vision tower."""
    with init_empty_weights():
        clip = checkpoints.CLIPTextModel(checkpoints.CLIPTextConfig(**architecture("flux-dev", "text_encoder")))
        t5 = T5EncoderModel(T5Config(**architecture("flux-dev", "text_encoder_2")))
        siglip = SiglipVisionModel(checkpoints.SiglipVisionConfig(**architecture("flux-dev", "image_encoder")))
    t5.encoder.embed_tokens.weight = t5.shared.weight
    counts = [sum(p.numel() for p in model.parameters()) for model in (clip, t5, siglip)]
    assert counts == [123_060_480, 4_762_310_656, 428_225_600]


def test_lora_targets_cover_every_module_once() -> None:
    targets = [lora_target(module) for module in lora_modules(19, 38)]
    assert len(set(targets)) == len(targets) == 19 * 4 + 38 * 2


@pytest.fixture
def changed(golden: Case, tmp_path: Path) -> Callable[[str, Change], Path]:
    """`changed(file, change)`: a copy of a golden file with its tensors changed."""

    def make(file: str, change: Change) -> Path:
        tensors = load_file(golden.folder / file)
        change(tensors)
        path = tmp_path / file
        save_file(tensors, path)
        return path

    return make


def transformer_of(
    golden: Case, base: Path | None = None, lora: Path | None = None, **options: Any
) -> FluxTransformer2DModel:
    options.setdefault("dtype", torch.float32)
    return load_transformer(
        golden.transformer_config(),
        [base or golden.folder / "flux1.safetensors"],
        lora=[lora or golden.folder / "dit_lora.safetensors"],
        **options,
    )


QKV = "double_blocks.1.img_attn.qkv.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(QKV), rf"flux1.safetensors: {QKV} is missing \(expected shape \[192, 64\], found none\)"),
        (
            lambda t: t.update(extra=torch.zeros(2, 3)),
            r"flux1.safetensors: extra is surplus \(found shape \[2, 3\], expected none\)",
        ),
        (
            lambda t: t.update({QKV: torch.zeros(192, 63)}),
            rf"flux1.safetensors: {QKV} has shape \[192, 63\], expected \[192, 64\]",
        ),
        (lambda t: t.update({QKV: torch.zeros(192, 64, dtype=torch.int8)}), "It is quantised to i8, which is not read"),
    ],
    ids=["missing", "surplus", "misshapen", "integers"],
)
def test_a_wrong_tensor_stops_the_load(
    golden: Case, changed: Callable[[str, Change], Path], change: Change, says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        transformer_of(golden, changed("flux1.safetensors", change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("double_blocks.0.processor.qkv_lora2.up.weight"), "qkv_lora2.up.weight is missing"),
        (lambda t: t.update({"double_blocks.9.processor.qkv_lora2.up.weight": torch.zeros(2, 2)}), "9.* is surplus"),
        (
            lambda t: t.update({"single_blocks.0.processor.proj_lora.up.weight": torch.zeros(64, 9)}),
            r"proj_lora.up.weight has shape \[64, 9\], expected \[64, 8\]",
        ),
    ],
    ids=["missing", "surplus", "misshapen"],
)
def test_a_wrong_lora_stops_the_load(
    golden: Case, changed: Callable[[str, Change], Path], change: Change, says: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"dit_lora.safetensors: .*{says}"):
        transformer_of(golden, lora=changed("dit_lora.safetensors", change))


@pytest.mark.parametrize("cut", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_stops_the_load(golden: Case, tmp_path: Path, cut: float) -> None:
    """An interrupted download must not load, and the message names the file (and the tensor, past the header)."""
    whole = (golden.folder / "flux1.safetensors").read_bytes()
    path = tmp_path / "flux1.safetensors"
    path.write_bytes(whole[: int(len(whole) * cut)])
    says = "truncated|not a readable safetensors file" if cut < 0.1 else r"truncated: \S+ of shape \[.*\] ends at byte"
    with pytest.raises(CheckpointError, match=says) as caught:
        transformer_of(golden, path)
    assert str(path) in str(caught.value)


def test_only_safetensors_are_loaded(golden: Case, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is a PyTorch pickle, which can run code"):
        transformer_of(golden, path)


def test_comfyui_prefix_loads_the_same(golden: Case, tmp_path: Path) -> None:
    tensors = load_file(golden.folder / "flux1.safetensors")
    path = tmp_path / "comfy.safetensors"
    save_file({f"model.diffusion_model.{key}": value for key, value in tensors.items()}, path)
    assert_same(transformer_of(golden), transformer_of(golden, path))


def test_diffusers_folder_loads_the_same(golden: Case, tmp_path: Path) -> None:
    """The stock layout, sharded, with the LoRA (in FLUX's names) folded into it."""
    plain = transformer_of(golden, lora_scale=0.0, dtype=torch.bfloat16)
    plain.save_pretrained(tmp_path, max_shard_size="300KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    stock = load_transformer(
        golden.transformer_config(), shards, lora=[golden.folder / "dit_lora.safetensors"], dtype=torch.float32
    )
    assert_same(transformer_of(golden), stock)


def test_diffusers_autoencoder_loads_the_same(golden: Case, tmp_path: Path) -> None:
    released_form = load_autoencoder(golden.autoencoder_config(), [golden.folder / "ae.safetensors"])
    released_form.save_pretrained(tmp_path)
    stock = load_autoencoder(golden.autoencoder_config(), list(tmp_path.glob("*.safetensors")))
    assert_same(released_form, stock)


def test_lora_is_folded_in_float32(golden: Case) -> None:
    """A fold in bfloat16 loses small changes; the planted bug (rounding the change first) is seen."""
    base = load_file(golden.folder / "flux1.safetensors")["single_blocks.0.linear2.weight"].float()
    lora = load_file(golden.folder / "dit_lora.safetensors")
    up = lora["single_blocks.0.processor.proj_lora.up.weight"].float()
    down = lora["single_blocks.0.processor.proj_lora.down.weight"].float()
    for scale in (1.0, 0.5, -2.0):
        folded = transformer_of(golden, lora_scale=scale).single_transformer_blocks[0].proj_out.weight
        assert torch.allclose(folded, base + scale * up @ down, rtol=1e-6, atol=1e-7)
        rounded = base + (scale * up @ down).bfloat16().float()
        assert not torch.allclose(folded, rounded, rtol=1e-6, atol=1e-7)


def test_encoders_accept_both_ways_of_naming(golden: Case, tmp_path: Path) -> None:
    """SigLIP out of a whole SiglipModel file: `vision_model.` is taken off, the text model is left out."""
    tensors = load_file(golden.folder / "siglip" / "model.safetensors")
    path = tmp_path / "model.safetensors"
    whole = {f"vision_model.{key}": value for key, value in tensors.items()}
    save_file(whole | {"text_model.final_layer_norm.bias": torch.zeros(3), "logit_scale": torch.zeros(1)}, path)
    config = json.loads((golden.folder / "siglip" / "config.json").read_text())
    alone = checkpoints.load_image_encoder(config, [golden.folder / "siglip" / "model.safetensors"])
    assert_same(alone, checkpoints.load_image_encoder(config, [path]))


def test_t5_embedding_is_shared_and_real(tmp_path: Path) -> None:
    """The trap: the embedding is stored once and the encoder's own name for it stays random or on the meta device."""
    config = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=64)
    T5EncoderModel(config).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert "encoder.embed_tokens.weight" not in stored
    for name, extra in (("once", {}), ("twice", {"encoder.embed_tokens.weight": stored["shared.weight"].clone()})):
        path = tmp_path / f"{name}.safetensors"
        save_file(stored | extra, path)
        model = checkpoints.load_text_encoder_2(config.to_dict(), [path], dtype=torch.float32)
        assert torch.equal(model.encoder.embed_tokens.weight, stored["shared.weight"])


def test_projector_sizes_come_from_the_file(golden: Case, tmp_path: Path) -> None:
    tensors = load_file(golden.folder / "projector.safetensors")
    tensors = {
        key: value.repeat_interleave(2, dim=0) if "projection" in key else value for key, value in tensors.items()
    }
    path = tmp_path / "projector.safetensors"
    save_file(tensors, path)
    assert load_context_embedder([path]).config.hidden_size == 2 * golden.values["hidden_size"]


def assert_same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


MEASURE = """
import json, sys, threading, time
from pathlib import Path
from uso.system.garbage import collect_seldom
collect_seldom()
import torch
from uso.weights.checkpoints import load_transformer

def anonymous():
    line = next(line for line in open('/proc/self/status') if line.startswith('RssAnon'))
    return int(line.split()[1]) * 1024

folder = Path(sys.argv[1])
config = json.loads((folder / 'config.json').read_text())
load_transformer({**config, 'num_layers': 1, 'num_single_layers': 0}, [folder / 'warm.safetensors'])
before, peak, running = anonymous(), 0, True

def watch():
    global peak
    while running:
        peak = max(peak, anonymous())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
model = load_transformer(config, [folder / 'flux1.safetensors'], lora=[folder / 'dit_lora.safetensors'])
running = False
thread.join()
weights = sum(p.numel() * p.element_size() for p in model.parameters())
print(json.dumps({'weights': weights, 'peak': max(peak, anonymous()) - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read from /proc")
def test_loading_holds_little_more_than_the_weights(tmp_path: Path) -> None:
    """Files of over 2 GB in the released layout: peak anonymous memory within 1.15 x the final weights.

    A loader that reads a whole state dict first would need 2 x.
    """
    config = architecture("flux-dev", "transformer") | {"num_layers": 2, "num_single_layers": 3}
    write_full_width_files(tmp_path, config)
    assert (tmp_path / "flux1.safetensors").stat().st_size >= 2 * 10**9
    root = ROOT
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, cwd=root
    )
    measured = json.loads(run.stdout.splitlines()[-1])
    assert measured["weights"] >= 2 * 10**9
    assert measured["peak"] <= 1.15 * measured["weights"], measured


def write_full_width_files(folder: Path, config: dict[str, Any]) -> None:
    """FLUX's own width with few blocks: base, LoRA, and one block to warm up with."""
    (folder / "config.json").write_text(json.dumps(config))
    for name, values in (("flux1", config), ("warm", config | {"num_layers": 1, "num_single_layers": 0})):
        with init_empty_weights():
            transformer = FluxTransformer2DModel.from_config(values)
        shapes = needed(transformer, flux_part)
        save_file(
            {key: torch.full(shape, 0.01, dtype=torch.bfloat16) for key, shape in shapes.items()},
            folder / f"{name}.safetensors",
        )
    modules = lora_modules(config["num_layers"], config["num_single_layers"])
    lora = {
        key: shape
        for key, shape in released("dit_lora.safetensors").items()
        if key.rpartition(".")[0].rpartition(".")[0] in modules
    }
    save_file(
        {key: torch.full(shape, 0.01, dtype=torch.bfloat16) for key, shape in lora.items()},
        folder / "dit_lora.safetensors",
    )
