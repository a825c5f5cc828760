"""Style reward learning (arXiv 2508.18966, section 3.3): a differentiable score of how well the picture matches its
style reference.

Euler steps without gradient take noise to a step drawn from the last few, with the schedule and guidance of inference.
One more step runs with gradient, and its clean estimate is decoded. The reward is the cosine between the descriptor's
vectors of that picture and of the style reference. The descriptor is any module from pixels [B, 3, H, W] in [-1, 1] to
unit vectors [B, D]; it stays frozen.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uso.config import ROOT, from_home
from uso.images.pixels import open_image
from uso.pipeline.cache import TensorCache
from uso.pipeline.latents import CELL, LATENT_CHANNELS, image_to_tensor, pack, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.schedule import schedule_sigmas
from uso.pipeline.stages import Conditioning
from uso.training.config import RewardConfig
from uso.training.data.batches import TrainingBatch
from uso.training.data.source import StylePicture
from uso.training.losses.flow import clean_estimate, conditioning_of, predict
from uso.training.losses.seeds import generator
from uso.training.plugins import find


def load_descriptor(name: str, weights: str | None, device: torch.device) -> nn.Module:
    """A frozen descriptor; the function is given the path of its weights, or None.

    Raises:
        ConfigError: there is no such function.
    """
    descriptor: nn.Module = find("descriptor", name)(str(ROOT / from_home(weights)) if weights else None)
    return descriptor.to(device).eval().requires_grad_(False)


_VECTORS = 2**28
"""Bytes of host memory for vectors of style references; CSD's take 3 KiB each."""


class StyleScore:
    """How near pictures are to their style references, by one descriptor."""

    def __init__(self, descriptor: nn.Module, device: torch.device) -> None:
        self.descriptor = descriptor
        self.device = device
        self._vectors = TensorCache(_VECTORS)

    def score(self, pixels: torch.Tensor, references: tuple[tuple[StylePicture, ...], ...]) -> torch.Tensor:
        """Cosines: [B]; the mean over the references of a picture that has several.

        Args:
            pixels: [B, 3, H, W], cut off at [-1, 1].
            references: each picture's style references.
        """
        vectors = self.descriptor(pixels.clamp(-1, 1))
        styles = torch.stack([torch.stack([self._vector(path) for path in paths]).mean(0) for paths in references])
        return (vectors * styles.to(vectors)).sum(dim=-1)

    @torch.no_grad()
    def _vector(self, source: StylePicture) -> torch.Tensor:
        """Of a reference; kept in host memory."""

        def compute() -> tuple[torch.Tensor]:
            image = open_image(source.read_bytes(), source.name) if isinstance(source, Path) else source.open()
            return (self.descriptor(image_to_tensor(image).to(self.device))[0],)

        return self._vectors.get(source, self.device, compute)[0]


class StyleReward:
    """The reward loss of one pipeline."""

    def __init__(self, pipeline: USOPipeline, config: RewardConfig, score: StyleScore, seed: int) -> None:
        self.pipeline = pipeline
        self.config = config
        self.score = score
        self.seed = seed

    def rewards(self, batch: TrainingBatch, autocast: Any) -> torch.Tensor | None:
        """A reward in [-1, 1] for each picture, with gradients: [B]; None for a batch without styles.

        Args:
            autocast: makes the context that the network runs in.
        """
        if not batch.styles:
            return None
        batch = batch.first(self.config.samples)
        draw = generator(self.seed, "reward", batch.number)
        steps, last = self.config.steps, self.config.last
        stop = int(torch.randint(steps - last, steps, (), generator=draw))
        shape = (batch.size, LATENT_CHANNELS, batch.height // CELL, batch.width // CELL)
        noise = torch.randn(shape, generator=draw)
        defaults = self.pipeline.model_config.defaults
        guidance = defaults.guidance_scale if self.config.guidance is None else self.config.guidance
        with autocast():
            conditioning = conditioning_of(self.pipeline, batch, guidance)
        with autocast():
            tokens = self._roll_out(conditioning, noise, stop)
        level = schedule_sigmas(self.config.schedule, steps, batch.height, batch.width)[stop]
        with autocast():
            velocity = predict(self.pipeline, conditioning, tokens, torch.full((batch.size,), level))
        latents = unpack(clean_estimate(tokens, velocity, level), batch.height, batch.width)
        return self.score.score(self.pipeline.to_pixels(self._resized(latents)), batch.style_pictures)

    def _roll_out(self, conditioning: Conditioning, noise: torch.Tensor, stop: int) -> torch.Tensor:
        """Packed latents before step `stop` of the schedule, without gradient: [B, tokens, 64], float32."""
        self.pipeline.remembered.clear()  # modulation tables, which a transformer that learns makes stale
        steps = self.pipeline.denoise(
            conditioning, noise, num_inference_steps=self.config.steps, schedule=self.config.schedule
        )
        tokens = pack(noise).to(self.pipeline.work_device, torch.float32)
        for step in islice(steps, stop):
            tokens = step.latents
        steps.close()
        return tokens.clone()  # those of the steps were made in inference mode

    def _resized(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents at the size that is decoded."""
        size, long = self.config.decode_size, CELL * max(latents.shape[-2:])
        if size is None or size >= long:
            return latents
        sides = [max(1, round(side * size / long)) for side in latents.shape[-2:]]
        return nn.functional.interpolate(latents, sides, mode="bilinear", antialias=True)
