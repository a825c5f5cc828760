"""Latents as tokens: noise, packing, position ids, reference offsets. Pure functions, no weights.

Latents are [B, 16, H/8, W/8]; a token is a 2 x 2 cell of latents (16 x 16 pixels) with 64 channels. Position ids are
[tokens, 3]: (0, row, column) for pictures, all zero for style and text tokens. Orders and offsets follow FLUX
(black-forest-labs/flux, `sampling.py`) and USO's released code; the golden case tests them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from uso.errors import USOError
from uso.language import Text

LATENT_CHANNELS = 16
CELL = 8
"""Pixels per side of a latent cell: the autoencoder's downsampling."""

PATCH = 2
"""Latent cells per side of a token."""


def draw_noise(seed: int, height: int, width: int) -> torch.Tensor:
    """The initial latents of a seed: [1, 16, height/8, width/8], float32 on the CPU; sizes in pixels.

    Drawn in float64 and then cast, since float32 draws differ between CPU builds, and a GPU's between GPU models.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    shape = (1, LATENT_CHANNELS, height // CELL, width // CELL)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(torch.float32)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] latents -> [B, (h/2)(w/2), 4C] tokens, channel-major inside a token."""
    batch, channels, height, width = latents.shape
    cells = latents.view(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH * PATCH)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[B, tokens, 4C] -> [B, C, height/8, width/8]; sizes in pixels. The inverse of `pack`."""
    batch, _, channels = tokens.shape
    rows, columns = height // (CELL * PATCH), width // (CELL * PATCH)
    cells = tokens.view(batch, rows, columns, channels // (PATCH * PATCH), PATCH, PATCH)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows * PATCH, columns * PATCH)


def grid_ids(
    rows: int, columns: int, first_row: int = 0, first_column: int = 0, *, grid: int | None = None
) -> torch.Tensor:
    """Position ids of a picture of rows x columns tokens: [rows * columns, 3], float32, row by row.

    Args:
        grid: ids of each side are spread over this many positions, whatever the number of tokens (position
            interpolation, arXiv 2306.15595). None: an id counts tokens, as in FLUX.
    """

    def side(count: int, first: int) -> torch.Tensor:
        tokens = torch.arange(count, dtype=torch.float32)
        return first + (tokens if grid is None else (tokens + 0.5) * (grid / count) - 0.5)

    ids = torch.stack(torch.meshgrid(side(rows, first_row), side(columns, first_column), indexing="ij"), dim=-1)
    return torch.nn.functional.pad(ids.reshape(-1, 2), (1, 0))


def picture_ids(
    height: int, width: int, reference_sizes: Sequence[tuple[int, int]], grid: int | None = None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Position ids of the picture and of each content reference; sizes are (H, W) in pixels.

    References continue diagonally: the first starts at the picture's bottom right corner, each next one at that of the
    reference before it. `grid` is as in `grid_ids`.

    Returns:
        ids of the picture, [H/16 * W/16, 3], and one such tensor per reference.
    """
    row, column, ids = 0, 0, []
    for image_height, image_width in [(height, width), *reference_sizes]:
        rows, columns = image_height // (CELL * PATCH), image_width // (CELL * PATCH)
        ids.append(grid_ids(rows, columns, row, column, grid=grid))
        row, column = row + (grid or rows), column + (grid or columns)
    return ids[0], ids[1:]


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """An 8-bit RGB picture -> [1, 3, H, W] in [-1, 1], float32."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return (pixels.permute(2, 0, 1)[None] / 127.5) - 1.0


def tensor_to_image(pixels: torch.Tensor) -> Image.Image:
    """[1, 3, H, W], clamped to [-1, 1] -> an 8-bit RGB picture.

    Raises:
        USOError: a value is not finite, and would turn out black.
    """
    values = pixels[0].float().cpu()
    if not bool(torch.isfinite(values).all()):
        raise USOError(
            Text(
                "The model gave values that are not finite, which make no picture. Choose another seed or number type "
                "(--dtype); if it happens again, its weights are damaged."
            )
        )
    levels = ((values.clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy(), "RGB")
