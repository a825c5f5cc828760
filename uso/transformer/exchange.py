"""The stock transformer, with submodules exchanged for results that are computed once per request.

Text projection, modulation layers, rotary tables and the references' input projection depend on the request, not on the
latents. `ExchangedTransformer` takes them out of diffusers' `FluxTransformer2DModel`, whose own `forward` then runs on
their results. `stock` puts everything back for saving, training and comparison. Network arithmetic is rewritten in one
place only: `eager.py`, for blocks that are not compiled.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uso.transformer.attention import biased_attention
from uso.transformer.behind import BlocksCompiledBehind
from uso.transformer.context_embedder import ContextEmbedder
from uso.transformer.eager import EagerBlocks
from uso.transformer.modulation import Modulation


class GivenPositions(nn.Module):
    """Takes the place of the position embedding and returns the request's precomputed tables."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.tables is None:
            raise RuntimeError("No positions were given.")
        return self.tables


class PictureEmbedder(nn.Module):
    """The transformer's input projection for the picture's tokens; projected references are appended as they are."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.references: torch.Tensor | None = None
        """[B, reference tokens, hidden], already projected."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.projection(tokens)
        return hidden if self.references is None else torch.cat([hidden, self.references], dim=1)


class ExchangedTransformer:
    """One transformer and its context embedder, with everything exchanged."""

    def __init__(self, transformer: Any, context_embedder: ContextEmbedder) -> None:
        if isinstance(transformer.context_embedder, nn.Identity):
            raise ValueError("The transformer's text projection was taken by another pipeline; load it again.")
        self.transformer = transformer
        self.context_embedder = context_embedder
        self.text_projection: nn.Module = transformer.context_embedder
        self.position_embedding: nn.Module = transformer.pos_embed
        self.positions = GivenPositions()
        self.picture_embedder = PictureEmbedder(transformer.x_embedder)
        self.modulation = Modulation(transformer)
        self.eager: EagerBlocks | BlocksCompiledBehind | None = None
        self._exchange()

    def _exchange(self) -> None:
        self.context_embedder.text_projection = self.text_projection
        self.transformer.context_embedder = nn.Identity()
        self.transformer.pos_embed = self.positions
        self.transformer.x_embedder = self.picture_embedder
        self.modulation.take_out()
        if self.eager is not None:
            self.eager.put_in()

    def run_eagerly(self) -> None:
        """From now on, run the blocks in fewer passes over memory. For blocks that are not compiled."""
        self.eager = EagerBlocks(self.transformer)
        self.eager.put_in()

    def compile_behind(self, folder: Path | None, backend: str = "inductor") -> None:
        """From now on, run the blocks eagerly until they are compiled for a picture's shape, in a thread behind it.

        Args:
            folder, backend: as in `uso.transformer.compile.compile_blocks`.
        """
        if self.eager is not None:
            self.eager.take_out()  # what is compiled is the blocks' own forward
        self.eager = BlocksCompiledBehind(self.transformer, folder, backend)
        self.eager.put_in()

    def begin_picture(self, *shape: Hashable, biased: bool = False) -> None:
        """Call it before a picture's first step, with all that compiled code depends on.

        Args:
            biased: the picture has an attention bias. While it runs, its blocks have another attention backend, which a
                thread beside it would not know.
        """
        if isinstance(self.eager, BlocksCompiledBehind):
            self.eager.begin_picture(shape, waits=biased)

    @property
    def mode(self) -> dict[str, bool]:
        """What a picture's record says of how its blocks run, where that differs from picture to picture."""
        return {"compiled": self.eager.compiled} if isinstance(self.eager, BlocksCompiledBehind) else {}

    @contextmanager
    def own_blocks(self) -> Iterator[None]:
        """While inside, blocks that are not compiled run with the forward of diffusers' classes."""
        eager, self.eager = self.eager, None
        if eager is not None:
            eager.take_out()
        try:
            yield
        finally:
            self.eager = eager
            if eager is not None:
                eager.put_in()

    @contextmanager
    def stock(self) -> Iterator[Any]:
        """While inside, the transformer is complete and stock."""
        self.transformer.context_embedder = self.text_projection
        self.context_embedder.text_projection = None
        self.transformer.pos_embed = self.position_embedding
        self.transformer.x_embedder = self.picture_embedder.projection
        self.modulation.put_back()
        if self.eager is not None:
            self.eager.take_out()
        try:
            yield self.transformer
        finally:
            self._exchange()

    def run(
        self,
        tokens: torch.Tensor,
        *,
        references: torch.Tensor | None,
        context: torch.Tensor,
        positions: tuple[torch.Tensor, torch.Tensor],
        row: torch.Tensor,
        attention_bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The transformer's output for the picture's tokens, and for some or all of the references' behind them:
        [B, tokens, 64].

        Outside inference mode, gradients flow back through it.

        Args:
            tokens: the picture's packed latents, [B, tokens, 64], in the transformer's dtype.
            references: the references' tokens after `picture_embedder.projection`, [B, tokens, hidden].
            context: [B, tokens, hidden].
            positions: `position_embedding` of the ids of context, picture and references, in this order.
            row: one row of the modulation table, [B, width].
            attention_bias: added to every query's attention, by token: [1, 1, 1, all tokens].
        """
        self.positions.tables = positions
        self.picture_embedder.references = references
        if torch.is_grad_enabled():
            self.modulation.hold_row(row)
        else:
            self.modulation.set_row(row)
        if self.eager is not None:
            self.eager.begin(positions, context.shape[1], tokens.shape[1])
        no_ids = tokens.new_empty(0, 3)
        with biased_attention(self.transformer, attention_bias) as attention:
            output: torch.Tensor = self.transformer(
                hidden_states=tokens,
                encoder_hidden_states=context,
                pooled_projections=tokens,  # only the time embedding reads it, and the row replaces that
                timestep=no_ids,
                img_ids=no_ids,
                txt_ids=no_ids,
                joint_attention_kwargs=attention,
                return_dict=False,
            )[0]
        self.positions.tables = None
        self.picture_embedder.references = None
        if self.eager is not None:
            self.eager.end()
        return output
