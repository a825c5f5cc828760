"""`USOPipeline`: a verified request becomes a picture, `condition -> denoise (a generator) -> decode`.

It runs diffusers' FluxTransformer2DModel, AutoencoderKL and FlowMatchEulerDiscreteScheduler and transformers' CLIP, T5
and SigLIP. It loads no released files (`uso.checkpoints`) and saves no pictures (`uso.output`).
"""

import time
from collections.abc import Generator, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from PIL import Image
from torch import nn
from transformers import CLIPTextModel, SiglipImageProcessorPil, SiglipVisionModel, T5EncoderModel

from uso.config import MemoryPlan, ModelConfig, Schedule, load_memory_plan, load_model_config
from uso.context import STYLE_LAYERS, ContextEmbedder
from uso.errors import RequestError, USOError
from uso.images import fit_reference
from uso.latents import draw_noise, image_to_tensor, pack, picture_ids, tensor_to_image, unpack
from uso.memory import Residency
from uso.request import GenerationRequest, GenerationResult, Progress
from uso.schedule import set_schedule
from uso.stages import Conditioning, DenoiseStep, USOPipelineOutput

CLIP_LENGTH = 77
"""Tokens that CLIP reads; its pooled vector is all that FLUX takes from it, so longer prompts are cut there."""

TILE_PIXELS = 512
"""Side of a tile where decoding is tiled."""


class USOPipeline(DiffusionPipeline):
    """Style- and subject-driven image generation.

    Args:
        context_embedder: style projector; the transformer's text projection is moved into it here, and back for
            `save_pretrained`, so that on disk the transformer is complete and stock.
        model: a `ModelConfig` as JSON values (limits and defaults of requests); FLUX.1-dev's if left out.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->context_embedder->transformer->vae"

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        text_encoder_2: T5EncoderModel,
        tokenizer_2: Any,
        image_encoder: SiglipVisionModel,
        image_processor: SiglipImageProcessorPil,
        context_embedder: ContextEmbedder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        model: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            image_encoder=image_encoder,
            image_processor=image_processor,
            context_embedder=context_embedder,
            scheduler=scheduler,
        )
        self.register_to_config(model=model)
        self.model_config = ModelConfig.model_validate(model) if model else load_model_config("flux-dev")
        self.provenance: dict[str, Any] = {"name": self.model_config.name}
        self.residency = Residency(load_memory_plan("full"), "cpu")
        self._take_text_projection()

    # Text projection: inside the transformer on disk, inside the context embedder at work.

    def _take_text_projection(self) -> None:
        if isinstance(self.transformer.context_embedder, nn.Identity):
            if self.context_embedder.text_projection is None:
                raise ValueError("The transformer's text projection was taken by another pipeline; load it again.")
            return
        self.context_embedder.text_projection = self.transformer.context_embedder
        self.transformer.context_embedder = nn.Identity()

    def _return_text_projection(self) -> None:
        self.transformer.context_embedder = self.context_embedder.text_projection
        self.context_embedder.text_projection = None

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save a stock diffusers folder that `USOPipeline.from_pretrained` loads back to the same numbers."""
        self._return_text_projection()
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self._take_text_projection()

    # Placement.

    def place(self, plan: MemoryPlan, device: torch.device | str) -> "USOPipeline":
        """Put the modules where `plan` wants them, for work on `device`."""
        self.residency = Residency(plan, device)
        self.residency.place(self)
        return self

    def to(self, *args: Any, **kwargs: Any) -> "USOPipeline":
        """diffusers' own `to`; everything is resident on that device afterwards."""
        super().to(*args, **kwargs)
        self.residency = Residency(load_memory_plan("full"), self.context_embedder.device)
        return self

    @property
    def work_device(self) -> torch.device:
        return self.residency.device

    # Encoding.

    @torch.inference_mode()
    def encode_prompt(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 features [1, L, text_dim] and CLIP's pooled vector [1, pooled_dim].

        T5 is padded to the model's length without a mask: padding is a live input of the network.

        Raises:
            RequestError: the prompt is longer than the model reads.
        """
        length = self.model_config.max_sequence_length
        tokens = self.tokenizer_2(prompt, padding="max_length", max_length=length, truncation=False).input_ids
        if len(tokens) > length:
            raise RequestError(f"The prompt has {len(tokens)} tokens; this model reads {length}. Shorten it.")
        ids_2 = torch.tensor([tokens], device=self.work_device)
        ids = self.tokenizer(
            prompt, padding="max_length", max_length=CLIP_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids.to(self.work_device)
        with self.residency.visit(self.text_encoder):
            pooled = self.text_encoder(ids).pooler_output
        with self.residency.visit(self.text_encoder_2):
            features = self.text_encoder_2(ids_2).last_hidden_state
        return features, pooled

    def preprocess_style(self, image: Image.Image) -> torch.Tensor:
        """A style picture as the image encoder reads it: [1, 3, S, S], squashed to a square, in [-1, 1]."""
        pixels: torch.Tensor = self.image_processor(image, return_tensors="pt").pixel_values
        return pixels

    @torch.inference_mode()
    def encode_style(self, image: Image.Image) -> torch.Tensor:
        """The style tokens of a picture, high, mid and low level in order: [1, 3 * style_tokens, hidden]."""
        pixels = self.preprocess_style(image).to(self.work_device, self.image_encoder.dtype)
        with self.residency.visit(self.image_encoder):
            layers = list(STYLE_LAYERS.values())
            states = self.image_encoder(pixels, output_hidden_states=layers).hidden_states
        return self.context_embedder.style_tokens(states)

    @torch.inference_mode()
    def encode_reference(self, image: Image.Image) -> torch.Tensor:
        """A fitted content reference -> latents [1, 16, H/8, W/8], float32: the posterior's mean, not a sample."""
        pixels = image_to_tensor(image).to(self.work_device, self.vae.dtype)
        with self.residency.visit(self.vae), _exact_convolutions():
            mean = self.vae.encode(pixels).latent_dist.mean.float()
        return self.vae.config.scaling_factor * (mean - self.vae.config.shift_factor)

    # The stages.

    @torch.inference_mode()
    def condition(self, request: GenerationRequest) -> Conditioning:
        """Encode everything a request brings."""
        prompt_embeds, pooled_prompt_embeds = self.encode_prompt(request.prompt)
        references = [fit_reference(reference.image, request.content_size) for reference in request.content_images]
        return self.make_conditioning(
            prompt_embeds,
            pooled_prompt_embeds,
            style_tokens=[self.encode_style(reference.image) for reference in request.style_images],
            reference_latents=[self.encode_reference(image) for image in references],
            height=request.height,
            width=request.width,
            guidance_scale=request.guidance_scale,
        )

    def make_conditioning(
        self,
        prompt_embeds: torch.Tensor,
        pooled_prompt_embeds: torch.Tensor,
        *,
        style_tokens: Sequence[torch.Tensor] = (),
        reference_latents: Sequence[torch.Tensor] = (),
        height: int,
        width: int,
        guidance_scale: float | None,
    ) -> Conditioning:
        """Assemble encoded parts into what the transformer takes; height and width are the picture's, in pixels."""
        device, dtype = self.work_device, self.transformer.dtype
        sizes = [(8 * latents.shape[-2], 8 * latents.shape[-1]) for latents in reference_latents]
        ids, reference_ids = picture_ids(height, width, sizes)
        context = self.context_embedder(prompt_embeds.to(device), [tokens.to(device) for tokens in style_tokens])
        tokens = torch.cat([pack(latents) for latents in reference_latents], dim=1) if sizes else None
        guidance = None
        if self.transformer.config.guidance_embeds and guidance_scale is not None:
            guidance = torch.tensor([guidance_scale], dtype=torch.float32, device=device)
        return Conditioning(
            context=context.to(dtype),
            pooled_prompt_embeds=pooled_prompt_embeds.to(device, dtype),
            context_ids=torch.zeros(context.shape[1], 3, device=device),
            picture_ids=ids.to(device),
            reference_tokens=None if tokens is None else tokens.to(device, dtype),
            reference_ids=torch.cat(reference_ids).to(device) if reference_ids else None,
            guidance=guidance,
            height=height,
            width=width,
        )

    def velocity(self, conditioning: Conditioning, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The network's velocity for packed latents at a noise level: [1, picture tokens, 64], float32.

        Args:
            latents: [1, picture tokens, 64].
            sigma: [1], in [0, 1]; it is passed on unscaled, as the network wants it.
        """
        dtype = self.transformer.dtype
        hidden, ids = latents.to(dtype), conditioning.picture_ids
        if conditioning.reference_tokens is not None and conditioning.reference_ids is not None:
            hidden = torch.cat([hidden, conditioning.reference_tokens], dim=1)
            ids = torch.cat([ids, conditioning.reference_ids])
        velocity: torch.Tensor = self.transformer(
            hidden_states=hidden,
            encoder_hidden_states=conditioning.context,
            pooled_projections=conditioning.pooled_prompt_embeds,
            timestep=sigma,
            guidance=conditioning.guidance,
            img_ids=ids,
            txt_ids=conditioning.context_ids,
            return_dict=False,
        )[0]
        return velocity[:, : latents.shape[1]].float()

    def denoise(
        self,
        conditioning: Conditioning,
        noise: torch.Tensor,
        *,
        num_inference_steps: int,
        schedule: Schedule,
    ) -> Generator[DenoiseStep, None, None]:
        """Euler steps from noise [1, 16, H/8, W/8] to a picture's latents, yielding after each.

        Latents stay float32; only the network's input is cast. Close the generator to stop.
        """
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        sigmas = set_schedule(scheduler, schedule, num_inference_steps, conditioning.height, conditioning.width)
        levels = sigmas.to(self.work_device)
        latents = pack(noise).to(self.work_device, torch.float32)
        for index in range(num_inference_steps):
            with torch.inference_mode():
                velocity = self.velocity(conditioning, latents, levels[index : index + 1])
                denoised = latents - levels[index] * velocity
                latents = latents + (levels[index + 1] - levels[index]) * velocity
            yield DenoiseStep(index, num_inference_steps, float(sigmas[index + 1]), latents, denoised)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
        """Latents [1, 16, H/8, W/8] -> pixels [1, 3, H, W], about [-1, 1], not clamped."""
        scaled = latents.to(self.work_device) / self.vae.config.scaling_factor + self.vae.config.shift_factor
        self.vae.use_tiling = tiled
        self.vae.tile_sample_min_size = TILE_PIXELS
        self.vae.tile_latent_min_size = TILE_PIXELS // 8
        with self.residency.visit(self.vae), _exact_convolutions():
            pixels: torch.Tensor = self.vae.decode(scaled.to(self.vae.dtype), return_dict=False)[0]
        return pixels

    # Whole requests.

    def stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]:
        """Run a request: `Progress` after every step, one `GenerationResult` per picture.

        Conditioned once; picture i is the one of a single request with seed + i. Close the generator to cancel.

        Raises:
            RequestError: the prompt is longer than the model reads.
            USOError: the device ran out of memory; the next request works.
        """
        try:
            yield from self._stream(request)
        except torch.OutOfMemoryError as error:
            self.residency.release()
            raise USOError(
                f"The device ran out of memory at {request.width} x {request.height}. Choose a smaller picture or "
                "content reference size, or start with --memory offload."
            ) from error

    def _stream(self, request: GenerationRequest) -> Generator[Progress | GenerationResult, None, None]:
        began = time.perf_counter()
        self.residency.reset_peak()

        def progress(stage: str, step: int, num_steps: int, picture: int, **tensors: Any) -> Progress:
            return Progress(
                stage=stage,
                step=step,
                num_steps=num_steps,
                image_index=picture,
                num_images=request.num_images,
                seconds=time.perf_counter() - began,
                **tensors,
            )

        yield progress("condition", 0, 1, 0)
        conditioning = self.condition(request)
        timings = {"condition": time.perf_counter() - began}
        for picture in range(request.num_images):
            single = request.single(picture)
            yield progress("condition", 1, 1, picture)
            started = time.perf_counter()
            noise = draw_noise(single.seed, single.height, single.width)
            steps = self.denoise(
                conditioning, noise, num_inference_steps=single.num_inference_steps, schedule=single.schedule
            )
            for step in steps:
                yield progress(
                    "denoise", step.index + 1, step.num_steps, picture, latents=step.latents, denoised=step.denoised
                )
            timings["denoise"] = time.perf_counter() - started
            started = time.perf_counter()
            yield progress("decode", 0, 1, picture)
            pixels = self.decode(unpack(step.latents, single.height, single.width), tiled=single.tiled_decode)
            image = tensor_to_image(pixels)
            timings["decode"] = time.perf_counter() - started
            yield GenerationResult(
                image=image,
                request=single,
                model=self.provenance,
                timings=dict(timings),
                peak_memory_gib=self.residency.peak_memory_gib(),
            )
            timings = {"condition": 0.0}

    def __call__(self, prompt: str = "", **values: Any) -> USOPipelineOutput:
        """Make pictures; arguments as in `GenerationRequest.create`, which verifies them.

        Raises:
            RequestError: a value is refused, with the reason.
        """
        request = GenerationRequest.create(self.model_config, prompt=prompt, **values)
        results = [event for event in self.stream(request) if isinstance(event, GenerationResult)]
        return USOPipelineOutput(images=[result.image for result in results], results=results)


def _exact_convolutions() -> Any:
    """cuDNN without its choice of kernels by speed: the same picture every time."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
