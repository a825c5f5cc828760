"""Ways of storing and of mixing that few files have: each loads to its own numbers, or is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file

from tests.golden import Case
from tests.support import weight_files as files
from tests.weights.formats.test_kinds import by_flux_names, loaded
from uso.config import Source
from uso.errors import CheckpointError
from uso.weights.checkpoints import load_autoencoder
from uso.weights.formats.headers import check_finished, parts_of, read_header
from uso.weights.formats.kinds import find, identify
from uso.weights.hub.cache import Hub
from uso.weights.hub.cache import find as find_component

QKV = "double_blocks.0.img_attn.qkv"


def test_row_scales_that_the_head_alone_tells(golden: Case, tmp_path: Path) -> None:
    """BFL's own fp8: scales of shape [rows, 1], and the kind in the head instead of in tensors."""
    stored, worth = {}, {}
    for key, value in files.flux_tensors().items():
        stored[key], worth[key] = value, value.float()
        if value.dim() == 2:
            scale = value.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-6) / 448
            stored[key] = (value.float() / scale).to(torch.float8_e4m3fn)
            stored[f"{key.removesuffix('.weight')}.weight_scale"] = scale
            worth[key] = stored[key].float() * scale
    told = {"format_version": "1.0", "layers": {QKV: {"format": "float8_e4m3fn"}}}
    save_file(stored, tmp_path / "rows.safetensors", {"_quantization_metadata": json.dumps(told)})
    by_flux_names(loaded(golden, tmp_path / "rows.safetensors"), worth)
    told["layers"][QKV]["format"] = "nvfp4"  # type: ignore[index]
    save_file(stored, tmp_path / "blocks.safetensors", {"_quantization_metadata": json.dumps(told)})
    with pytest.raises(CheckpointError, match="It is stored as nvfp4"):
        loaded(golden, tmp_path / "blocks.safetensors")


@pytest.mark.parametrize("kind", ["mxfp8", "nvfp4", "int8_tensorwise"])
def test_kinds_that_a_tensor_tells(golden: Case, tmp_path: Path, kind: str) -> None:
    note = torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)
    path = files.changed(tmp_path, lambda tensors: tensors.update({f"{QKV}.comfy_quant": note}))
    with pytest.raises(CheckpointError, match=f"It is stored as {kind}"):
        loaded(golden, path)


def test_a_scale_counts_whatever_it_scales(golden: Case, tmp_path: Path) -> None:
    """Catches a factor beside bfloat16 numbers that is dropped, and one whose weight is not there."""
    scale = {f"{QKV}.scale_weight": torch.tensor(0.5)}
    worth = {key: value.float() for key, value in files.flux_tensors().items()}
    worth[f"{QKV}.weight"] *= 0.5
    by_flux_names(loaded(golden, files.changed(tmp_path, lambda tensors: tensors.update(scale))), worth)
    with pytest.raises(CheckpointError, match="holds nowhere.weight_scale and no nowhere.weight"):
        loaded(golden, files.changed(tmp_path, lambda t: t.update({"nowhere.weight_scale": torch.ones(())})))


def test_nested_nf4(golden: Case, tmp_path: Path) -> None:
    """Scales that are themselves quantised, in blocks of the size that the file states."""
    stored, worth = {}, {}
    table = torch.linspace(-1, 1, 256)
    for key, value in files.flux_tensors().items():
        stored[key], worth[key] = value, value.float()
        if value.dim() != 2 or value.numel() % 128:
            continue
        blocks = value.float().reshape(-1, 64)
        scales = blocks.abs().amax(dim=1).clamp(min=1e-6)
        offset = float(scales.mean())
        groups = torch.nn.functional.pad(scales - offset, (0, -scales.numel() % 128)).reshape(-1, 128)
        largest = groups.abs().amax(dim=1).clamp(min=1e-9)
        codes = ((groups / largest[:, None])[..., None] - table).abs().argmin(dim=-1).flatten()[: scales.numel()]
        exact = table[codes] * largest.repeat_interleave(128)[: scales.numel()] + offset
        places = ((blocks / scales[:, None])[..., None] - files.NF4).abs().argmin(dim=-1)
        flat = places.flatten()
        stored[key] = (flat[0::2] << 4 | flat[1::2]).to(torch.uint8)[:, None]
        stored |= {f"{key}.absmax": codes.to(torch.uint8), f"{key}.quant_map": files.NF4.clone()}
        stored |= {f"{key}.nested_absmax": largest, f"{key}.nested_quant_map": table.clone()}
        state = {"shape": list(value.shape), "blocksize": 64, "nested_blocksize": 128, "nested_offset": offset}
        stored[f"{key}.quant_state.bitsandbytes__nf4"] = torch.tensor(
            list(json.dumps(state).encode()), dtype=torch.uint8
        )
        worth[key] = (files.NF4[places] * exact[:, None]).reshape(value.shape)
    save_file(stored, tmp_path / "nested.safetensors")
    by_flux_names(loaded(golden, tmp_path / "nested.safetensors"), worth)


@pytest.mark.parametrize("kind", ["Q8_0", "BF16", "IQ4_NL"])
def test_gguf_in_rows_of_other_lengths(golden: Case, tmp_path: Path, kind: str) -> None:
    """Catches the stored shape taken for the weight's own: an input of 64 channels looks like another model's."""
    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "flux")
    worth = {}
    for key, value in files.flux_tensors().items():
        numbers = value.float().numpy()
        if value.dim() != 2 or numbers.size % 256:
            writer.add_tensor(key, numbers)
            worth[key] = value.float()
            continue
        writer.add_array(f"comfy.gguf.orig_shape.{key}", list(value.shape))
        rows = numbers.reshape(-1, 256)
        if kind == "IQ4_NL":  # the package only reads it: any bytes with small scales will do
            packed = np.random.default_rng(0).integers(0, 256, (len(rows), 256 // block, size), dtype=np.uint8)
            packed[..., :2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
            packed = packed.reshape(len(rows), -1)
        else:
            packed = np.asarray(quantize(rows, number))
        writer.add_tensor(key, packed, raw_dtype=number)
        worth[key] = torch.from_numpy(np.array(dequantize(packed, number))).reshape(value.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    by_flux_names(loaded(golden, tmp_path / "other.gguf"), worth)


def test_a_transformer_without_prefix_beside_an_autoencoder(golden: Case, tmp_path: Path) -> None:
    tensors = files.flux_tensors()
    autoencoder = load_file(golden.folder / "ae.safetensors")
    path = tmp_path / "both.safetensors"
    for mine, other in (("", "vae."), ("", "first_stage_model."), ("model.", "")):
        both = {mine + key: value for key, value in tensors.items()}
        save_file(both | {other + key: value for key, value in autoencoder.items()}, path)
        by_flux_names(loaded(golden, path), {key: value.float() for key, value in tensors.items()})
        found = load_autoencoder(golden.autoencoder_config(), [path])
        assert torch.equal(found.decoder.conv_in.weight, autoencoder["decoder.conv_in.weight"].float())


def test_parts_are_found_from_any_of_them(golden: Case, tmp_path: Path) -> None:
    """diffusers' variants have an index of another name; a part alone stands for all, or is refused by what lacks."""
    whole = loaded(golden, files.FLUX)
    parts = files.diffusers_parts(tmp_path, {name: tuple(value.shape) for name, value in whole.items()})
    count = len(parts)
    moved = [
        part.rename(tmp_path / f"diffusion_pytorch_model.fp16-{number:05d}-of-{count:05d}.safetensors")
        for number, part in enumerate(parts, 1)
    ]
    for index in tmp_path.glob("*.json"):
        index.unlink()
    for named in (moved[-1], tmp_path):
        found = find_component("transformer", Source(path=str(named)), Hub())
        again = loaded(golden, *found.files)
        assert all(torch.equal(value, again[name]) for name, value in whole.items())
    moved[0].unlink()
    with pytest.raises(CheckpointError, match=f"is in {count} parts, and {moved[0].name} is not there"):
        parts_of(moved[-1])


@pytest.mark.parametrize(
    ("names", "component", "says"),
    [
        ({"model.diffusion_model.input_blocks.0.w": 1, "c.text_model.embeddings.token_embedding.weight": 1},
         "text_encoder", "CLIP-L's text model out of an SDXL"),
        ({"model.diffusion_model.joint_blocks.0.w": 1, "first_stage_model.encoder.down.0.block.0.conv1.weight": 1},
         "vae", "is SD3's autoencoder"),
        ({"model.diffusion_model.input_blocks.0.w": 1, "vae.encoder.down.0.block.0.conv1.weight": 1},
         "transformer", "is an SDXL or Stable Diffusion model"),
        ({"down_blocks.0.resnets.0.conv1.weight": 1}, "transformer", "is an SDXL or Stable Diffusion model"),
        ({"transformer_blocks.0.attn.norm_added_q.weight": 1, "pos_embed.proj.weight": 1},
         "transformer", "is Stable Diffusion 3"),
        ({"transformer_blocks.0.attn.norm_added_q.weight": 1, "controlnet_x_embedder.weight": 1},
         "transformer", "is a ControlNet"),
        ({"1.conv.0.weight": 1}, "vae", "is a tiny autoencoder"),
        ({"lora_unet_x.hada_w1_a": 1}, "lora", "is a LoHa"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight._data": 1, "shared.weight": 1},
         "text_encoder_2", "quantised by quanto"),
        ({f"encoder.block.{n}.layer.0.SelfAttention.{m}.weight": 1 for n in (0, 1)
          for m in ("q", "relative_attention_bias")}, "text_encoder_2", "is umT5"),
    ],
)  # fmt: skip
def test_relatives_by_their_names(tmp_path: Path, names: dict[str, int], component: str, says: str) -> None:
    """Catches an SDXL checkpoint's CLIP, and SD3's autoencoder, taken for FLUX's: both have the same shapes."""
    save_file({name: torch.ones(4, 4) for name in names}, tmp_path / "other.safetensors")
    content, reason = find(read_header(tmp_path / "other.safetensors"), component)  # type: ignore[arg-type]
    assert content is None and says in reason


def test_names_are_read_where_they_are_names(tmp_path: Path) -> None:
    """Kontext is told by its folder where the file's name tells nothing; a workflow in the head is no name."""
    folder = tmp_path / "FLUX.1-Kontext-dev" / "transformer"
    folder.mkdir(parents=True)
    tensors = files.flux_tensors()
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    save_file(tensors, tmp_path / "mine.safetensors", {"workflow": "kontext nvfp4"})
    assert "Kontext" in identify(read_header(folder / "diffusion_pytorch_model.safetensors"))[0].refused
    assert not identify(read_header(tmp_path / "mine.safetensors"))[0].refused


def fewer_blocks(tensors: files.Tensors) -> None:
    for name in [name for name in tensors if name.startswith("double_blocks.1.")]:
        del tensors[name]


def test_a_cut_model_is_refused_by_its_blocks(golden: Case, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has 1 double and .* single blocks where .*FLUX.1-lite"):
        loaded(golden, files.changed(tmp_path, fewer_blocks))


def written(folder: Path, head: bytes, data: bytes = b"") -> Path:
    path = folder / "made.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return path


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": 3}', "a is in it twice"),
        (b'{"a":' * 100_000, "no safetensors file that can be read"),
        (b'{"a": 3}', "no safetensors file that can be read"),
    ],
)
def test_damaged_heads_are_refused(tmp_path: Path, head: bytes, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_header(written(tmp_path, head, b"abcd"))


@pytest.mark.parametrize("tail", [600, 1500])
def test_a_torn_last_matrix_is_an_unfinished_download(tmp_path: Path, tail: int) -> None:
    save_file({"a": torch.ones(32, 32), "b.weight": torch.ones(32, 32)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-tail] + bytes(tail))
    with pytest.raises(CheckpointError, match="is an unfinished download: from b.weight on"):
        check_finished(read_header(tmp_path / "a.safetensors"))


def test_a_lora_that_has_learned_nothing_is_whole(tmp_path: Path) -> None:
    tensors = {"x.lora_A.weight": torch.ones(16, 64), "x.lora_B.weight": torch.zeros(64, 16)}
    save_file(tensors, tmp_path / "new.safetensors")
    check_finished(read_header(tmp_path / "new.safetensors"))


VALUES: dict[str, tuple[float, torch.dtype]] = {
    "fp8": (float("nan"), torch.float8_e4m3fn),
    "e5m2": (float("inf"), torch.float8_e5m2),
    "fp16": (float("inf"), torch.float16),
}


@pytest.mark.parametrize("kind", VALUES)
def test_numbers_that_are_none(golden: Case, tmp_path: Path, kind: str) -> None:
    value, dtype = VALUES[kind]

    def poison(tensors: files.Tensors) -> None:
        numbers = tensors["txt_in.weight"].float()
        numbers[-1, -1] = value
        tensors["txt_in.weight"] = numbers.to(dtype)

    change: Callable[[files.Tensors], None] = poison
    with pytest.raises(CheckpointError, match="txt_in.weight holds NaN or infinite"):
        loaded(golden, files.changed(tmp_path, change))
