"""The context that the transformer reads beside the picture: style tokens and projected text, in transformer width.

`ContextEmbedder` holds both projections. They depend on the request only, so the context is computed once per request
instead of once per step. The style projector has the layout of USO's released `projector.safetensors`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# `from_pretrained` looks the base class up in this module's namespace, so it must be imported by name.
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

STYLE_LAYERS = {"high": -2, "mid": -11, "low": -20}
"""Which hidden state of the image encoder each level reads, in token order."""


class StyleLevel(nn.Module):
    """One level of the style projector: pools image tokens to style tokens, normalises, projects to width."""

    def __init__(self, image_tokens: int, style_tokens: int, image_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.pool = nn.Linear(image_tokens, style_tokens)
        self.norm = nn.LayerNorm(image_dim)
        self.projection = nn.Linear(image_dim, hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, image_tokens, image_dim] -> [B, style_tokens, hidden_size]."""
        pooled = nn.functional.silu(self.pool(features.transpose(1, 2))).transpose(1, 2)
        projected: torch.Tensor = self.projection(self.norm(pooled))
        return projected


class ContextEmbedder(ModelMixin, ConfigMixin):
    """Style features and text features -> context tokens.

    Args:
        image_tokens: tokens of the image encoder (729 for SigLIP so400m at 384 pixels).
        image_dim: width of the image encoder (1152).
        style_tokens: style tokens per level (64).
        hidden_size: width of the transformer (3072).

    `text_projection` is the transformer's own `context_embedder`, which `USOPipeline` moves here. Until then, and on
    disk, it is None and part of the transformer.
    """

    @register_to_config
    def __init__(self, image_tokens: int = 729, image_dim: int = 1152, style_tokens: int = 64, hidden_size: int = 3072):
        super().__init__()
        self.levels = nn.ModuleDict(
            {level: StyleLevel(image_tokens, style_tokens, image_dim, hidden_size) for level in STYLE_LAYERS}
        )
        self.text_projection: nn.Module | None = None

    @classmethod
    def for_networks(
        cls, image_encoder: Mapping[str, Any], transformer: Mapping[str, Any], style_tokens: int
    ) -> "ContextEmbedder":
        """A new one with sizes from the configs of an image encoder and a transformer."""
        return cls(
            image_tokens=(image_encoder["image_size"] // image_encoder["patch_size"]) ** 2,
            image_dim=image_encoder["hidden_size"],
            style_tokens=style_tokens,
            hidden_size=transformer["num_attention_heads"] * transformer["attention_head_dim"],
        )

    def style_tokens(self, hidden_states: Sequence[Any] | Mapping[int, Any]) -> torch.Tensor:
        """The image encoder's hidden states -> [B, 3 * style_tokens, hidden_size].

        Args:
            hidden_states: [B, image_tokens, image_dim] each: all of them, or those in `STYLE_LAYERS` by number.
        """
        tokens = [self.levels[level](hidden_states[layer].to(self.dtype)) for level, layer in STYLE_LAYERS.items()]
        return torch.cat(tokens, dim=1)

    def forward(self, prompt_embeds: torch.Tensor, style_tokens: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """[B, L, text_dim] text features and any number of styles' tokens -> [B, style tokens + L, hidden_size].

        Style tokens come before the text.
        """
        if self.text_projection is None:
            raise RuntimeError("The text projection is still in the transformer; USOPipeline moves it here.")
        dtype = next(self.text_projection.parameters()).dtype  # the levels' too, but in training they are float32
        text = self.text_projection(prompt_embeds.to(dtype))
        return torch.cat([*(tokens.to(text) for tokens in style_tokens), text], dim=1)
