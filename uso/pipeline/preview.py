"""Previews of a running request at almost no cost: a linear map from 16 latent channels to RGB.

The map is fitted once to the model's own autoencoder: pictures are encoded and decoded, and each latent cell is matched
with the mean of its 8 x 8 decoded pixels. It is kept in memory, and on disk for the next start. A preview shows colours
and shapes at an eighth of the size, without texture; finished pictures come from `USOPipeline.decode`.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from uso.config import ROOT
from uso.errors import USOError
from uso.files import write_over
from uso.images.pixels import fit_reference, open_image
from uso.memory.device import is_out_of_memory
from uso.memory.residency import Residency
from uso.pipeline.latents import CELL, LATENT_CHANNELS, unpack
from uso.transformer.compile import cache_folder as compiled_folder

logger = logging.getLogger(__name__)

EXAMPLES = ROOT / "assets" / "examples"
"""Photographs and paintings that the map is fitted to."""

FIT_SIZE = 192
"""Long side of pictures during fitting, in pixels: some 400 cells each, for 17 unknowns per colour."""

RIDGE = 1e-4
"""Share of the latents' mean variance; keeps uninformative channels from getting large weights."""

SIDE = 256
"""Long side of a preview, in pixels."""

_VERSION = 1
"""Version of the fit; raise it to have every stored map fitted again."""

_SAMPLES = 64
"""Values hashed per parameter to tell autoencoders apart: no training leaves that many of every tensor unchanged."""


@dataclass(frozen=True, eq=False)
class PreviewMap:
    """Latents -> colours, one cell at a time."""

    weight: torch.Tensor
    """[3, 16], float32."""
    bias: torch.Tensor
    """[3], float32."""

    def colours(self, latents: torch.Tensor) -> torch.Tensor:
        """[1, 16, h, w] latents -> [3, h, w], float32, about [-1, 1], not clamped."""
        weight, bias = self.weight.to(latents.device), self.bias.to(latents.device)
        return torch.einsum("rc,chw->rhw", weight, latents[0].float()) + bias[:, None, None]

    @torch.inference_mode()
    def picture(self, tokens: torch.Tensor, height: int, width: int, side: int = SIDE) -> Image.Image:
        """A preview of packed latents with long side `side` pixels; one transfer from the device.

        On CUDA it does not wait for what is queued.

        Args:
            tokens: [1, height/16 * width/16, 64], computed already.
            height, width: size of the full picture, in pixels.
        """
        with _beside(tokens.device):
            colours = self.colours(unpack(tokens, height, width)).clamp(-1, 1)
            cells = ((colours + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()
        small = Image.fromarray(cells.numpy(), "RGB")
        scale = side / max(small.size)
        size = max(1, round(small.width * scale)), max(1, round(small.height * scale))
        return small.resize(size, Image.Resampling.BICUBIC)


def _beside(device: torch.device) -> AbstractContextManager[Any]:
    """While inside, work is queued beside the device's other work."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


class HasAutoencoder(Protocol):
    """The parts of a pipeline that fitting needs."""

    vae: Any
    residency: Residency

    def encode_reference(self, image: Image.Image) -> torch.Tensor: ...

    def decode(self, latents: torch.Tensor, *, tiled: bool = False) -> torch.Tensor: ...


def map_of(pipeline: HasAutoencoder, examples: Path = EXAMPLES) -> PreviewMap | None:
    """The map of a pipeline's autoencoder, read from disk, or fitted and stored.

    No request may be running. Returns None, with a warning, if it cannot be fitted; only previews are lost.
    """
    try:
        files = [path.read_bytes() for path in sorted(examples.iterdir()) if path.suffix in (".jpg", ".png")]
        path = _kept_path(digest(pipeline.vae, files))
        kept = _read(path)
        if kept is not None:
            return kept
        latents, colours = samples(pipeline, [open_image(data, "example") for data in files])
        fitted = fit(latents, colours)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        pipeline.residency.release()
        logger.warning("There will be no previews: the device ran out of memory while they were prepared.")
        return None
    except (OSError, USOError) as error:
        logger.warning("There will be no previews: %s", error)
        return None
    _write(path, fitted)
    return fitted


@torch.inference_mode()
def samples(pipeline: HasAutoencoder, pictures: Iterable[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures as latents, with the colours that these decode to.

    Returns:
        latents [cells, 16] and mean colours [cells, 3] in about [-1, 1]; float32, on the host.
    """
    latents, colours = [], []
    with pipeline.residency.visit(pipeline.vae):  # once, not for each picture
        for picture in pictures:
            encoded = pipeline.encode_reference(fit_reference(picture, FIT_SIZE))
            means = torch.nn.functional.avg_pool2d(pipeline.decode(encoded).float().clamp(-1, 1), CELL)
            latents.append(_cells(encoded))
            colours.append(_cells(means))
    if not latents:
        raise USOError("there are no pictures to fit them on.")
    return torch.cat(latents), torch.cat(colours)


def _cells(values: torch.Tensor) -> torch.Tensor:
    """[1, C, h, w] -> [h * w, C], on the host."""
    return values[0].flatten(1).T.float().cpu()


def fit(latents: torch.Tensor, colours: torch.Tensor) -> PreviewMap:
    """Ridge regression with an unpenalised constant, in float64.

    Args:
        latents: [cells, 16].
        colours: [cells, 3].

    Raises:
        USOError: the values are not finite.
    """
    known, wanted = latents.double(), colours.double()
    mean, level = known.mean(dim=0), wanted.mean(dim=0)
    centred = known - mean
    covariance = centred.T @ centred / len(known)
    if not (bool(torch.isfinite(covariance).all()) and bool(torch.isfinite(level).all())):
        raise USOError("the autoencoder gives values that are not finite.")
    ridge = RIDGE * covariance.diagonal().mean() + torch.finfo(torch.float64).tiny
    penalty = ridge * torch.eye(len(covariance), dtype=torch.float64)
    weight = torch.linalg.solve(covariance + penalty, centred.T @ (wanted - level) / len(known)).T
    return PreviewMap(weight.float().contiguous(), (level - weight @ mean).float())


# Stored on disk.


def cache_folder() -> Path | None:
    """Where maps are stored: beside compiled kernels; None for a user without a home."""
    compiled = compiled_folder()
    return None if compiled is None else compiled.with_name("previews")


def digest(vae: Any, files: Sequence[bytes]) -> str:
    """SHA-256, in hex, of what a map depends on: a sample of each of the autoencoder's parameters, and the pictures."""
    config = vae.config
    hasher = hashlib.sha256(f"{_VERSION} {FIT_SIZE} {RIDGE} {config.scaling_factor} {config.shift_factor}".encode())
    for name, parameter in vae.named_parameters():
        flat = parameter.detach().reshape(-1)
        values = flat[:: max(1, flat.numel() // _SAMPLES)].float().cpu()
        hasher.update(f" {name} {list(parameter.shape)} {parameter.dtype} ".encode())
        hasher.update(values.numpy().tobytes())
    for data in files:
        hasher.update(hashlib.sha256(data).digest())
    return hasher.hexdigest()


def _kept_path(key: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / f"{key}.safetensors"


def _read(path: Path | None) -> PreviewMap | None:
    """A stored map; None if there is none, or it is unusable."""
    try:
        if path is None or not path.is_file():
            return None
        tensors = load_file(path)
        weight, bias = tensors["weight"], tensors["bias"]
    except (OSError, SafetensorError, KeyError) as error:
        logger.info("The stored preview map %s cannot be read (%s); it is fitted again.", path, error)
        return None
    shapes = weight.shape == (3, LATENT_CHANNELS) and bias.shape == (3,)
    if not shapes or not all(t.dtype == torch.float32 and bool(torch.isfinite(t).all()) for t in (weight, bias)):
        logger.info("The stored preview map %s is damaged; it is fitted again.", path)
        return None
    return PreviewMap(weight, bias)


def _write(path: Path | None, fitted: PreviewMap) -> None:
    """Store a map, whole or not at all; if that fails, the next start fits it again."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_over(path, save({"weight": fitted.weight, "bias": fitted.bias}))
    except OSError as error:
        logger.info("The preview map cannot be stored as %s (%s); the next start fits it again.", path, error)
