"""The values passed between the pipeline's stages: `Conditioning`, `DenoiseStep`, and the result of a call."""

from base64 import b64encode
from dataclasses import dataclass
from html import escape

import torch
from diffusers.utils import BaseOutput
from PIL import Image

from uso.request.request import GenerationResult


@dataclass(frozen=True)
class Conditioning:
    """Everything a picture depends on except its noise; computed once per request."""

    context: torch.Tensor
    """Style tokens, then text: [1, tokens, hidden]."""
    pooled_prompt_embeds: torch.Tensor
    """[1, pooled_dim]."""
    positions: tuple[torch.Tensor, torch.Tensor]
    """Rotary tables (cos, sin) of context, picture and references: [tokens, head_dim] each, float32."""
    references: torch.Tensor | None
    """All content references' tokens in transformer width: [1, tokens, hidden]."""
    guidance: torch.Tensor | None
    attention_bias: torch.Tensor | None
    """Added to every query's attention to each token: log(strength) at style tokens, else 0; [1, 1, 1, all tokens].
    None if all strengths are 1: kernels without a mask are faster."""
    height: int
    width: int


@dataclass(frozen=True)
class DenoiseStep:
    """The state after one Euler step."""

    index: int
    num_steps: int
    sigma: float
    """The noise level after the step."""
    latents: torch.Tensor
    """Packed, [1, tokens, 64], float32."""
    denoised: torch.Tensor
    """The clean latents that this step predicts; same form."""


@dataclass
class USOPipelineOutput(BaseOutput):
    """What a call of the pipeline returns: the pictures, and the full result of each."""

    images: list[Image.Image]
    results: list[GenerationResult]

    def _repr_html_(self) -> str:
        """What a notebook shows: every picture with its request below."""
        figures = "".join(
            f'<figure style="margin: 0; max-width: 32em"><img src="data:image/png;base64,'
            f'{b64encode(result._repr_png_()).decode()}" alt="{escape(result.request.prompt)}" style="max-width: 100%">'
            f"<figcaption>{escape(' '.join([repr(result), *result.notes]))}</figcaption></figure>"
            for result in self.results
        )
        return f'<div style="display: flex; flex-wrap: wrap; gap: 1em">{figures}</div>'
