"""The modulation table: outputs of the transformer's modulation layers for every step, computed before denoising.

The layers `norm1.linear`, `norm1_context.linear` (double blocks), `norm.linear` (single blocks) and `norm_out.linear`
depend only on timestep, guidance and the pooled prompt. Their outputs for all steps fit a small table (53 MB for 25
steps of FLUX), and their weights (6 GiB of FLUX's 22) can leave the device while the blocks run. Rows are computed one
by one, as the blocks would, so the numbers for a single image are bitwise the same.
"""

from typing import Any, cast

import torch
from torch import nn


class ModulationRow(nn.Module):
    """Takes the place of a modulation layer and returns its part of the current row."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        self.row: torch.Tensor | None = None
        """[B, out_features], a view of the current row of all layers."""

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        if self.row is None:
            raise RuntimeError("No step was set; call Modulation.set_row before the transformer.")
        return self.row


class RowByRow(nn.Module):
    """A modulation layer that takes all steps at once and computes them one by one, as the blocks would."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, embedded: list[torch.Tensor]) -> torch.Tensor:
        """[B, hidden] for each step -> [steps, B, out_features]."""
        return torch.stack([self.linear(read) for read in embedded])


class EmbeddedTime(nn.Module):
    """Takes the place of the time embedding, which nothing reads once the modulation layers are rows."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def forward(self, timestep: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return others[-1].new_zeros(1, self.hidden_size)


def modulation_owners(transformer: Any) -> list[nn.Module]:
    """The modules whose `linear` is a modulation layer, in running order."""
    owners: list[nn.Module] = []
    for block in transformer.transformer_blocks:
        owners += [block.norm1, block.norm1_context]
    owners += [block.norm for block in transformer.single_transformer_blocks]
    return [*owners, transformer.norm_out]


class Modulation:
    """The modulation layers of one transformer, taken out of it.

    Args:
        transformer: a complete `FluxTransformer2DModel` of diffusers. From now on it needs `set_row` before each call.
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.owners = modulation_owners(transformer)
        self.layers = [RowByRow(cast(nn.Linear, owner.linear)) for owner in self.owners]
        self.embedding: nn.Module = transformer.time_text_embed
        self.slots = [ModulationRow(layer.linear.out_features) for layer in self.layers]
        self._present: torch.Tensor | None = None
        self.take_out()

    @property
    def width(self) -> int:
        """Values in a row: the outputs of all layers."""
        return sum(slot.out_features for slot in self.slots)

    def take_out(self) -> None:
        for owner, slot in zip(self.owners, self.slots, strict=True):
            owner.linear = slot
        self.transformer.time_text_embed = EmbeddedTime(self.transformer.inner_dim)

    def put_back(self) -> None:
        """Make the transformer stock again, to save it."""
        for owner, layer in zip(self.owners, self.layers, strict=True):
            owner.linear = layer.linear
        self.transformer.time_text_embed = self.embedding

    def embed(self, sigmas: torch.Tensor, guidance: torch.Tensor | None, pooled: torch.Tensor) -> list[torch.Tensor]:
        """The modulation layers' input for each noise level: [B, hidden], in the transformer's dtype.

        Args:
            sigmas: [steps], or [steps, B] where each picture has its own, float32.
            guidance: [B] or None, as in `Conditioning`.
            pooled: [B, pooled_dim], in the transformer's dtype.
        """
        batch = pooled.shape[0]
        embedded = []
        for sigma in sigmas:
            # As in FluxTransformer2DModel.forward: cast first, then scale.
            times = [sigma.expand(batch).to(pooled.dtype) * 1000]
            if guidance is not None:
                times.append(guidance.to(pooled.dtype) * 1000)
            embedded.append(nn.functional.silu(self.embedding(*times, pooled)))
        return embedded

    def table(self, sigmas: torch.Tensor, guidance: torch.Tensor | None, pooled: torch.Tensor) -> torch.Tensor:
        """The outputs of all layers at every noise level: [steps, B, width]."""
        embedded = self.embed(sigmas, guidance, pooled)
        table = torch.empty(len(embedded), pooled.shape[0], self.width, dtype=pooled.dtype, device=pooled.device)
        start = 0
        for layer in self.layers:
            stop = start + layer.linear.out_features
            table[..., start:stop] = layer(embedded)
            start = stop
        return table

    def set_row(self, row: torch.Tensor) -> None:
        """Make one row of a table, [B, width], the current one. Rows are copied to the same place in memory."""
        present = self._present
        if present is not None and present.is_inference() and not torch.is_inference_mode_enabled():
            present = None  # made in inference mode, so it cannot be written outside
        if present is None or present.shape != row.shape or present.dtype != row.dtype or present.device != row.device:
            present = self._present = torch.empty_like(row)
            start = 0
            for slot in self.slots:
                slot.row = present[:, start : start + slot.out_features]
                start += slot.out_features
        present.copy_(row)

    def hold_row(self, row: torch.Tensor) -> None:
        """Make the row itself, [B, width], the current one, for a pass with gradients.

        The row may carry gradients. It is not copied, so blocks that are recomputed in the backward pass read the same
        row again.
        """
        self._present = None
        start = 0
        for slot in self.slots:
            slot.row = row[:, start : start + slot.out_features]
            start += slot.out_features
