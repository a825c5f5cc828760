"""Folders of weights: components are found by content under any names, chosen by rule, and never guessed between."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from uso.cli.main import main
from uso.config import ROOT, ModelConfig, load_model_config
from uso.errors import ConfigError
from uso.weights.finder import Candidate, scan
from uso.weights.selection import choose, model_stem, with_weights

LAYOUT = json.loads((ROOT / "tests" / "golden" / "released_layout.json").read_text())
BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}


def sparse(path: Path, shapes: Mapping[str, Iterable[int]], dtype: str = "BF16", prefix: str = "") -> Path:
    """A safetensors file of full size without any numbers: it takes no room on the disk."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        begin, end = end, end + count * BYTES[dtype]
        entries[prefix + name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return path


FLUX = {key: tuple(shape) for key, shape in LAYOUT["flux1-dev.safetensors"].items()}
SCHNELL = {key: tuple(shape) for key, shape in LAYOUT["flux1-schnell.safetensors"].items()}
VAE = {key: tuple(shape) for key, shape in LAYOUT["ae.safetensors"].items()}
LORA = {key: tuple(shape) for key, shape in LAYOUT["dit_lora.safetensors"].items()}
PROJECTOR = {key: tuple(shape) for key, shape in LAYOUT["projector.safetensors"].items()}
CLIP = {
    "text_model.embeddings.token_embedding.weight": (49408, 768),
    "text_model.embeddings.position_embedding.weight": (77, 768),
}
T5 = {"shared.weight": (32128, 4096), "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096)}
SIGLIP = {
    "vision_model.embeddings.patch_embedding.weight": (1152, 3, 14, 14),
    "vision_model.embeddings.position_embedding.weight": (729, 1152),
}


def tokenizers(clip: Path, t5: Path) -> None:
    clip.mkdir(parents=True)
    t5.mkdir(parents=True)
    (clip / "vocab.json").write_text('{"a</w>": 0}')
    (clip / "merges.txt").write_text("#version: 0.2\n")
    (t5 / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')


def comfyui(root: Path, transformer: str = "diffusion_models/flux1-dev.safetensors") -> Path:
    """ComfyUI's tree; returns its `models`."""
    models = root / "ComfyUI" / "models"
    sparse(models / transformer, FLUX)
    sparse(models / "vae" / "ae.safetensors", VAE, "F32")
    sparse(models / "clip" / "clip_l.safetensors", CLIP, "F16")
    sparse(models / "text_encoders" / "t5xxl_fp8_e4m3fn.safetensors", T5, "F8_E4M3")
    sparse(models / "text_encoders" / "t5xxl_fp16.safetensors", T5, "F16")
    sparse(models / "clip_vision" / "sigclip_vision_patch14_384.safetensors", SIGLIP, "F16")
    sparse(models / "loras" / "uso-flux1-dit-lora-v1.safetensors", LORA)
    sparse(models / "model_patches" / "uso-flux1-projector-v1.safetensors", PROJECTOR)
    comfy = root / "ComfyUI" / "comfy"
    tokenizers(comfy / "sd1_tokenizer", comfy / "text_encoders" / "t5_tokenizer")
    return models


@pytest.fixture
def dev() -> ModelConfig:
    return load_model_config("flux-dev")


def chosen(config: ModelConfig, *folders: Path) -> dict[str, Candidate]:
    return {str(each.component): each for each in choose(config, scan(folders)) if each.chosen}


def test_comfyuis_tree_has_everything(dev: ModelConfig, tmp_path: Path) -> None:
    """Catches a component that is looked for by name, and the coarser of two T5 files."""
    found = chosen(dev, comfyui(tmp_path))
    assert set(found) == set(dev.components)
    assert found["text_encoder_2"].name == "t5xxl_fp16.safetensors"
    assert found["transformer"].reason == "the configured name"
    assert found["tokenizer"].path.name == "sd1_tokenizer"
    config, _ = with_weights(dev, [str(tmp_path / "ComfyUI" / "models")])
    assert all(source.repo is None for source in config.components.values())


def test_a_diffusers_folder_and_the_hubs_cache(dev: ModelConfig, tmp_path: Path) -> None:
    """Parts with an index; `blobs` skipped; another revision of the repository than the pinned one."""
    stock = {"transformer_blocks.0.attn.norm_added_q.weight": (128,), "x_embedder.weight": (3072, 64)}
    rest = {"proj_out.weight": (64, 3072), "time_text_embed.guidance_embedder.linear_1.weight": (3072, 256)}
    snapshot = tmp_path / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / ("a" * 40)
    folder = snapshot / "transformer"
    parts: list[Mapping[str, tuple[int, ...]]] = [stock, rest]
    for number, shapes in enumerate(parts, start=1):
        name = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        blob = sparse(snapshot.parent.parent / "blobs" / str(number), shapes)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(blob)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys([*stock, *rest], "x.safetensors")}))
    sparse(snapshot / "vae" / "diffusion_pytorch_model.safetensors", VAE | {"x": (1,)}, "F32")
    found = chosen(dev, tmp_path / "models--black-forest-labs--FLUX.1-dev")
    assert found["transformer"].path == index and found["vae"].kind == "fp32"
    empty = tmp_path / "empty"
    empty.mkdir()
    config, _ = with_weights(dev, [str(empty)], tmp_path)
    assert config.components["transformer"].path == str(index)
    assert config.components["lora"].repo is not None  # what the cache has not is still to be fetched


def test_one_file_fills_several_slots(dev: ModelConfig, tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {f"model.diffusion_model.{key}": shape for key, shape in FLUX.items()}
    shapes |= {f"vae.{key}": shape for key, shape in VAE.items()}
    shapes |= {f"text_encoders.clip_l.transformer.{key}": shape for key, shape in CLIP.items()}
    shapes |= {f"text_encoders.t5xxl.transformer.{key}": shape for key, shape in T5.items()}
    path = sparse(tmp_path / "checkpoints" / "flux1-dev-fp8.safetensors", shapes, "F8_E4M3")
    found = chosen(dev, tmp_path)
    assert {name for name, each in found.items() if each.path == path} == {
        "transformer",
        "vae",
        "text_encoder",
        "text_encoder_2",
    }


def test_kinds_of_one_model_are_chosen_between_and_models_are_not(dev: ModelConfig, tmp_path: Path) -> None:
    """Catches Krea drawn in dev's place because its file came first in the alphabet."""
    sparse(tmp_path / "flux1-dev-fp8-e4m3fn.safetensors", FLUX, "F8_E4M3")
    sparse(tmp_path / "flux1-dev_bf16.safetensors", FLUX)
    sparse(tmp_path / "a-krea" / "flux1-krea-dev.safetensors", FLUX)
    assert chosen(dev, tmp_path)["transformer"].name == "flux1-dev_bf16.safetensors"
    krea = load_model_config("flux-krea-dev")
    assert chosen(krea, tmp_path)["transformer"].name == "flux1-krea-dev.safetensors"


def test_several_strange_models_are_listed_and_not_guessed(dev: ModelConfig, tmp_path: Path) -> None:
    for name in ("fluxmania_v6.safetensors", "realDream.safetensors"):
        sparse(tmp_path / name, FLUX)
    with pytest.raises(ConfigError, match="several transformers.*fluxmania_v6.*realDream.*with --transformer"):
        with_weights(dev, [str(tmp_path)])
    config, _ = with_weights(dev, [str(tmp_path)], named=["transformer"])
    assert config.components["transformer"] == dev.components["transformer"]
    (tmp_path / "realDream.safetensors").unlink()
    assert chosen(dev, tmp_path)["transformer"].reason == "the only one"


def test_schnell_is_not_devs(dev: ModelConfig, tmp_path: Path) -> None:
    sparse(tmp_path / "flux1-schnell.safetensors", SCHNELL)
    (only,) = choose(dev, scan([tmp_path]))
    assert not only.chosen and "guidance" in only.reason
    assert chosen(load_model_config("flux-schnell"), tmp_path)["transformer"].name == "flux1-schnell.safetensors"


def test_what_cannot_be_used_is_skipped_and_told(dev: ModelConfig, tmp_path: Path) -> None:
    """Dead links, unfinished downloads, lost parts, pickles, relatives."""
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    sparse(tmp_path / "half.safetensors", FLUX)
    (tmp_path / "half.safetensors.aria2").write_bytes(b"")
    sparse(tmp_path / "part-00001-of-00003.safetensors", FLUX)
    (tmp_path / "flux.ckpt").write_bytes(b"PK\x03\x04" + b"\0" * 2_000_000)
    sparse(tmp_path / "fill.safetensors", FLUX | {"img_in.weight": (3072, 384)})
    sparse(tmp_path / "longclip.safetensors", CLIP | {"text_model.embeddings.position_embedding.weight": (248, 768)})
    judged = {each.name: f"{each.title}: {each.reason}" for each in choose(dev, scan([tmp_path]))}
    assert "a link to a file that is gone" in judged["gone.safetensors"]
    assert "an unfinished download" in judged["half.safetensors"]
    assert "1 of 3 parts" in judged["part-00001-of-00003.safetensors"]
    assert "pickle" in judged["flux.ckpt"]
    assert "FLUX.1 Fill" in judged["fill.safetensors"]
    assert "long CLIP" in judged["longclip.safetensors"]
    assert not any(each.chosen for each in choose(dev, scan([tmp_path])))


def test_sd3s_autoencoder_is_known_by_its_config(dev: ModelConfig, tmp_path: Path) -> None:
    stock = {"encoder.down_blocks.0.resnets.0.conv1.weight": (128, 128, 3, 3)}
    sparse(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", stock, "F32")
    (tmp_path / "vae" / "config.json").write_text('{"scaling_factor": 1.5305, "shift_factor": 0.0609}')
    (only,) = choose(dev, scan([tmp_path]))
    assert "SD3's autoencoder" in only.reason


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("flux1-dev-Q8_0.gguf", "flux1dev"),
        ("flux1-dev-fp8-e4m3fn.safetensors", "flux1dev"),
        ("flux1-krea-dev_fp8_scaled.safetensors", "flux1kreadev"),
        ("FLUX1-DEV.SAFETENSORS", "flux1dev"),
        ("FLUX.1-dev/transformer/diffusion_pytorch_model.safetensors.index.json", "flux1dev"),
    ],
)
def test_the_name_of_a_model(path: str, stem: str) -> None:
    assert model_stem(Path(path)) == stem


def test_hundreds_of_files_are_searched_without_torch(tmp_path: Path) -> None:
    """Catches a search that reads numbers, or that brings torch along."""
    models = comfyui(tmp_path)
    for number in range(300):
        sparse(models / "loras" / f"lora-{number}.safetensors", {"lora_unet_x.lora_down.weight": (16, 3072)})
    code = (
        "import sys; from pathlib import Path; from uso.weights.finder import scan; "
        f"print(len(scan([Path({str(models)!r})])), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["310", "False"]


def test_the_table_and_what_is_left_to_fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody with everything but tokenizers is asked for 5 MB."""
    models = comfyui(tmp_path)
    for folder in ("sd1_tokenizer", "text_encoders/t5_tokenizer"):
        for file in (tmp_path / "ComfyUI" / "comfy" / folder).iterdir():
            file.unlink()
    assert main(["models", "--weights", str(models)]) == 0
    out = capsys.readouterr().out
    assert "diffusion_models/flux1-dev.safetensors" in out and "chosen" in out
    assert "t5xxl_fp16.safetensors comes first (fp16)" in out
    assert "Not found: tokenizer, tokenizer_2 (about 5.0 MB)" in out


def test_inspect_says_what_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sparse(tmp_path / "x.safetensors", {"redux_up.weight": (8, 4)})
    assert main(["inspect", str(path)]) == 0
    assert "FLUX.1 Redux" in capsys.readouterr().out
    (tmp_path / "y.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert main(["inspect", str(tmp_path / "y.safetensors")]) == 2
    assert "git-LFS pointer" in capsys.readouterr().err


def test_links_that_lead_back_and_parts_with_another_index(dev: ModelConfig, tmp_path: Path) -> None:
    """Catches a search that follows a loop until the system stops it, and a variant's parts left out."""
    (tmp_path / "loop").symlink_to(tmp_path)
    names = list(FLUX)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        sparse(tmp_path / f"flux.fp16-0000{number}-of-00002.safetensors", {name: FLUX[name] for name in part}, "F16")
    found = choose(dev, scan([tmp_path]))
    assert [each.path.name for each in found] == ["flux.fp16-00001-of-00002.safetensors"]
    assert found[0].chosen and found[0].kind == "fp16"


def test_the_originals_come_before_what_has_their_shapes(dev: ModelConfig, tmp_path: Path) -> None:
    """Catches a fine-tuned CLIP in float32, or an SDXL checkpoint's, taken before clip_l in float16."""
    sparse(tmp_path / "ViT-L-14-improved.safetensors", CLIP, "F32")
    unet = {"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}
    sdxl = unet | {f"conditioner.embedders.0.transformer.{name}": shape for name, shape in CLIP.items()}
    sparse(tmp_path / "a-sdxl.safetensors", sdxl)
    sparse(tmp_path / "clip_l.safetensors", CLIP, "F16")
    assert chosen(dev, tmp_path)["text_encoder"].name == "clip_l.safetensors"
    for name in ("ViT-L-14-improved.safetensors", "clip_l.safetensors"):
        (tmp_path / name).unlink()
    assert "text_encoder" not in chosen(dev, tmp_path)


def test_the_current_revision_comes_first(dev: ModelConfig, tmp_path: Path) -> None:
    repository = tmp_path / "models--black-forest-labs--FLUX.1-dev"
    for commit in ("a" * 40, "b" * 40):
        sparse(repository / "snapshots" / commit / "ae.safetensors", VAE, "F32")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    assert chosen(dev, tmp_path)["vae"].path.parent.name == "b" * 40
