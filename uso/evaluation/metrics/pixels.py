"""Pictures as encoders want them, by torchvision's rules: resized by Pillow, centre cropped, normalised."""

import numpy as np
import torch
from PIL import Image


def resized_size(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) with the short side at `short`; the long side is rounded down, as torchvision does."""
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def crop_corner(width: int, height: int, side: int) -> tuple[int, int]:
    """(left, top) of the central square; halves are rounded to even, as torchvision's `CenterCrop` does."""
    return round((width - side) / 2), round((height - side) / 2)


def prepare_picture(
    picture: Image.Image, side: int, short: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """A picture -> [3, side, side]: the short side resized to `short` (bicubic, antialiased), cropped, normalised."""
    size = resized_size(*picture.size, short)
    resized = picture.convert("RGB").resize(size, resample=Image.Resampling.BICUBIC)
    left, top = crop_corner(*size, side)
    pixels = np.asarray(resized.crop((left, top, left + side, top + side)), np.float32) / 255
    normalised = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()
