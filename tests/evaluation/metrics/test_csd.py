"""The style descriptor: the published checkpoint's layout is read whole or refused, and gradients reach the pixels.

The reference below is CLIP's visual tower as OpenAI wrote it down (names and order of operations), in plain torch.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.conftest import draw_picture
from tests.support.tiny_encoders import CSD_LAYERS as LAYERS
from tests.support.tiny_encoders import CSD_PATCH as PATCH
from tests.support.tiny_encoders import CSD_SIDE as SIDE
from tests.support.tiny_encoders import CSD_WIDTH as WIDTH
from tests.support.tiny_encoders import Tensors, csd_checkpoint
from uso.errors import CheckpointError
from uso.evaluation.metrics.csd import CSD, MEAN, STD, csd_descriptor, load_csd
from uso.evaluation.metrics.pixels import prepare_picture


def reference(state: Tensors, prepared: torch.Tensor) -> torch.Tensor:
    """Style vectors by the checkpoint's own names: convolution, class token, blocks, last norm, matrix."""
    own = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(values, (WIDTH,), own[f"{name}.weight"], own[f"{name}.bias"])

    tokens = functional.conv2d(prepared, own["conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    start = own["class_embedding"].expand(len(prepared), 1, -1)
    hidden = norm(torch.cat([start, tokens], 1) + own["positional_embedding"], "ln_pre")
    for layer in range(LAYERS):
        block = f"transformer.resblocks.{layer}."
        attention = nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True)
        attention.load_state_dict({key[len(block) + 5 :]: own[key] for key in own if key.startswith(f"{block}attn.")})
        normed = norm(hidden, f"{block}ln_1")
        hidden = hidden + attention(normed, normed, normed, need_weights=False)[0]
        inner = functional.linear(
            norm(hidden, f"{block}ln_2"), own[f"{block}mlp.c_fc.weight"], own[f"{block}mlp.c_fc.bias"]
        )
        inner = inner * torch.sigmoid(1.702 * inner)
        hidden = hidden + functional.linear(inner, own[f"{block}mlp.c_proj.weight"], own[f"{block}mlp.c_proj.bias"])
    return functional.normalize(norm(hidden[:, 0], "ln_post") @ own["last_layer_style"], dim=1)


def saved(path: Path, state: Tensors, prefix: str = "", wrapped: bool = False) -> Path:
    named: Any = {prefix + name: tensor for name, tensor in state.items()}
    if wrapped:  # as the authors' training left it: arguments and numpy numbers beside the tensors
        named = {"model_state_dict": named, "iter": 7, "args": argparse.Namespace(lr=np.float64(0.1)), "opt_bb": {}}
    torch.save(named, path)
    return path


def pixels(side: int = SIDE, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand((2, 3, side, side), generator=draw) * 2 - 1


@pytest.mark.parametrize(("prefix", "wrapped"), [("", False), ("module.", False), ("module.", True)])
def test_both_spellings_give_the_reference(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    """Catches a tensor under a wrong name, q, k and v in another order, another activation, a forgotten last norm."""
    state = csd_checkpoint()
    model = load_csd(saved(tmp_path / "csd.bin", state, prefix, wrapped))
    assert model.side == SIDE
    inputs = pixels()
    with torch.no_grad():
        found = model(inputs)
        expected = reference(state, model.prepare(inputs))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    "key",
    [
        "last_layer_style",
        "last_layer_content",
        "backbone.ln_post.bias",
        "backbone.transformer.resblocks.1.attn.in_proj_bias",
    ],
)
def test_a_missing_tensor_stops_the_load(tmp_path: Path, key: str) -> None:
    """Catches the silent miss that leaves plain CLIP, or a layer of random numbers."""
    state = csd_checkpoint()
    del state[key]
    with pytest.raises(CheckpointError, match="lacks"):
        load_csd(saved(tmp_path / "csd.bin", state))


def test_foreign_and_misshapen_tensors_stop_the_load(tmp_path: Path) -> None:
    """Catches a port whose other names would be passed over, and another model's tensor."""
    foreign = csd_checkpoint() | {"backbone.head.weight": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"holds more than CSD has: backbone\.head\.weight"):
        load_csd(saved(tmp_path / "foreign.bin", foreign))
    misshapen = csd_checkpoint() | {"last_layer_content": torch.zeros(WIDTH, 3)}
    with pytest.raises(CheckpointError, match=r"other shapes: last_layer_content"):
        load_csd(saved(tmp_path / "misshapen.bin", misshapen))


class Dangerous:
    """What a pickle can do: call anything while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """Catches a load that trusts pickles: weights come from strangers."""
    torch.save({"model_state_dict": csd_checkpoint(), "args": Dangerous(tmp_path / "ran")}, tmp_path / "csd.bin")
    with pytest.raises(CheckpointError, match="could not be read as a checkpoint of tensors"):
        load_csd(tmp_path / "csd.bin")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """Catches an error of somebody else's words, or none, for a wrong path."""
    with pytest.raises(CheckpointError, match="is not there"):
        load_csd(tmp_path / "nothing.bin")
    with pytest.raises(CheckpointError, match="needs its weights"):
        csd_descriptor(None)
    (tmp_path / "text.bin").write_text("no weights")
    with pytest.raises(CheckpointError, match="could not be read"):
        load_csd(tmp_path / "text.bin")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CSD:
    return csd_descriptor(str(saved(tmp_path_factory.mktemp("csd") / "csd.bin", csd_checkpoint())))


@pytest.mark.parametrize("size", [(56, 56), (100, 80), (70, 131), (300, 200), (59, 56)])
def test_the_differentiable_path_agrees_with_pillow(model: CSD, size: tuple[int, int]) -> None:
    """Catches another filter, crop or normalisation on the way of the reward; Pillow rounds after each direction."""
    picture = draw_picture(*size)
    tensor = torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    expected = prepare_picture(picture, model.side, model.side, MEAN, STD)
    difference = (model.prepare(tensor)[0] - expected).abs() * torch.tensor(STD).view(3, 1, 1) * 255
    assert difference.mean() < 0.3 and difference.max() < 10  # of 255; the largest at hard edges
    with torch.no_grad():
        cosine = (model(tensor) * model.style_of([picture])).sum()
    assert cosine > 0.9999


def test_gradients_reach_the_pixels_and_not_the_weights(model: CSD) -> None:
    """Catches a reward that teaches nothing, or that moves its own judge."""
    inputs = pixels(80).requires_grad_()
    model(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
