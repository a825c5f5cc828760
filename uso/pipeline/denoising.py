"""From conditioning to pixels: the Euler steps of a picture, and decoding it.

`Denoising` is the part of `USOPipeline` between encoding and whole requests.
"""

from collections.abc import Generator
from itertools import pairwise

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from uso.config import Schedule
from uso.pipeline.conditioning import Conditions
from uso.pipeline.encoders import Shared, exact_convolutions, tf32_convolutions
from uso.pipeline.latents import pack
from uso.pipeline.schedule import set_schedule
from uso.pipeline.stages import Conditioning, DenoiseStep

TILE_PIXELS = 512
"""Side of a tile in tiled decoding."""

_MPS_TOKENS = 2**15 - 2
"""The most latents that MPS decodes in one piece. Apple's M1 and M2 multiply matrices with a longer side wrongly
(pytorch#195163), and attention over many more kills the process (pytorch#149261)."""


def needs_tiles(device: torch.device, latents: torch.Tensor) -> bool:
    """Whether a device must decode latents [B, 16, H/8, W/8] in tiles."""
    return device.type == "mps" and latents[0, 0].numel() > _MPS_TOKENS


class Denoising(Conditions):
    """The part of `USOPipeline` after conditioning."""

    scheduler: FlowMatchEulerDiscreteScheduler
    decodes_in_tf32: bool = False
    """`--speed fast`, on cards that have it: the decoder's convolutions run in TF32. Encoders are exact."""

    def modulation_table(self, conditioning: Conditioning, sigmas: torch.Tensor) -> torch.Tensor:
        """Outputs of the modulation layers at each noise level: [steps, 1, width], cached.

        Args:
            sigmas: [steps], float32, any device.
        """
        pooled, guidance = conditioning.pooled_prompt_embeds, conditioning.guidance
        modulation = self.exchanged.modulation

        def compute() -> tuple[torch.Tensor]:
            self.residency.enter("modulation")
            with self.residency.visit(modulation.embedding):
                return (modulation.table(sigmas.to(self.work_device), guidance, pooled),)

        scale = None if guidance is None else tuple(guidance.tolist())
        pooled_bytes = pooled.cpu().view(torch.uint8).numpy().tobytes()
        key = ("table", pooled_bytes, scale, tuple(sigmas.tolist()))
        (table,) = self.remembered.get(key, self.work_device, compute)
        return table

    def velocity(self, conditioning: Conditioning, latents: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """The network's velocity for packed latents: [B, picture tokens, 64], float32.

        Args:
            latents: [B, picture tokens, 64].
            row: the row of `modulation_table` for the latents' noise level, [B, width].
        """
        output = self.exchanged.run(
            latents.to(self.transformer.dtype),
            references=conditioning.references,
            context=conditioning.context,
            positions=conditioning.positions,
            row=row,
            attention_bias=conditioning.attention_bias,
        )
        return output[:, : latents.shape[1]].float()

    def denoise(
        self,
        conditioning: Conditioning,
        noise: torch.Tensor,
        *,
        num_inference_steps: int,
        schedule: Schedule,
    ) -> Generator[DenoiseStep, None, None]:
        """Euler steps from noise [1, 16, H/8, W/8] to a picture's latents, yielding after each.

        Latents stay float32; only the network's input is cast. Close the generator to stop. A step may still be
        running on the device when it is yielded; `stream` waits for the device, this does not.
        """
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        sigmas = set_schedule(scheduler, schedule, num_inference_steps, conditioning.height, conditioning.width)
        with torch.inference_mode():
            table = self.modulation_table(conditioning, sigmas[:-1])
        self.residency.enter("denoise")
        latents = pack(noise).to(self.work_device, torch.float32)
        references = 0 if conditioning.references is None else conditioning.references.shape[1]
        biased = conditioning.attention_bias is not None
        self.exchanged.begin_picture(*latents.shape[:2], references, conditioning.context.shape[1], biased=biased)
        for index, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
            with torch.inference_mode():
                velocity = self.velocity(conditioning, latents, table[index])
                denoised = latents - sigma * velocity
                latents = latents + (following - sigma) * velocity
            yield DenoiseStep(index, num_inference_steps, following, latents, denoised)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
        """Latents [1, 16, H/8, W/8] -> pixels [1, 3, H, W], about [-1, 1], not clamped."""
        self.residency.enter("decode")
        self.vae.use_tiling = tiled or needs_tiles(self.work_device, latents)
        self.vae.tile_sample_min_size = TILE_PIXELS
        self.vae.tile_latent_min_size = TILE_PIXELS // 8
        with self.residency.visit(self.vae):
            return self.to_pixels(latents, tf32_convolutions if self.decodes_in_tf32 else exact_convolutions)

    def to_pixels(self, latents: torch.Tensor, convolutions: Shared = exact_convolutions) -> torch.Tensor:
        """Latents [B, 16, H/8, W/8] -> pixels [B, 3, H, W], about [-1, 1], with gradients."""
        scaled = latents.to(self.work_device) / self.vae.config.scaling_factor + self.vae.config.shift_factor
        with convolutions():
            pixels: torch.Tensor = self.vae.decode(scaled.to(self.vae.dtype), return_dict=False)[0]
        return pixels
