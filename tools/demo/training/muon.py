"""Muon, the optimizer of the demo model: fewer samples for weights that start from nothing.

Configs name it `tools.demo.training.muon:MuonAndAdamW`.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch

from uso.training.config import OptimizerConfig
from uso.training.loop.precision import multiplies_bfloat16

NAME = f"{__name__}:MuonAndAdamW"
"""In a config."""

_MOMENTUM = 0.95

_ADAM_SIZE = 0.2
"""Root mean square of an AdamW update in practice, in learning rates."""

_ITERATIONS = 5
"""Of Newton and Schulz."""

_STACKED = 2**24
"""Values of matrices that a GPU orthogonalises together; larger ones keep it busy by themselves."""


def embeddings_of(*modules: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The embedding tables of modules, whose rows have no common direction."""
    found = (part for module in modules for part in module.modules() if isinstance(part, torch.nn.Embedding))
    return [cast(torch.nn.Parameter, part.weight) for part in found]


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices and convolutions, torch's AdamW for everything else, as one optimizer with one learning rate.

    Muon takes steps in the direction of the momentum's nearest orthogonal matrix (Jordan et al., 2024), here scaled to
    the size of AdamW's (arXiv 2502.16982), so that the rate means the same for both. A convolution is a matrix of
    output channels by all else, which torch's own Muon does not take. Embeddings are left to AdamW.

    Args:
        embeddings: which of the parameters are tables, not matrices (`embeddings_of`).
    """

    state_bytes = 4
    """Per parameter of a matrix."""

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        config: OptimizerConfig,
        embeddings: Iterable[torch.nn.Parameter] = (),
    ) -> None:
        tables = {id(p) for p in embeddings}
        matrices = [p for p in parameters if p.dim() >= 2 and id(p) not in tables]
        own = {id(p) for p in matrices}
        rest = [p for p in parameters if id(p) not in own]
        super().__init__([{"params": each} for each in (matrices, rest)], {"lr": config.lr})
        self.weight_decay = config.weight_decay
        self._rest: torch.optim.Optimizer | None = None
        if rest:
            self._rest = torch.optim.AdamW(
                rest, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
            )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        matrices, rest = self.param_groups
        learning = [p for p in matrices["params"] if p.grad is not None]
        on_gpu = bool(learning) and learning[0].is_cuda
        for together in stacks(learning) if on_gpu else [[p] for p in learning]:
            self._step_together(together, matrices["lr"])
        if self._rest is not None:
            self._rest.param_groups[0]["lr"] = rest["lr"]
            self._rest.step()

    def _step_together(self, parameters: list[torch.Tensor], rate: float) -> None:
        """A step of one matrix, or of several of one shape."""
        gradients = [cast(torch.Tensor, p.grad) for p in parameters]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
        wanted = [each.flatten(1) for each in torch._foreach_lerp(gradients, momenta, _MOMENTUM)]
        directions = orthogonal(torch.stack(wanted)) if len(wanted) > 1 else orthogonal(wanted[0])[None]
        size = _ADAM_SIZE * max(directions.shape[1:]) ** 0.5
        updates = [direction.reshape(p.shape) for direction, p in zip(directions, parameters, strict=True)]
        torch._foreach_mul_(parameters, 1 - rate * self.weight_decay)
        torch._foreach_add_(parameters, updates, alpha=-rate * size)

    def state_dict(self) -> dict[str, Any]:
        """All states under one numbering, those of matrices first."""
        matrices = self.param_groups[0]["params"]
        state = {index: dict(self.state[p]) for index, p in enumerate(matrices) if self.state[p]}
        rest = {} if self._rest is None else self._rest.state_dict()["state"]
        return {"state": state | {len(matrices) + index: values for index, values in rest.items()}, "param_groups": []}

    def load_state_dict(self, state_dict: Any) -> None:
        matrices = self.param_groups[0]["params"]
        rest: dict[int, Any] = {}
        for index, values in state_dict["state"].items():
            if index < len(matrices):
                self.state[matrices[index]] = {"momentum": values["momentum"].to(matrices[index])}
            else:
                rest[index - len(matrices)] = values
        if self._rest is not None:
            self._rest.load_state_dict({"state": rest, "param_groups": self._rest.state_dict()["param_groups"]})


def stacks(matrices: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Matrices and convolutions in lists that can be stacked: of one shape, and not too large together.

    For GPUs, which would wait for the host between the many small products of one matrix after the other.
    """
    by_shape: dict[torch.Size, list[torch.Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(matrix.flatten(1).shape, []).append(matrix)
    found = []
    for alike in by_shape.values():
        most = max(1, _STACKED // alike[0].numel())
        found += [alike[start : start + most] for start in range(0, len(alike), most)]
    return found


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest matrix with orthogonal rows or columns, by the quintic Newton-Schulz iteration.

    In bfloat16 where that is fast; else oblong matrices are iterated on by their square of products, which is less work
    and takes float32. Singular values come out between about 0.7 and 1.2. Coefficients: Jordan et al., 2024.

    Args:
        matrix: [rows, columns], or [N, rows, columns] for several at once, which agree up to rounding.
    """
    half = multiplies_bfloat16(matrix.device.type)
    values = matrix.to(torch.bfloat16 if half else torch.float32)
    tall = values.shape[-2] > values.shape[-1]
    values = values.mT if tall else values
    values = values / (values.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if half or values.shape[-1] < 2 * values.shape[-2]:
        for _ in range(_ITERATIONS):
            values = _polynomial(values @ values.mT) @ values
    else:
        products = values @ values.mT
        factor = _polynomial(products)
        whole = factor
        for _ in range(_ITERATIONS - 1):
            products = factor @ products @ factor
            factor = _polynomial(products)
            whole = factor @ whole
        values = whole @ values
    return (values.mT if tall else values).to(matrix)


def _polynomial(products: torch.Tensor) -> torch.Tensor:
    """What one iteration multiplies a matrix with, of its products with itself [rows, rows], or [N, rows, rows]."""
    add_products = torch.addmm if products.dim() == 2 else torch.baddbmm
    factor = add_products(products, products, products, beta=-4.7750, alpha=2.0315)
    factor.diagonal(dim1=-2, dim2=-1).add_(3.4445)
    return factor
