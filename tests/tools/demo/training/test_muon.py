"""The optimizer: Muon's directions and state."""

import pytest
import torch
from torch import nn

from tools.demo.training import muon as module
from tools.demo.training.muon import MuonAndAdamW, orthogonal, stacks
from uso.training.config import OptimizerConfig


@pytest.mark.parametrize("half", [False, True])
def test_steps_of_matrices_are_orthogonal(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a wrong coefficient: singular values would spread or blow up. Tall, wide, and nearly square matrices."""
    monkeypatch.setattr("tools.demo.training.muon.multiplies_bfloat16", lambda device_type: half)
    for shape in ((40, 12), (12, 40), (14, 12)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    spread = torch.linalg.svdvals(torch.randn(40, 12, generator=torch.Generator().manual_seed(0)))
    assert float(spread.max() / spread.min()) > 2  # what was put in was not


def test_muon_goes_on_from_its_state_and_leaves_embeddings_and_vectors_alone() -> None:
    """Catches a state that is lost or given to another parameter, and convolutions that are not taken for matrices."""

    def optimizer_of(parameters: list[nn.Parameter]) -> MuonAndAdamW:
        return MuonAndAdamW(parameters, OptimizerConfig(kind=module.NAME, lr=0.1), embeddings=parameters[1:2])

    def made() -> tuple[list[nn.Parameter], MuonAndAdamW]:
        torch.manual_seed(0)
        shapes = [(8, 4), (100, 4), (6,), (4, 3, 3, 3)]
        parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        return parameters, optimizer_of(parameters)

    def step(parameters: list[nn.Parameter], optimizer: MuonAndAdamW, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()

    whole, optimizer = made()
    matrices, rest = (group["params"] for group in optimizer.param_groups)
    assert [p.shape for p in matrices] == [(8, 4), (4, 3, 3, 3)] and [p.shape for p in rest] == [(100, 4), (6,)]
    for seed in range(3):
        step(whole, optimizer, seed)
    parted, first = made()
    step(parted, first, 0)
    second = optimizer_of(parted)
    second.load_state_dict(first.state_dict())
    for seed in (1, 2):
        step(parted, second, seed)
    assert all(torch.equal(one, other) for one, other in zip(whole, parted, strict=True))
    alone = MuonAndAdamW([nn.Parameter(torch.ones(2, 2))], OptimizerConfig(kind=module.NAME, lr=0.1))
    alone.load_state_dict(alone.state_dict())  # no vectors at all, as of a LoRA
    forgetful, third = made()
    step(forgetful, third, 0)
    third = optimizer_of(forgetful)
    for seed in (1, 2):
        step(forgetful, third, seed)
    assert not any(torch.equal(one, other) for one, other in zip(whole, forgetful, strict=True))


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (14, 12), (12, 12)])
def test_matrices_together_come_out_as_each_by_itself(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a norm that is taken over all matrices, and a matrix that is mixed with its neighbour."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device_type: False)
    sizes = torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    matrices = sizes * torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    for found, matrix in zip(orthogonal(matrices), matrices, strict=True):
        alone = orthogonal(matrix)
        assert float((found - alone).norm() / alone.norm()) < 1e-4


def test_a_step_of_stacks_is_that_of_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a direction, or a momentum, that goes to another parameter of its shape, and stacks without bounds."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device_type: False)
    monkeypatch.setattr(module, "_STACKED", 100)
    shapes = [(8, 4), (4, 3, 2, 2), (8, 4), (4, 12), (8, 2, 2, 1), (8, 4)]

    def made() -> tuple[list[nn.Parameter], MuonAndAdamW]:
        draw = torch.Generator().manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
        return parameters, MuonAndAdamW(parameters, OptimizerConfig(kind=module.NAME, lr=0.1, weight_decay=0.1))

    (single, one_by_one), (stacked, together) = made(), made()
    found = stacks(stacked)
    assert [len(each) for each in found] == [3, 1, 2]
    assert [{p.flatten(1).shape for p in each} for each in found] == [{(8, 4)}, {(8, 4)}, {(4, 12)}]
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        for one, other in zip(single, stacked, strict=True):
            one.grad = torch.randn(one.shape, generator=draw)
            other.grad = one.grad.clone()
        one_by_one.step()
        with torch.no_grad():
            for each in found:
                together._step_together(each, 0.1)
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(single, stacked, strict=True))
    assert not torch.allclose(single[0], made()[0][0], atol=1e-2)
