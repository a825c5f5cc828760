"""The LoRA that learns against the one that is loaded: names, shapes, the same network; and the int8 base."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.golden import BOUND, Case, relative_error
from tests.support.tiny_training import GOLDEN, tiny_batches, tiny_config, training_pipeline, write_rows
from uso.config import load_model_config
from uso.errors import CheckpointError
from uso.forecast.meta_model import MetaModel
from uso.pipeline.latents import pack
from uso.pipeline.pipeline import USOPipeline
from uso.training.losses.flow import conditioning_of, predict
from uso.training.losses.seeds import generator
from uso.training.model.adapters import Learners, Lora
from uso.training.model.export import FILES, released, write_safetensors
from uso.training.model.quantized import NF4, Bits, FrozenInt8Linear, FrozenNf4Linear, quantize_base
from uso.weights.checkpoints import load_transformer


def shaken(learners: Learners) -> Learners:
    """Learners that have learned something, and not the same everywhere."""
    for number, parameter in enumerate(learners.parameters.values()):
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator(1, "shake", number)))
    return learners


def velocity_of(pipeline: USOPipeline, case: Case, mode: str) -> torch.Tensor:
    pipeline.remembered.clear()
    with torch.no_grad():
        conditioning = case.condition(pipeline, mode)
        level = torch.tensor([case.values["velocity_timestep"]])
        velocity = predict(pipeline, conditioning, pack(case.expected["noise"]), level)
    pipeline.remembered.clear()
    return velocity


def test_a_new_lora_changes_nothing(golden: Case) -> None:
    """Catches an `up` that is not 0 at first: the first step would start from a damaged network."""
    pipeline = golden.load()
    before = velocity_of(pipeline, golden, "style_subject")
    lora = Lora(pipeline.transformer, rank=4, seed=0)
    assert torch.equal(velocity_of(pipeline, golden, "style_subject"), before)
    for pair in lora.pairs.values():  # as the released code draws it; the paper's learning rate belongs to that
        assert float(pair.down.detach().std()) == pytest.approx(1 / 4, rel=0.25)


@pytest.mark.parametrize("stage", ["stage1", "joint"])
def test_results_fold_to_the_trained_network(golden: Case, tmp_path: Path, stage: str) -> None:
    """Catches rows of query, key and value in another order, a transposed pair, or levels of the projector swapped.

    The files are loaded by the code that loads the released ones, LoRA folded.
    """
    pipeline = training_pipeline()
    learners = shaken(Learners(pipeline, tiny_config(tmp_path, tmp_path, stage)))
    trained = {mode: velocity_of(pipeline, golden, mode) for mode in ("text", "style_subject")}
    folder = tmp_path / "case"
    shutil.copytree(GOLDEN, folder)
    for learner, tensors in learners.released().items():
        write_safetensors(folder / FILES[learner], tensors)
    loaded = Case(folder).load(lora_scale=1.0 if stage == "joint" else 0.0)
    for mode, velocity in trained.items():
        assert relative_error(velocity_of(loaded, golden, mode), velocity) < BOUND
    changed = relative_error(velocity_of(training_pipeline(), golden, "style_subject"), trained["style_subject"])
    assert changed > 1e-2


COMFYUI = {
    "qkv_lora1": "img_attn.qkv",
    "qkv_lora2": "txt_attn.qkv",
    "proj_lora1": "img_attn.proj",
    "proj_lora2": "txt_attn.proj",
    "qkv_lora": "linear1_qkv",  # the first rows of linear1
    "proj_lora": "linear2",
}
"""What ComfyUI calls the modules of a USO LoRA (`convert_uso_lora` in its comfy/lora_convert.py)."""


def test_comfyuis_key_names_say_the_same(golden: Case, golden_folder: Path, tmp_path: Path) -> None:
    """Catches an export whose changes ComfyUI would add to other weights, or not at all."""
    pipeline = training_pipeline()
    learners = shaken(Learners(pipeline, tiny_config(tmp_path, tmp_path, "stage2")))
    write_safetensors(tmp_path / FILES["lora"], learners.released()["lora"])
    weights, pairs = load_file(golden_folder / "flux1.safetensors"), load_file(tmp_path / FILES["lora"])
    for name in [name for name in pairs if name.endswith(".down.weight")]:
        block, module = name.removesuffix(".down.weight").split(".processor.")
        target, rows = f"{block}.{COMFYUI[module]}".replace("linear1_qkv", "linear1"), slice(None)
        change = pairs[name.replace(".down.", ".up.")] @ pairs[name]
        if module == "qkv_lora":
            rows = slice(change.shape[0])
        weights[f"{target}.weight"][rows] += change
    write_safetensors(tmp_path / "comfy.safetensors", weights)
    config, flux = golden.transformer_config(), [golden_folder / "flux1.safetensors"]
    ours = load_transformer(config, flux, lora=[tmp_path / FILES["lora"]]).state_dict()
    for name, weight in load_transformer(config, [tmp_path / "comfy.safetensors"]).state_dict().items():
        assert torch.allclose(weight, ours[name], atol=1e-5), name


def test_names_and_shapes_are_the_released_ones(golden_folder: Path) -> None:
    """Catches, at full size and without weights, a layout that other programs would not load."""
    expected = json.loads((golden_folder.parent / "released_layout.json").read_text(encoding="utf-8"))
    model = MetaModel.from_config(load_model_config("flux-dev"), torch.bfloat16)
    lora = Lora(model.pipeline.transformer, rank=128, seed=0)
    assert {name: list(value.shape) for name, value in lora.named_parameters()} == expected["dit_lora.safetensors"]
    projector = {
        name: parameter
        for name, parameter in model.pipeline.context_embedder.named_parameters()
        if name.startswith("levels.")
    }
    shapes = {
        name: list(tensor.shape)
        for name, tensor in released("projector", {n: torch.empty(p.shape) for n, p in projector.items()}).items()
    }
    assert shapes == expected["projector.safetensors"]


def test_a_transformer_that_learns_is_written_as_flux(golden: Case, tmp_path: Path) -> None:
    """Catches fused weights in a wrong order, and the final modulation's halves left swapped."""
    pipeline = training_pipeline()
    config = tiny_config(tmp_path, tmp_path, "stage1", learns=["transformer"], reads=[])
    learners = shaken(Learners(pipeline, config))
    trained = velocity_of(pipeline, golden, "subject")
    folder = tmp_path / "case"
    shutil.copytree(GOLDEN, folder)
    write_safetensors(folder / FILES["transformer"], learners.released()["transformer"])
    assert relative_error(velocity_of(Case(folder).load(lora_scale=0.0), golden, "subject"), trained) < BOUND


def test_a_lora_goes_on_from_a_file(golden: Case, golden_folder: Path, tmp_path: Path) -> None:
    """Catches a start from a file that is not taken over; and a file of another rank, which is refused by name."""
    files: Any = {"projector": None, "lora": str(golden_folder / "dit_lora.safetensors")}
    pipeline = training_pipeline()
    rank = golden.values["lora_rank"]
    Learners(
        pipeline,
        tiny_config(
            tmp_path, tmp_path, "joint", learns=["lora"], start=files | {"projector": "given"}, lora={"rank": rank}
        ),
    )
    assert relative_error(velocity_of(pipeline, golden, "subject"), golden.expected["subject.velocity"]) < BOUND
    with pytest.raises(CheckpointError, match=r"should be \[4, 64\] and is \[8, 64\].* lora.rank"):
        Learners(training_pipeline(), tiny_config(tmp_path, tmp_path, "joint", start=files))


def test_only_what_learns_has_gradients(tmp_path: Path) -> None:
    """Catches a frozen weight that learns along: its memory, and a result that no file holds."""
    pipeline = training_pipeline()
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 2))
    learners = Learners(pipeline, config)
    batch = tiny_batches(pipeline, config).take()
    levels = torch.tensor([0.3, 0.7])
    predict(pipeline, conditioning_of(pipeline, batch, 1.0), pack(batch.latents), levels).square().mean().backward()
    ups = [parameter.grad for name, parameter in learners.parameters.items() if name.endswith("up.weight")]
    assert ups and all(gradient is not None and bool(gradient.any()) for gradient in ups)
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    modules += [*pipeline.exchanged.modulation.layers, pipeline.exchanged.modulation.embedding]
    assert not [name for module in modules for name, parameter in module.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(("kind", "bound"), [(FrozenInt8Linear, 0.01), (FrozenNf4Linear, 0.12)])
def test_a_rounded_base_is_linear_and_has_gradients(kind: Any, bound: float) -> None:
    """Catches a rounding of activations, whose gradient is 0, and other weights on the way back."""
    linear = nn.Linear(128, 24)
    layer = kind(linear)
    full = layer.full(torch.float32)
    assert relative_error(full, linear.weight.detach()) < bound
    inputs = torch.randn(3, 5, 128, generator=generator(0, "test"), requires_grad=True)
    outputs = layer(inputs)
    assert torch.allclose(outputs, inputs @ full.t() + linear.bias, atol=1e-5)
    (gradient,) = torch.autograd.grad(outputs.square().sum(), inputs)
    assert torch.allclose(gradient, 2 * outputs.detach() @ full, atol=1e-4)


def test_nf4_takes_the_nearest_of_its_values() -> None:
    """Catches the two weights of a byte swapped, a scale of other weights, and a value that is not the nearest."""
    linear = nn.Linear(128, 3, bias=False)
    layer = FrozenNf4Linear(linear)
    assert (layer.weight.shape, layer.weight.dtype, layer.scale.shape) == ((3, 64), torch.uint8, (3, 2))
    blocks = linear.weight.detach().view(3, 2, 64)
    scales = blocks.abs().amax(-1, keepdim=True)
    distance = (blocks[..., None] / scales[..., None] - torch.tensor(NF4)).abs()
    expected = torch.tensor(NF4)[distance.argmin(-1)] * scales
    assert torch.allclose(layer.full(torch.float32), expected.view(3, 128), atol=1e-7)


@pytest.mark.parametrize(("bits", "bound"), [("int8", 0.03), ("nf4", 0.3)])
def test_a_rounded_base_trains(golden: Case, tmp_path: Path, bits: Bits, bound: float) -> None:
    """Catches a quantized base on which a LoRA finds nothing to hold on to, or that changes the network too much."""
    pipeline = training_pipeline()
    before = velocity_of(pipeline, golden, "subject")
    report = quantize_base(pipeline, bits)
    assert report.layers and not report.kept
    assert 1e-5 < relative_error(velocity_of(pipeline, golden, "subject"), before) < bound
    config = tiny_config(tmp_path, write_rows(tmp_path / "rows", 2))
    learners = Learners(pipeline, config)
    batch = tiny_batches(pipeline, config).take()
    levels = torch.tensor([0.3, 0.7])
    predict(pipeline, conditioning_of(pipeline, batch, 1.0), pack(batch.latents), levels).square().mean().backward()
    assert all(parameter.grad is not None for parameter in learners.parameters.values())
