"""fp8 matrix products for the transformer's blocks: `--speed fast` on cards that multiply fp8 faster than int8.

A linear layer becomes `Fp8Linear`: weights in float8 (e4m3) with one scale per output channel, activations rounded to
float8 at run time with one scale per token, sums on the tensor cores. A GELU before a layer is fused with the rounding,
so its result never goes through memory. This covers feed-forwards, and single blocks, whose last layer reads attention
and MLP side by side.
"""

from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from torch import nn

from uso.transformer.attention import rotate_in_one_pass
from uso.transformer.int8 import QuantizedLinear, QuantizeReport, quantize_blocks
from uso.transformer.operators import gelu_rows, quantize_rows

_CAPABILITIES = ((9, 0),)
"""Hopper: PyTorch's fp8 products with scales per row measured 1.8 times as fast as bfloat16, its int8 products as fast
as bfloat16. Other cards were not measured and keep int8."""


def prefers_fp8(device: torch.device | str) -> bool:
    """Whether a device multiplies fp8 faster than int8, and Triton is installed for the fused operators."""
    device = torch.device(device)
    if device.type != "cuda" or torch.version.hip is not None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) in _CAPABILITIES


class Fp8Linear(QuantizedLinear):
    """A linear layer whose product runs in fp8; its scales are float32."""

    def __init__(self, linear: nn.Linear) -> None:
        quantized, scales = quantize_rows(linear.weight.detach())
        super().__init__(linear, quantized, scales.flatten())

    def _apply(self, fn: Any, recurse: bool = True) -> "Fp8Linear":
        """Weights and scales move with the model but keep their dtypes."""
        kept = {"weight": self.weight.data, "scale": self.scale.data}
        super()._apply(fn, recurse)
        for name, values in kept.items():
            moved = getattr(self, name)
            if moved.dtype != values.dtype:
                setattr(self, name, nn.Parameter(values.to(moved.device), requires_grad=False))
        return self

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of the inputs."""
        rows, scales = quantize_rows(inputs.reshape(-1, self.in_features))
        return self._product(rows, scales, inputs)

    def after_gelu(self, hidden: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
        """`forward` of [before, gelu(hidden)]: [..., in] -> [..., out]."""
        first = None if before is None else before.reshape(-1, before.shape[-1])
        rows, scales = gelu_rows(hidden.reshape(-1, hidden.shape[-1]), first)
        return self._product(rows, scales, hidden)

    def _product(self, rows: torch.Tensor, scales: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        outputs = torch._scaled_mm(  # with scales per row it returns bfloat16 only
            rows,
            self.weight.t(),
            scale_a=scales,
            scale_b=self.scale[None],
            bias=None if self.bias is None else self.bias.to(torch.bfloat16),
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return outputs.to(inputs.dtype).reshape(*inputs.shape[:-1], self.out_features)


class Fp8FeedForward(FeedForward):
    """diffusers' feed-forward, with the GELU fused into its second layer."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        first, _, last = self.net
        outputs: torch.Tensor = last.after_gelu(first.proj(hidden_states))
        return outputs


class Fp8SingleBlock(FluxSingleTransformerBlock):
    """diffusers' single block, with the GELU fused into its last layer, which reads attention and MLP in place."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        context = encoder_hidden_states.shape[1]
        joint = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        normed, gate = self.norm(joint, emb=temb)
        mlp = self.proj_mlp(normed)
        attention = self.attn(hidden_states=normed, image_rotary_emb=image_rotary_emb, **(joint_attention_kwargs or {}))
        joint = joint + gate.unsqueeze(1) * self.proj_out.after_gelu(mlp, before=attention)
        return joint[:, :context], joint[:, context:]


_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    FeedForward: Fp8FeedForward,
    FluxSingleTransformerBlock: Fp8SingleBlock,
}


def fp8_blocks(transformer: Any) -> QuantizeReport:
    """Make every attention and MLP layer of a transformer's blocks fp8, in place; see `quantize_blocks`.

    The work between those layers then takes a larger share of the time, so it is fused into fewer passes over memory.
    """
    report = quantize_blocks(transformer, Fp8Linear)
    rotate_in_one_pass(transformer)
    for part in transformer.modules():
        fused = _FUSED.get(type(part))
        if fused is not None and isinstance(_last_layer(part), Fp8Linear):
            part.__class__ = fused  # the same parts under the same names
    return report


def _last_layer(part: Any) -> nn.Module:
    layer: nn.Module = part.net[-1] if isinstance(part, FeedForward) else part.proj_out
    return layer
