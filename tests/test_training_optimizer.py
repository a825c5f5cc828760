"""The optimizer: Muon's directions and state."""

import pytest
import torch
from torch import nn

from uso.training.config import OptimizerConfig
from uso.training.optimizer import MuonAndAdamW, orthogonal


@pytest.mark.parametrize("half", [False, True])
def test_steps_of_matrices_are_orthogonal(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a wrong coefficient: singular values would spread or blow up. Tall, wide, and nearly square matrices."""
    monkeypatch.setattr("uso.training.optimizer.multiplies_bfloat16", lambda device_type: half)
    for shape in ((40, 12), (12, 40), (14, 12)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    spread = torch.linalg.svdvals(torch.randn(40, 12, generator=torch.Generator().manual_seed(0)))
    assert float(spread.max() / spread.min()) > 2  # what was put in was not


def test_muon_goes_on_from_its_state_and_leaves_embeddings_and_vectors_alone() -> None:
    """Catches a state that is lost or given to another parameter, and convolutions that are not taken for matrices."""

    def optimizer_of(parameters: list[nn.Parameter]) -> MuonAndAdamW:
        return MuonAndAdamW(parameters, OptimizerConfig(kind="muon", lr=0.1), embeddings=parameters[1:2])

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
    alone = MuonAndAdamW([nn.Parameter(torch.ones(2, 2))], OptimizerConfig(kind="muon", lr=0.1))
    alone.load_state_dict(alone.state_dict())  # no vectors at all, as of a LoRA
    forgetful, third = made()
    step(forgetful, third, 0)
    third = optimizer_of(forgetful)
    for seed in (1, 2):
        step(forgetful, third, seed)
    assert not any(torch.equal(one, other) for one, other in zip(whole, forgetful, strict=True))
