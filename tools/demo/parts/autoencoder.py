"""The autoencoder: pictures to 16 channels at an eighth of the size, and back (diffusers' `AutoencoderKL`).

Learned as an evidence bound: squared and absolute error of the pixels, and a divergence that keeps the latents' noise
at what the pictures can bear, so that neighbouring latents are neighbouring pictures. Scale and shift of the latents
are measured at the end and go to `vae.json`.

`architecture`: `widths`, `blocks`, `groups`.
"""

import logging
from typing import Any

import torch
from diffusers import AutoencoderKL

from tools.demo.judge.structure import psnr as picture_psnr
from tools.demo.parts.model import DTYPE, read_config, refuse_other_sizes, write_config
from tools.demo.parts.pictures import held_out, open_samples, pick, pixels_of
from tools.demo.shards.arrays import to_bytes
from tools.demo.training.config import PartConfig
from tools.demo.training.loop import Loop, Losses
from tools.demo.training.prefetch import Prefetcher, sent
from uso.pipeline.latents import LATENT_CHANNELS
from uso.training.loop.precision import autocast, compile_residuals
from uso.training.losses.seeds import generator
from uso.training.model.export import by_source, write_safetensors
from uso.weights.checkpoints import load_autoencoder
from uso.weights.formats.layouts import autoencoder_part

logger = logging.getLogger(__name__)

FILE = "ae.safetensors"
_FIRST_LOG_VARIANCE = -6.0
_LEAST = 1e-4
"""Squared error below which a picture is good enough."""
_MEASURED = 512
"""How many pictures the scale of the latents is measured on."""


def autoencoder_config(architecture: dict[str, Any]) -> dict[str, Any]:
    """`vae.json` of a new autoencoder; its latents are not scaled yet."""
    widths = list(architecture["widths"])
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": int(architecture.get("blocks", 2)),
        "act_fn": "silu",
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": int(architecture.get("groups", 32)),
        "sample_size": int(architecture.get("sample_size", 128)),
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "latents_mean": None,
        "latents_std": None,
        "force_upcast": True,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": True,
    }


def make_autoencoder(config: PartConfig) -> AutoencoderKL:
    """The autoencoder to learn: a new one, or the folder's."""
    path = config.model / FILE
    if path.is_file() and not config.fresh:
        present = read_config(config.model, "vae")
        measured = ("scaling_factor", "shift_factor")
        wanted = autoencoder_config(config.architecture)
        refuse_other_sizes("autoencoder", {key: wanted[key] for key in wanted if key not in measured}, present)
        vae = load_autoencoder(present, [path])
    else:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            vae = AutoencoderKL.from_config(autoencoder_config(config.architecture))
        # Latents that begin as noise are never read: the decoder learns the mean picture and nothing after it.
        with torch.no_grad():
            vae.encoder.conv_out.bias[LATENT_CHANNELS:] = _FIRST_LOG_VARIANCE
    return vae.train().requires_grad_(True).to(memory_format=torch.channels_last)


class AutoencoderLoss(torch.nn.Module):
    """Error and divergence of pictures [B, 3, H, W] in [-1, 1], given standard normal noise of the latents' shape."""

    def __init__(self, vae: AutoencoderKL, *, decoder_only: bool = False) -> None:
        super().__init__()
        self.vae = vae
        self.decoder_only = decoder_only

    def forward(self, pixels: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Each picture's mean squared error [B]; mean absolute error; divergence per latent value."""
        with torch.set_grad_enabled(not self.decoder_only and torch.is_grad_enabled()):
            mean, log_variance = self.vae.encoder(pixels).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30.0, 20.0)
        latents = mean + torch.exp(0.5 * log_variance) * noise
        error = self.vae.decoder(latents).float() - pixels
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return (error**2).mean(dim=(1, 2, 3)), error.abs().mean(), divergence


def _as_convolution(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The attention's matrices are convolutions of 1 x 1 in the released file."""
    return tensor[:, :, None, None] if ".attn_1." in name and tensor.dim() == 2 else tensor


@torch.inference_mode()
def psnr(vae: AutoencoderKL, pixels: torch.Tensor, batch: int = 16) -> float:
    """Mean over pictures of the peak signal-to-noise ratio, in dB, of bytes decoded from posterior means."""
    values = []
    for part in pixels.split(batch):
        decoded = vae.decode(vae.encode(part).latent_dist.mode()).sample
        values += [picture_psnr(one, truth) for one, truth in zip(to_bytes(decoded), to_bytes(part), strict=True)]
    return sum(values) / len(values)


@torch.inference_mode()
def measure_scale(vae: AutoencoderKL, pixels: torch.Tensor, batch: int = 16) -> tuple[float, float]:
    """(scaling_factor, shift_factor) that bring latents to mean 0 and deviation 1."""
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(batch)])
    return 1 / float(latents.std()), float(latents.mean())


def train_autoencoder(config: PartConfig, device: torch.device, resume: bool = False) -> Loop:
    """A run; its result is `ae.safetensors` and `vae.json` in the model's folder."""
    shards = open_samples(config.shards)
    vae = make_autoencoder(config).to(device)
    size = shards.pixels(0).shape[1]
    options = config.options
    network = AutoencoderLoss(vae, decoder_only=options.decoder_only)
    if config.compile:
        compile_residuals(vae)
    cells = size // 2 ** (len(vae.config["block_out_channels"]) - 1)

    def read(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels, and noise of the latents' shape."""
        pixels = pixels_of(shards, pick(config.seed, "autoencoder", step, config.batch, len(shards)), device)
        noise = torch.randn(
            (config.batch, LATENT_CHANNELS, cells, cells), generator=generator(config.seed, "posterior", step)
        )
        return pixels, sent(noise, device)

    batches = Prefetcher(read, device)

    def losses(step: int) -> Losses:
        pixels, noise = batches.take(step)
        with autocast(device.type, config.precision):
            squared, absolute, divergence = network(pixels, options.noise * noise)
        loss = squared.mean() + options.absolute * absolute + options.divergence * divergence
        loss = loss + options.relative * (squared + _LEAST).log().mean()
        return {"loss": loss, "squared": squared.mean(), "divergence": divergence}

    seen = held_out(size, device)

    def export() -> None:
        vae.eval()
        if options.decoder_only:
            scaling, shift = vae.config["scaling_factor"], vae.config["shift_factor"]
        else:
            some = pick(config.seed, "scale", 0, min(_MEASURED, len(shards)), len(shards))
            scaling, shift = measure_scale(vae, pixels_of(shards, some, device))
        logger.info("Held-out pictures: %.2f dB.", psnr(vae, seen))
        vae.train()
        values = {key: value for key, value in vae.config.items() if key in autoencoder_config({"widths": [32]})}
        values |= {"_class_name": "AutoencoderKL", "scaling_factor": scaling, "shift_factor": shift}
        levels = len(vae.config["block_out_channels"])
        tensors = by_source(lambda name: autoencoder_part(name, levels), dict(vae.named_parameters()), DTYPE)
        as_released = {name: _as_convolution(name, tensor) for name, tensor in tensors.items()}
        write_safetensors(config.model / FILE, as_released)
        write_config(config.model, "vae", values)

    learned = {
        name: p for name, p in vae.named_parameters() if not (options.decoder_only and name.startswith("encoder."))
    }
    loop = Loop(config, learned, losses, export)
    loop.begin(resume)
    with batches:
        loop.run()
    return loop
