"""Kinds of weights files: each loads to its own numbers, and relatives are refused by what they are."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.golden import Case
from tests.support import weight_files as files
from uso.errors import CheckpointError
from uso.weights.checkpoints import load_autoencoder, load_text_encoder_2, load_transformer
from uso.weights.formats.headers import read_header
from uso.weights.formats.kinds import identify
from uso.weights.formats.layouts import flux_part


def loaded(golden: Case, *paths: Path) -> dict[str, torch.Tensor]:
    module = load_transformer(golden.transformer_config(), list(paths), dtype=torch.float32)
    return dict(module.named_parameters())


def by_flux_names(parameters: dict[str, torch.Tensor], worth: files.Tensors) -> None:
    """Hold a module's parameters against numbers by FLUX's names, bit for bit."""
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    for name, value in parameters.items():
        part = flux_part(name)
        start = sum(shapes[other][0] for other in part.fused[: part.index])
        expected = worth[part.source][start : start + shapes[name][0]]
        if part.swap_halves:
            expected = torch.cat(expected.chunk(2)[::-1])
        assert torch.equal(value, expected), name


EXACT: dict[str, Callable[[Path], files.Written]] = {
    "bf16": files.plain,
    "fp16": lambda folder: files.plain(folder, torch.float16),
    "fp32": lambda folder: files.plain(folder, torch.float32),
    "sft": lambda folder: files.plain(folder, name="flux1-dev.sft"),
    "upper case": lambda folder: files.plain(folder, name="FLUX1-DEV.SAFETENSORS"),
    **{
        prefix: lambda folder, prefix=prefix: files.plain(folder, prefix=prefix)  # type: ignore[misc]
        for prefix in ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.", "unet.")
    },
    "all in one": files.all_in_one,
    "gguf bf16": lambda folder: files.gguf_file(folder, "BF16"),
}


@pytest.mark.parametrize("kind", EXACT)
def test_exact_kinds_load_to_the_released_numbers(golden: Case, tmp_path: Path, kind: str) -> None:
    """Catches a prefix that is not taken off, and an ending that decides what the content should."""
    path, worth = EXACT[kind](tmp_path)
    by_flux_names(loaded(golden, path), worth)
    if kind != "fp16":
        truth = {name: value.float() for name, value in files.flux_tensors().items()}
        assert all(torch.equal(worth[name], truth[name]) for name in truth)


def test_a_diffusers_folder_in_parts_is_the_same_network(golden: Case, tmp_path: Path) -> None:
    whole = loaded(golden, files.FLUX)
    paths = files.diffusers_parts(tmp_path, {name: tuple(value.shape) for name, value in whole.items()})
    parts = loaded(golden, *paths)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


QUANTISED: dict[str, Callable[[Path], files.Written]] = {
    "fp8 e4m3": lambda folder: files.fp8(folder, "e4m3"),
    "fp8 e5m2": lambda folder: files.fp8(folder, "e5m2"),
    "fp8 scaled, old": lambda folder: files.fp8_scaled(folder, "old"),
    "fp8 scaled, new": lambda folder: files.fp8_scaled(folder, "new"),
    "fp8 scaled by rows": lambda folder: files.fp8_scaled(folder, "new", rows=True),
    "nf4": files.nf4,
    **{
        f"gguf {kind}": lambda folder, kind=kind: files.gguf_file(folder, kind)  # type: ignore[misc]
        for kind in ("F16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1")
    },
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_kinds_load_to_their_own_numbers(golden: Case, tmp_path: Path, kind: str) -> None:
    """Catches a scale that is left out, applied to the wrong rows of a fused matrix, or applied twice."""
    path, worth = QUANTISED[kind](tmp_path)
    by_flux_names(loaded(golden, path), worth)
    truth = files.flux_tensors()
    name = "double_blocks.0.img_attn.qkv.weight"
    apart = (worth[name] - truth[name].float()).norm() / truth[name].float().norm()
    assert 0 < apart < 0.15  # it is a quantisation of these numbers, and not these numbers


@pytest.mark.parametrize("kind", ["Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"])
def test_k_quants_are_what_the_gguf_package_says(tmp_path: Path, kind: str) -> None:
    """Their blocks are 256 wide, wider than the golden network: rows of one matrix, whole and in part."""
    import gguf
    import numpy as np
    from gguf.quants import dequantize

    from uso.weights.formats.tensor_files import TensorFiles

    number = gguf.GGMLQuantizationType[kind]
    packed = files._quantised(np.zeros((6, 512), np.float32), number)
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "flux")
    writer.add_tensor("double_blocks.0.img_attn.qkv.weight", packed, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = torch.from_numpy(np.array(dequantize(packed, number)))
    with TensorFiles([tmp_path / "k.gguf"]) as opened:
        name = "double_blocks.0.img_attn.qkv.weight"
        assert opened.shapes[name] == (6, 512)
        assert torch.equal(opened.whole(name), expected)
        assert torch.equal(opened.rows(name, 2, 5), expected[2:5])
        assert expected.abs().max() > 0


def test_coarse_kinds_are_told(golden: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = files.fp8(tmp_path, "e4m3")
    with caplog.at_level(logging.WARNING):
        loaded(golden, path)
    assert "stores its weights as fp8 e4m3: pictures differ visibly" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        loaded(golden, files.FLUX)
    assert not caplog.text


def test_the_lora_is_folded_into_the_dequantised_numbers(golden: Case, tmp_path: Path) -> None:
    """Catches a LoRA that is rounded with the weights."""
    path, worth = files.gguf_file(tmp_path, "Q8_0")
    lora = golden.folder / "dit_lora.safetensors"
    module = load_transformer(golden.transformer_config(), [path], lora=[lora], lora_scale=0.5, dtype=torch.float32)
    tensors = load_file(lora)
    base = "double_blocks.0.processor.proj_lora1"
    change = 0.5 * tensors[f"{base}.up.weight"].float() @ tensors[f"{base}.down.weight"].float()
    found = dict(module.named_parameters())["transformer_blocks.0.attn.to_out.0.weight"]
    torch.testing.assert_close(found, worth["double_blocks.0.img_attn.proj.weight"] + change, rtol=0, atol=1e-7)


# Refusals


def renamed(change: Callable[[str], str]) -> Callable[[files.Tensors], None]:
    def apply(tensors: files.Tensors) -> None:
        for name in list(tensors):
            tensors[change(name)] = tensors.pop(name)

    return apply


def widened(width: int) -> Callable[[files.Tensors], None]:
    def apply(tensors: files.Tensors) -> None:
        rows = tensors["img_in.weight"].shape[0]
        tensors["img_in.weight"] = torch.ones(rows, width, dtype=torch.bfloat16)

    return apply


def without_guidance(tensors: files.Tensors) -> None:
    for name in [name for name in tensors if name.startswith("guidance_in.")]:
        del tensors[name]


def with_entry(name: str, value: torch.Tensor) -> Callable[[files.Tensors], None]:
    return lambda tensors: tensors.update({name: value})


def poisoned(value: float) -> Callable[[files.Tensors], None]:
    def apply(tensors: files.Tensors) -> None:
        tensors["txt_in.weight"].view(-1)[7] = value

    return apply


REFUSED: dict[str, tuple[Callable[[files.Tensors], None], str]] = {
    "Fill": (widened(384), "is FLUX.1 Fill.*384 input channels"),
    "Depth": (widened(128), "is FLUX.1 Depth or Canny.*128 input channels"),
    "schnell": (without_guidance, "is FLUX.1-schnell's transformer, which takes no guidance.*--model flux-schnell"),
    "Chroma": (with_entry("distilled_guidance_layer.in_proj.weight", torch.ones(4, 4)), "is Chroma"),
    "FLUX.2": (with_entry("single_stream_modulation.lin.weight", torch.ones(4, 4)), "is FLUX.2"),
    "int8": (with_entry("double_blocks.0.img_attn.qkv.SCB", torch.ones(4)), "int8 by bitsandbytes"),
    "AWQ": (with_entry("double_blocks.0.img_attn.qkv.qweight", torch.ones(4, 4)), "AWQ or GPTQ"),
    "svdquant": (with_entry("double_blocks.0.img_attn.qkv.wscales", torch.ones(4, 4)), "svdquant"),
    "NaN": (poisoned(float("nan")), "txt_in.weight holds NaN or infinite"),
    "inf": (poisoned(float("inf")), "txt_in.weight holds NaN or infinite"),
}


@pytest.mark.parametrize("relative", REFUSED)
def test_relatives_are_refused_by_name(golden: Case, tmp_path: Path, relative: str) -> None:
    """Catches a list of keys where a name would do, and a load that goes on to wrong pictures."""
    change, says = REFUSED[relative]
    with pytest.raises(CheckpointError, match=says):
        loaded(golden, files.changed(tmp_path, change))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"redux_up.weight": (8, 4), "redux_down.weight": (4, 8)}, "is FLUX.1 Redux"),
        ({"input_blocks.0.0.weight": (4, 4, 3, 3)}, "is an SDXL or Stable Diffusion model"),
        ({"joint_blocks.0.x_block.attn.qkv.weight": (4, 4)}, "is a Stable Diffusion 3 model"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (2, 4)}, "is a LoRA .*--add-lora"),
        ({"transformer.single_transformer_blocks.0.proj_out.lora_A.weight": (2, 4)}, "is a LoRA.*--add-lora"),
        ({"img_in.lora_A.weight": (2, 128)}, "is a control LoRA"),
        ({"controlnet_blocks.0.weight": (4, 4)}, "is a ControlNet"),
        ({"encoder.down.0.block.0.conv1.weight": (8, 3, 3, 3)}, "holds FLUX.1's autoencoder, not .*--vae"),
        ({"text_model.embeddings.token_embedding.weight": (49408, 768)}, "holds CLIP-L's text model.*--text-encoder"),
        ({"anything": (4, 4)}, "is no file that this program knows"),
    ],
)
def test_other_files_in_the_transformers_slot(
    golden: Case, tmp_path: Path, names: dict[str, tuple[int, ...]], says: str
) -> None:
    save_file({name: torch.ones(shape) for name, shape in names.items()}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=says):
        loaded(golden, tmp_path / "other.safetensors")


def test_kontext_is_known_by_its_name(golden: Case, tmp_path: Path) -> None:
    path, _ = files.plain(tmp_path, name="flux1-kontext-dev.safetensors")
    with pytest.raises(CheckpointError, match="is FLUX.1 Kontext"):
        loaded(golden, path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 23802932552\n", "is a git-LFS pointer"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "is a web page"),
        (b"PK\x03\x04" + b"\0" * 64, "is a PyTorch pickle"),
        (b"\x80\x02}q\x00." + b"\1" * 64, "is a pickle"),
        (b"", "is truncated: it has 0 bytes"),
        (b"\0" * 4096, "is an unfinished download: it begins with zeros"),
        (b"GGUF\3\0\0\0" + b"\1" * 40, "is no GGUF file that can be read"),
        (b"\x07\x01 not weights at all, but long enough", "is no safetensors or GGUF file"),
        (b"Access to model X is restricted. You must be authenticated.", "holds text, not weights: .* needs a login"),
        (b'{"error": "Repository not found"}', "holds text, not weights"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "is a web page"),
    ],
)
def test_files_that_are_no_weights_are_named(golden: Case, tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "flux.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=says):
        loaded(golden, tmp_path / "flux.safetensors")


def test_a_header_may_begin_like_a_pickle(tmp_path: Path) -> None:
    """Catches a safetensors file whose header is as long as a pickle's first bytes say."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    length = 0x0280
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + b"\0\0\x80?")
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert list(read_header(path).tensors) == ["a"]


def test_a_download_that_reserved_its_room_is_refused(golden: Case, tmp_path: Path) -> None:
    """A file of full size whose end was never written; one that ends in a zero bias is whole."""
    path, _ = files.plain(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3] + b"\0" * (len(data) - len(data) * 2 // 3))
    with pytest.raises(CheckpointError, match=r"is an unfinished download: from .* on it holds zeros alone"):
        loaded(golden, path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="is truncated: "):
        loaded(golden, path)


def test_one_file_gives_several_components(golden: Case, tmp_path: Path) -> None:
    path, _ = files.all_in_one(tmp_path)
    assert [content.component for content in identify(read_header(path))] == ["transformer", "vae"]
    autoencoder = load_autoencoder(golden.autoencoder_config(), [path])
    alone = load_autoencoder(golden.autoencoder_config(), [golden.folder / "ae.safetensors"])
    for (name, value), (_, other) in zip(autoencoder.named_parameters(), alone.named_parameters(), strict=True):
        assert torch.equal(value, other), name


T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 64}
T5_CONFIG: dict[str, Any] = T5 | {"feed_forward_proj": "gated-gelu", "is_encoder_decoder": False}


@pytest.fixture
def t5() -> files.Tensors:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    model = T5EncoderModel(T5Config(**T5_CONFIG))
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_t5_with_its_decoder_or_under_its_second_name(t5: files.Tensors, tmp_path: Path) -> None:
    """Catches an embedding that is missed because it is stored as `encoder.embed_tokens` alone, its scale with it."""
    rest = {name: value for name, value in t5.items() if name != "shared.weight"}
    decoder = {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(32, 32), "lm_head.weight": torch.ones(4, 4)}
    save_file({**t5, **decoder}, tmp_path / "with-decoder.safetensors")
    scale = t5["shared.weight"].abs().max() / 448
    packed = (t5["shared.weight"] / scale).to(torch.float8_e4m3fn)
    save_file(
        {**rest, "encoder.embed_tokens.weight": packed, "encoder.embed_tokens.scale_weight": scale},
        tmp_path / "second-name.safetensors",
    )
    whole = load_text_encoder_2(T5_CONFIG, [tmp_path / "with-decoder.safetensors"], dtype=torch.float32)
    assert all(torch.equal(value, t5[name]) for name, value in whole.named_parameters())
    second = load_text_encoder_2(T5_CONFIG, [tmp_path / "second-name.safetensors"], dtype=torch.float32)
    assert torch.equal(second.shared.weight, packed.float() * scale)


def test_t5_in_gguf(t5: files.Tensors, tmp_path: Path) -> None:
    """Catches one of llama.cpp's names that leads elsewhere: the gate and the projection beside it have one shape."""
    import gguf

    names = {
        "shared.weight": "token_embd.weight",
        "encoder.final_layer_norm.weight": "enc.output_norm.weight",
    }
    leaves = {
        "layer.0.SelfAttention.q": "attn_q",
        "layer.0.SelfAttention.k": "attn_k",
        "layer.0.SelfAttention.v": "attn_v",
        "layer.0.SelfAttention.o": "attn_o",
        "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
        "layer.0.layer_norm": "attn_norm",
        "layer.1.DenseReluDense.wi_0": "ffn_gate",
        "layer.1.DenseReluDense.wi_1": "ffn_up",
        "layer.1.DenseReluDense.wo": "ffn_down",
        "layer.1.layer_norm": "ffn_norm",
    }
    writer = gguf.GGUFWriter(tmp_path / "t5.gguf", "t5encoder")
    for name, value in t5.items():
        told = names.get(name)
        if told is None:
            _, _, block, rest = name.split(".", 3)
            told = f"enc.blk.{block}.{leaves[rest.removesuffix('.weight')]}.weight"
        writer.add_tensor(told, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = load_text_encoder_2(T5_CONFIG, [tmp_path / "t5.gguf"], dtype=torch.float32)
    assert all(torch.equal(value, t5[name]) for name, value in model.named_parameters())
