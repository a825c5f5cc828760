"""LoRAs of other programs: every format changes the same weights by the same numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file

from tests.golden import Case
from tests.support.lora_files import ALPHA, FORMATS, OUT, RANK, SOURCES, Tensors, kohya, opened, pair, pairs
from tests.support.weight_files import FLUX
from uso.weights.checkpoints import load_transformer
from uso.weights.formats.loras import Targets
from uso.weights.formats.patches import Patches, total_change


def expected_changes(targets: Targets, scale: float) -> Tensors:
    """By diffusers' names, written out: rows of fused matrices, and halves that FLUX has in the other order."""
    found = {name: scale * up @ down for name, (down, up) in pairs(targets).items()}
    qkv, linear1 = found["double_blocks.0.img_attn.qkv"], found["single_blocks.0.linear1"]
    width = qkv.shape[1]
    shift, scale_rows = found["final_layer.adaLN_modulation.1"].chunk(2)
    return {
        "transformer_blocks.0.attn.to_q.weight": qkv[:width],
        "transformer_blocks.0.attn.to_k.weight": qkv[width : 2 * width],
        "transformer_blocks.0.attn.to_v.weight": qkv[2 * width :],
        "transformer_blocks.1.ff_context.net.0.proj.weight": found["double_blocks.1.txt_mlp.0"],
        "transformer_blocks.0.norm1.linear.weight": found["double_blocks.0.img_mod.lin"],
        "single_transformer_blocks.0.attn.to_q.weight": linear1[:width],
        "single_transformer_blocks.0.attn.to_v.weight": linear1[2 * width : 3 * width],
        "single_transformer_blocks.0.proj_mlp.weight": linear1[3 * width :],
        "single_transformer_blocks.1.proj_out.weight": found["single_blocks.1.linear2"],
        "norm_out.linear.weight": torch.cat([scale_rows, shift]),
    }


def changed(patches: Patches | None, name: str, like: torch.Tensor, step: int = 5) -> torch.Tensor:
    """What is added to a parameter, `step` rows at a time, in memory that held other numbers."""
    assert patches is not None
    rows = patches.rows(name)
    assert rows is not None
    into = torch.full(like.shape, torch.nan)
    for start in range(0, len(like), step):
        stop = min(start + step, len(like))
        rows(start, stop, into[start:stop])
    return into


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_changes_the_same_rows(targets: Targets, tmp_path: Path, kind: str) -> None:
    """Catches alpha left out (twice the change here), a fused matrix cut at the wrong row, halves swapped."""
    lora = opened(FORMATS[kind](targets), tmp_path / "lora.safetensors", targets, strength=0.5)
    assert lora.transformer is not None and lora.text_encoder is None
    expected = expected_changes(targets, 0.5 * ALPHA / RANK)
    for name, change in expected.items():
        torch.testing.assert_close(changed(lora.transformer, name, change), change, rtol=0, atol=1e-6, msg=name)
    untouched = set(targets.transformer) - set(expected) - {"single_transformer_blocks.0.attn.to_k.weight"}
    assert all(lora.transformer.rows(name) is None for name in untouched if name.endswith(".weight"))


@pytest.mark.parametrize("metadata", [{}, {"lora_alpha": 2.0, "r": 4}])
def test_diffusers_own_layout(targets: Targets, tmp_path: Path, metadata: dict[str, float]) -> None:
    """Without an alpha the scale is 1; with one in the file's head it is alpha / rank."""
    shape = targets.transformer["transformer_blocks.0.attn.to_k.weight"]
    down, up = pair(shape, 0)
    base = "transformer.transformer_blocks.0.attn.to_k"
    text = json.dumps({f"transformer.{key}": value for key, value in metadata.items()})
    lora = opened(
        {f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up},
        tmp_path / "lora.safetensors",
        targets,
        metadata={"lora_adapter_metadata": text} if metadata else None,
    )
    assert lora.transformer is not None
    scale = 0.5 if metadata else 1.0
    expected = scale * up @ down
    found = changed(lora.transformer, "transformer_blocks.0.attn.to_k.weight", expected)
    torch.testing.assert_close(found, expected)
    assert lora.transformer.rows("transformer_blocks.0.attn.to_q.weight") is None


def test_kohya_is_what_diffusers_makes_of_it(targets: Targets, tmp_path: Path) -> None:
    """diffusers' own converter as an oracle, where it is right."""
    # Its cuts of `linear1` assume FLUX's own width.
    names = [name for name in SOURCES if not any(part in name for part in ("mod", "adaLN", "linear1"))]
    tensors = {key: value for key, value in kohya(targets).items() if any(n.replace(".", "_") in key for n in names)}
    lora = opened(tensors, tmp_path / "lora.safetensors", targets)
    assert lora.transformer is not None
    state, alphas = FluxPipeline.lora_state_dict(str(tmp_path / "lora.safetensors"), return_alphas=True)
    modules = {key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")}
    assert len(modules) == 5
    for module in modules:
        down, up = state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"]
        scale = alphas.get(f"{module}.alpha", down.shape[0]) / down.shape[0] if alphas else 1.0
        expected = (scale * up @ down).float()
        found = changed(lora.transformer, f"{module.removeprefix('transformer.')}.weight", expected)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=module)


def test_text_encoders_are_changed_too(targets: Targets, tmp_path: Path) -> None:
    """Catches keys of CLIP and T5 that are lost."""
    clip_name, t5_name = "encoder.layers.0.mlp.fc1.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"
    clip = next(name for name in targets.texts["text_encoder"] if name.endswith(clip_name))
    clip_down, clip_up = pair(targets.texts["text_encoder"][clip], 1)
    t5_down, t5_up = pair(targets.texts["text_encoder_2"][t5_name], 2)
    tensors = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": clip_down,
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": clip_up,
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(ALPHA),
        "lora_te2_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight": t5_down,
        "lora_te2_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight": t5_up,
    }
    lora = opened(tensors, tmp_path / "lora.safetensors", targets)
    assert lora.transformer is None and lora.text_encoder is not None and lora.text_encoder_2 is not None
    expected = ALPHA / RANK * clip_up @ clip_down
    torch.testing.assert_close(changed(lora.text_encoder, clip, expected), expected)
    torch.testing.assert_close(changed(lora.text_encoder_2, t5_name, t5_up @ t5_down), t5_up @ t5_down)


@pytest.mark.parametrize("full", [True, False])
def test_lokr_is_a_kronecker_product(targets: Targets, tmp_path: Path, full: bool) -> None:
    """Two full matrices carry their own scale; a factored one is scaled by alpha / rank."""
    name = "double_blocks.0.img_attn.proj"
    rows, columns = targets.sources[f"{name}.weight"]
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(2, 2, generator=draw)
    a, b = torch.randn(rows // 2, RANK, generator=draw), torch.randn(RANK, columns // 2, generator=draw)
    base = f"lycoris_{name.replace('.', '_')}"
    tensors = {f"{base}.lokr_w1": first, f"{base}.alpha": torch.tensor(ALPHA)}
    tensors |= {f"{base}.lokr_w2": a @ b} if full else {f"{base}.lokr_w2_a": a, f"{base}.lokr_w2_b": b}
    lora = opened(tensors, tmp_path / "lokr.safetensors", targets)
    assert lora.transformer is not None
    expected = (1.0 if full else ALPHA / RANK) * torch.kron(first, a @ b)
    found = changed(lora.transformer, "transformer_blocks.0.attn.to_out.0.weight", expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_usos_own_layout_can_be_added(golden: Case, targets: Targets, tmp_path: Path) -> None:
    """As a second LoRA it adds what it adds as the first."""
    tensors = load_file(golden.folder / "dit_lora.safetensors")
    lora = opened(tensors, tmp_path / "second.safetensors", targets, strength=0.5)
    own, bare = golden.folder / "dit_lora.safetensors", golden.transformer_config()
    first = load_transformer(bare, [FLUX], lora=[own], lora_scale=1.5, dtype=torch.float32)
    both = load_transformer(bare, [FLUX], lora=[own], added=[lora], dtype=torch.float32)
    for (name, one), (_, other) in zip(first.named_parameters(), both.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=name)


def test_several_loras_are_summed_before_one_rounding(golden: Case, targets: Targets, tmp_path: Path) -> None:
    """Catches a sum that is rounded to bfloat16 in between: it differs from the sum of all in float32."""
    loras = [
        opened(kohya(targets), tmp_path / f"{number}.safetensors", targets, strength=strength)
        for number, strength in enumerate((0.003, 0.007, -0.002))
    ]
    module = load_transformer(golden.transformer_config(), [FLUX], added=loras, dtype=torch.bfloat16)
    plain = load_transformer(golden.transformer_config(), [FLUX], dtype=torch.float32)
    name = "transformer_blocks.0.attn.to_q.weight"
    base = dict(plain.named_parameters())[name]
    changes = [changed(lora.transformer, name, base) for lora in loras]
    once = (base + sum(changes)).to(torch.bfloat16)
    rounded = base.to(torch.bfloat16)
    for change in changes:
        rounded = (rounded.float() + change).to(torch.bfloat16)
    found = dict(module.named_parameters())[name]
    assert torch.equal(found, once) and not torch.equal(found, rounded)
    assert total_change([lora.transformer for lora in loras if lora.transformer], "x_embedder.weight") is None


PEFT: dict[str, tuple[dict[str, Any], float]] = {
    "pattern for the end of a name": ({"lora_alpha": 8, "r": 4, "alpha_pattern": {"attn.to_out.0": 2}}, 0.5),
    "expression": ({"lora_alpha": 8, "r": 16, "alpha_pattern": {r"transformer_blocks\.\d+\..*": 1}}, 0.25),
    "rslora": ({"lora_alpha": 8, "r": 16, "rank_pattern": {OUT: 4}, "use_rslora": True}, 4.0),
}


@pytest.mark.parametrize("kind", PEFT)
@pytest.mark.parametrize("beside", [False, True])
def test_pefts_settings(targets: Targets, tmp_path: Path, kind: str, beside: bool) -> None:
    """In the file's head, or in `adapter_config.json` beside it."""
    settings, scale = PEFT[kind]
    down, up = pair(targets.transformer[f"{OUT}.weight"], 0)
    base = f"{'base_model.model' if beside else 'transformer'}.{OUT}"
    text = json.dumps({f"transformer.{key}": value for key, value in settings.items()})
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    lora = opened(
        {f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up},
        tmp_path / ("adapter_model.safetensors" if beside else "lora.safetensors"),
        targets,
        metadata=None if beside else {"lora_adapter_metadata": text},
    )
    assert lora.transformer is not None and down.shape[0] == 4
    found = changed(lora.transformer, f"{OUT}.weight", up @ down)
    torch.testing.assert_close(found, scale * up @ down, rtol=1e-5, atol=1e-5)


T5_MODULE = "encoder_block_0_layer_0_SelfAttention_q"


@pytest.mark.parametrize(
    ("module", "leaves", "component"),
    [
        (f"lora_te3_{T5_MODULE}", ("lora_down", "lora_up"), "text_encoder_2"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", ("lora_linear_layer.down", "lora_linear_layer.up"), ""),
        ("lora_transformer." + OUT, ("lora_down", "lora_up"), "transformer"),
        ("lora_unet_img_in", ("lora_down", "lora_up"), "transformer"),
    ],
)
def test_rarer_names_of_modules(
    targets: Targets, tmp_path: Path, module: str, leaves: tuple[str, str], component: str
) -> None:
    """kohya's T5, diffusers' older leaves, OneTrainer's dots, kohya's input layer (which is no control LoRA)."""
    kind, name = targets.find(module)  # type: ignore[misc]
    down, up = pair(targets.shape(kind, name), 3)
    tensors = {f"{module}.{leaves[0]}.weight": down, f"{module}.{leaves[1]}.weight": up}
    patches = opened(tensors, tmp_path / "lora.safetensors", targets).of(component or "text_encoder")
    parameter = "x_embedder.weight" if "img_in" in module else name
    assert patches is not None
    torch.testing.assert_close(changed(patches, parameter, up @ down), up @ down, rtol=1e-5, atol=1e-5)
