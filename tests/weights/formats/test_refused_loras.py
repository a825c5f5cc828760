"""LoRAs that are refused: nothing is left out in silence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.golden import Case
from tests.support.lora_files import OUT, RANK, kohya, opened, pair
from tests.support.weight_files import FLUX
from uso.errors import CheckpointError
from uso.weights.checkpoints import load_transformer
from uso.weights.formats.loras import Targets


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.dora_scale", "is a DoRA"),
        ("lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a", "is a LoHa"),
        ("diffusion_model.img_in.lora_B.bias", "is a control LoRA"),
        ("diffusion_model.double_blocks.0.img_attn.qkv.diff_b", "is a file of whole differences"),
        ("lora_unet_double_blocks_77_img_attn_qkv.lora_down.weight", r"1 of its 19 tensors have no use here"),
        ("something.else", r"1 of its 19 tensors have no use here \(something.else\)"),
    ],
)
def test_nothing_is_left_out_in_silence(targets: Targets, tmp_path: Path, entry: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        opened({**kohya(targets), entry: torch.ones(4, 4)}, tmp_path / "lora.safetensors", targets)


def test_a_lora_of_another_width_is_refused(targets: Targets, tmp_path: Path) -> None:
    down, up = torch.ones(RANK, 8), torch.ones(24, RANK)
    base = "diffusion_model.double_blocks.0.img_attn.qkv"
    with pytest.raises(CheckpointError, match=r"does not fit this model: .*qkv changes a matrix of shape \[24, 8\]"):
        opened({f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up}, tmp_path / "lora.safetensors", targets)


def test_unos_lora_is_refused_by_name(golden: Case, targets: Targets, tmp_path: Path) -> None:
    tensors = load_file(golden.folder / "dit_lora.safetensors")
    with pytest.raises(CheckpointError, match="is UNO's LoRA"):
        opened(tensors, tmp_path / "uno-dit_lora.safetensors", targets)


ONE = "diffusion_model.double_blocks.0.img_attn.proj"


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"img_in.lora_A.weight": (4, 128), "img_in.lora_B.weight": (64, 4)}, "is a control LoRA"),
        ({f"{ONE}.lora_A.weight": (0, 64), f"{ONE}.lora_B.weight": (64, 0)}, "is empty"),
        ({f"{ONE}.lora_A.weight": (4, 64), f"{ONE}.lora_B.weight": (64, 4), f"{ONE}.alpha": (3,)}, "not one finite"),
        ({f"{ONE}.lora_A.weight": (4, 64)}, "one half of its LoRA alone"),
        (
            {
                "double_blocks.0.img_mod.lin.lora_A.weight": (4, 64),
                "double_blocks.0.img_mod.lin.lora_B.weight": (192, 4),
            },
            "does not fit this model",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    targets: Targets, tmp_path: Path, tensors: dict[str, tuple[int, ...]], says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        opened({name: torch.ones(shape) for name, shape in tensors.items()}, tmp_path / "lora.safetensors", targets)


def test_a_lora_of_no_numbers_is_refused(golden: Case, targets: Targets, tmp_path: Path) -> None:
    down, up = pair(targets.transformer[f"{OUT}.weight"], 0)
    tensors = {f"transformer.{OUT}.lora_A.weight": down * float("nan"), f"transformer.{OUT}.lora_B.weight": up}
    lora = opened(tensors, tmp_path / "lora.safetensors", targets)
    with pytest.raises(CheckpointError, match="The LoRAs make .* NaN or infinite"):
        load_transformer(golden.transformer_config(), [FLUX], added=[lora])
