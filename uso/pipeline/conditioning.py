"""Prompt, styles and references of a request, encoded and put together: a `Conditioning`, computed once per request.

`Conditions` is a part of `USOPipeline`. It knows neither noise nor steps.
"""

from collections.abc import Sequence

import torch

from uso.images.pixels import fit_reference
from uso.pipeline.cache import TensorCache
from uso.pipeline.encoders import Encoders
from uso.pipeline.latents import picture_ids
from uso.pipeline.saved_styles import make_style, projector_fingerprint, saved_tokens
from uso.pipeline.stages import Conditioning
from uso.request.references import ReferenceImage, SavedStyle
from uso.request.request import GenerationRequest, Images
from uso.transformer.attention import strength_bias


class Conditions(Encoders):
    """The part of `USOPipeline` before denoising."""

    remembered: TensorCache

    @torch.inference_mode()
    def condition(self, request: GenerationRequest) -> Conditioning:
        """Encode a request's prompt, styles and references; parts that were encoded before come from the cache.

        Raises:
            RequestError: the prompt is longer than the model reads, the request does not fit the memory plan, or a
                saved style is another projector's.
        """
        self.residency.begin(request)
        prompt_embeds, pooled = self.remembered.get(
            ("prompt", request.prompt), self.work_device, lambda: self.encode_prompt(request.prompt)
        )
        styles = [tokens for style, _ in request.styles for tokens in self._style(style)]
        references = [self._reference(content, request.content_size) for content in request.content_images]
        return self.make_conditioning(
            prompt_embeds,
            pooled,
            style_tokens=styles,
            style_strengths=request.strengths,
            reference_latents=[latents for latents, _ in references],
            references=[embedded for _, embedded in references],
            height=request.height,
            width=request.width,
            guidance_scale=request.guidance_scale,
        )

    def remember_prompt(self, prompt: str, prompt_embeds: torch.Tensor, pooled: torch.Tensor) -> None:
        """Make `condition` use a prompt that was encoded elsewhere; shapes as in `encode_prompt`."""
        self.remembered.get(("prompt", prompt), self.work_device, lambda: (prompt_embeds, pooled))

    def _style(self, style: ReferenceImage) -> tuple[torch.Tensor, ...]:
        """The tokens of each of a style's images, cached."""

        def compute() -> tuple[torch.Tensor, ...]:
            if isinstance(style, SavedStyle):
                return saved_tokens(style, self.context_embedder)
            return (self.encode_style(style.image),)

        return self.remembered.get(("style", style.sha256), self.work_device, compute)

    @property
    def projector(self) -> str:
        """Fingerprint of the style projector, which a saved style names."""
        return projector_fingerprint(self.context_embedder)

    def save_style(
        self, images: Images, title: str, *, strength: float = 1.0, weights: Sequence[float] | None = None
    ) -> SavedStyle:
        """A style of one or several images, which can be given in the place of a style image; `data` is its file.

        Args:
            images: paths, Pillow images or `ReferenceImage`s.
            title: its name.
            strength: its strength where a request gives none, 0 to 2.
            weights: what each image counts at strength 1, above 0 to 2; by default all images together count as one.

        Raises:
            RequestError: a value is refused.
        """
        return make_style(self.encode_style, self.context_embedder, images, title, strength, weights)

    def _reference(self, content: ReferenceImage, content_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A content reference's latents, and its tokens in transformer width, cached."""

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            latents = self.encode_reference(fit_reference(content.image, content_size))
            return latents, self.embed_reference(latents)

        key = ("reference", content.sha256, content_size)
        latents, embedded = self.remembered.get(key, self.work_device, compute)
        return latents, embedded

    def make_conditioning(
        self,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        *,
        style_tokens: Sequence[torch.Tensor] = (),
        style_strengths: Sequence[float] = (),
        reference_latents: Sequence[torch.Tensor] = (),
        references: Sequence[torch.Tensor] | None = None,
        height: int,
        width: int,
        guidance_scale: float | None,
    ) -> Conditioning:
        """Assemble encoded parts into the transformer's inputs, for one picture or a batch of B pictures of one size.

        Args:
            prompt_embeds, pooled_prompt_embeds: [B, L, text_dim] and [B, pooled_dim].
            style_tokens: for each style, [B, tokens, hidden].
            style_strengths: above 0, for each style; 1 if there are none.
            reference_latents: for each content reference, [B, 16, h, w].
            references: the same after `embed_reference`, if the caller already has them.
            height, width: size of the picture, in pixels.
        """
        device, dtype = self.work_device, self.transformer.dtype
        context = self.context_embedder(prompt_embeds.to(device), [tokens.to(device) for tokens in style_tokens])
        if references is None:
            references = [self.embed_reference(latents) for latents in reference_latents]
        sizes = tuple((8 * latents.shape[-2], 8 * latents.shape[-1]) for latents in reference_latents)
        guidance = None
        if self.transformer.config.guidance_embeds and guidance_scale is not None:
            guidance = torch.full((context.shape[0],), guidance_scale, dtype=torch.float32, device=device)
        positions = self._positions(context.shape[1], height, width, sizes)
        bias = strength_bias([tokens.shape[1] for tokens in style_tokens], style_strengths, len(positions[0]))
        return Conditioning(
            context=context.to(dtype),
            pooled_prompt_embeds=pooled_prompt_embeds.to(device, dtype),
            positions=positions,
            references=torch.cat(list(references), dim=1) if references else None,
            guidance=guidance,
            attention_bias=None if bias is None else bias.to(device, dtype),
            height=height,
            width=width,
        )

    def _positions(
        self, context_tokens: int, height: int, width: int, reference_sizes: tuple[tuple[int, int], ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary tables of context (ids 0), picture and references, cached."""

        def compute() -> tuple[torch.Tensor, ...]:
            picture, references = picture_ids(height, width, reference_sizes, self.model_config.position_grid)
            ids = torch.cat([torch.zeros(context_tokens, 3), picture, *references])
            return tuple(self.exchanged.position_embedding(ids.to(self.work_device)))

        key = ("positions", context_tokens, height, width, reference_sizes)
        cos, sin = self.remembered.get(key, self.work_device, compute)
        return cos, sin
