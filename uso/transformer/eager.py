"""The transformer's blocks without a compiler, in fewer passes over memory.

diffusers writes every intermediate result to memory and reads it again. A compiler merges such passes. Where blocks are
not compiled, `EagerBlocks` takes the place of their `forward`:

- positions turn queries and keys as one complex product, in place;
- GELU writes to the buffer that the single blocks' last projection reads;
- modulation, gates and residuals are applied in place;
- the last single block computes the picture's rows alone, since nothing reads the others behind its attention.

Layers, attention and the order of sums are diffusers' own: on a processor the numbers are bit for bit the same. With
gradients the blocks' own `forward` runs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn

DEVICES = ("cpu", "cuda")
"""Where complex numbers and GELU into a given place are known to work."""

ROWS = 16
"""Rows that a matrix product computes together. It sums the rows that are left over in another order."""


class EagerBlocks:
    """The blocks of one transformer with the `forward` of this module.

    Args:
        transformer: of diffusers, its modulation layers replaced by rows (`uso.transformer.modulation`).
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.angles: torch.Tensor | None = None
        """[all tokens, 1, head size / 2], complex: what positions turn each pair of numbers by."""
        self.last_rows = slice(None)
        """Tokens that the last block computes: the picture's, and a few beside them."""

    def put_in(self) -> None:
        for block in self.transformer.transformer_blocks:
            block.forward = partial(self._double, block)
        *others, last = self.transformer.single_transformer_blocks
        for block in others:
            block.forward = partial(self._single, block, False)
        last.forward = partial(self._single, last, True)

    def take_out(self) -> None:
        for block in [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]:
            block.__dict__.pop("forward", None)

    def begin(self, positions: tuple[torch.Tensor, torch.Tensor], context: int, picture: int) -> None:
        """Set what all blocks of a step read.

        Args:
            positions: cosines and sines, [all tokens, head size]; both numbers of a pair share one angle.
            context, picture: numbers of tokens.
        """
        cosines, sines = positions
        self.angles = torch.complex(cosines[:, ::2], sines[:, ::2]).unsqueeze(1)
        self.last_rows = read_rows(len(cosines), context, picture)

    def end(self) -> None:
        """Forget what `begin` set."""
        self.angles = None

    def _double(self, block: Any, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.is_grad_enabled():
            return _stock(block, inputs)
        assert self.angles is not None, "`begin` was not called"
        return double_block(block, angles=self.angles, **inputs)

    def _single(self, block: Any, last: bool, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.is_grad_enabled():
            return _stock(block, inputs)
        assert self.angles is not None, "`begin` was not called"
        return single_block(block, angles=self.angles, rows=self.last_rows if last else None, **inputs)


def read_rows(tokens: int, context: int, picture: int) -> slice:
    """The picture's rows among all tokens, with as many beside them as let matrix products take the same rows together
    as they do with all tokens."""
    end = min(tokens, context + -(-picture // ROWS) * ROWS)
    left_over = tokens if end == tokens else 0
    beside = (left_over - (end - context)) % ROWS
    return slice(context - beside, end) if beside <= context else slice(0, tokens)


def _stock(block: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    made: tuple[torch.Tensor, torch.Tensor] = type(block).forward(block, **inputs)
    return made


def double_block(
    block: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    temb: torch.Tensor,
    angles: torch.Tensor,
    joint_attention_kwargs: dict[str, torch.Tensor] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`FluxTransformerBlock.forward`: context and the other tokens, [B, tokens, hidden] each."""
    shift, scale, gate, late_shift, late_scale, late_gate = block.norm1.linear(temb).chunk(6, dim=1)
    context_row = block.norm1_context.linear(temb).chunk(6, dim=1)
    made, made_context = _joint_attention(
        block.attn,
        modulated(block.norm1.norm, hidden_states, scale, shift),
        modulated(block.norm1_context.norm, encoder_hidden_states, context_row[1], context_row[0]),
        angles,
        joint_attention_kwargs,
    )
    hidden_states = _added(made, gate, hidden_states)
    encoder_hidden_states = _added(made_context, context_row[2], encoder_hidden_states)
    made = _fed_forward(block.ff, modulated(block.norm2, hidden_states, late_scale, late_shift))
    hidden_states = _added(made, late_gate, hidden_states)
    normed = modulated(block.norm2_context, encoder_hidden_states, context_row[4], context_row[3])
    made_context = _fed_forward(block.ff_context, normed)
    return _added(made_context, context_row[5], encoder_hidden_states), hidden_states


def _joint_attention(
    attn: Any,
    tokens: torch.Tensor,
    context: torch.Tensor,
    angles: torch.Tensor,
    others: dict[str, torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of tokens and context, [B, tokens, hidden] each, to both."""
    length = context.shape[1]
    query = _joined(
        attn.norm_added_q(_heads(attn, attn.add_q_proj(context))), attn.norm_q(_heads(attn, attn.to_q(tokens)))
    )
    query = turned(query, angles)
    key = _joined(
        attn.norm_added_k(_heads(attn, attn.add_k_proj(context))), attn.norm_k(_heads(attn, attn.to_k(tokens)))
    )
    key = turned(key, angles)
    value = _joined(_heads(attn, attn.add_v_proj(context)), _heads(attn, attn.to_v(tokens)))
    attended = _attended(attn, query, key, value, others).flatten(2, 3)
    del query, key, value
    return attn.to_out[0](attended[:, length:].contiguous()), attn.to_add_out(attended[:, :length].contiguous())


def single_block(
    block: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    temb: torch.Tensor,
    angles: torch.Tensor,
    rows: slice | None = None,
    joint_attention_kwargs: dict[str, torch.Tensor] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`FluxSingleTransformerBlock.forward`: context and the other tokens, [B, tokens, hidden] each.

    Args:
        rows: the tokens that are computed; those of the context are left out of the result.
    """
    attn, length = block.attn, encoder_hidden_states.shape[1]
    residual = torch.cat([encoder_hidden_states, hidden_states], dim=1)
    shift, scale, gate = block.norm.linear(temb).chunk(3, dim=1)
    everything = modulated(block.norm.norm, residual, scale, shift)
    key = turned(attn.norm_k(_heads(attn, attn.to_k(everything))), angles)
    value = _heads(attn, attn.to_v(everything))
    wanted = everything
    if rows is not None:
        wanted, residual, angles = everything[:, rows], residual[:, rows], angles[rows]
        length -= rows.start
    query = turned(attn.norm_q(_heads(attn, attn.to_q(wanted))), angles)
    width = attn.inner_dim
    attended = _attended(attn, query, key, value, joint_attention_kwargs)
    del everything, query, key, value
    both = wanted.new_empty(*wanted.shape[:2], width + block.mlp_hidden_dim)
    both[..., :width].unflatten(-1, (-1, attn.head_dim)).copy_(attended)
    del attended
    torch.ops.aten.gelu.out(block.proj_mlp(wanted), approximate="tanh", out=both[..., width:])
    made = _added(block.proj_out(both), gate, residual)
    return made[:, :length], made[:, length:]


def turned(values: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Queries or keys turned by their positions: [B, tokens, heads, size], which may be overwritten.

    A pair (a, b) is the complex number a + bi, and turning it is a product with cos + i sin (RoFormer,
    arXiv:2104.09864). The sums are those of diffusers' `apply_rotary_emb`.

    Args:
        angles: [tokens, 1, size / 2], complex.
    """
    pairs = torch.view_as_complex(values.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs.mul_(angles)).flatten(-2).to(values.dtype)


def modulated(norm: nn.LayerNorm, tokens: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """`norm(tokens) * (1 + scale) + shift`: [B, tokens, hidden]; scale and shift [B, hidden]."""
    normed: torch.Tensor = norm(tokens)
    return normed.mul_(1 + scale[:, None]).add_(shift[:, None])


def _added(made: torch.Tensor, gate: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """`residual + gate * made`, written over `made`."""
    return made.mul_(gate.unsqueeze(1)).add_(residual)


def _fed_forward(layers: Any, tokens: torch.Tensor) -> torch.Tensor:
    """diffusers' `FeedForward` with GELU, applied in place."""
    raised = layers.net[0].proj(tokens)
    made: torch.Tensor = layers.net[2](torch.ops.aten.gelu_(raised, approximate="tanh"))
    return made


def _heads(attn: Any, tokens: torch.Tensor) -> torch.Tensor:
    """[B, tokens, hidden] -> [B, tokens, heads, size]."""
    return tokens.unflatten(-1, (-1, attn.head_dim))


def _joined(context: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return torch.cat([context, others], dim=1)


def _attended(
    attn: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, others: dict[str, torch.Tensor] | None
) -> torch.Tensor:
    """[B, tokens, heads, size] each, with the backend that was chosen for the block."""
    processor = attn.processor
    attend: Callable[..., torch.Tensor] = dispatch_attention_fn
    return attend(
        query,
        key,
        value,
        attn_mask=(others or {}).get("attention_mask"),
        backend=processor._attention_backend,
        parallel_config=processor._parallel_config,
    )
