"""The request that a benchmark times: a mode at a size, with drawn references, and embeddings in place of a prompt."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from uso.bench.modes import MODES
from uso.images.pixels import fit_reference
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest, ReferenceImage


@dataclass(frozen=True)
class Request:
    """What a benchmark runs: a mode at a size."""

    mode: str
    height: int
    width: int
    content_size: int
    steps: int
    guidance: float | None

    def at_most(self, steps: int) -> "Request":
        """The same request with at most `steps` steps."""
        return replace(self, steps=min(self.steps, steps))

    @property
    def contents(self) -> int:
        return MODES[self.mode][0]

    @property
    def styles(self) -> int:
        return MODES[self.mode][1]


@dataclass(frozen=True)
class Inputs:
    """Random embeddings in place of a prompt, and random reference images."""

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor
    content: Image.Image
    """Fitted; present even if the mode does not read it."""
    styles: list[Image.Image]
    whole: GenerationRequest
    """The same inputs as a `GenerationRequest` with an empty prompt."""


def draw_inputs(pipeline: USOPipeline, request: Request) -> Inputs:
    """Deterministic inputs in the pipeline's sizes."""
    random = torch.Generator().manual_seed(0)
    config = pipeline.transformer.config
    length = pipeline.model_config.max_sequence_length
    pixels = np.random.default_rng(0)

    def image(width: int, height: int) -> Image.Image:
        return Image.fromarray(pixels.integers(0, 256, (height, width, 3), dtype=np.uint8), "RGB")

    dtype = pipeline.transformer.dtype
    content, styles = image(request.width, request.height), [image(384, 384) for _ in range(request.styles)]
    return Inputs(
        prompt_embeds=torch.randn(1, length, config.joint_attention_dim, generator=random).to(dtype),
        pooled=torch.randn(1, config.pooled_projection_dim, generator=random).to(dtype),
        content=fit_reference(content, request.content_size),
        styles=styles,
        whole=GenerationRequest(
            prompt="",
            content_images=(ReferenceImage.from_pil(content),) * request.contents,
            style_images=tuple(map(ReferenceImage.from_pil, styles)),
            style_strengths=(1.0,) * request.styles,
            width=request.width,
            height=request.height,
            keep_input_size=False,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            content_size=request.content_size,
            seed=0,
            num_images=1,
            schedule="uso",
            tiled_decode=False,
        ),
    )
