"""Which samples go together: pictures cropped to a few shapes, and batches in which every sample has as many tokens.

A bucket is everything that decides the number of tokens: size of target and content picture, and which conditions a
sample keeps. So conditions can be dropped per sample, and no batch needs padding, just as in inference. The order
depends on seed and epoch alone. No pictures are read here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from uso.errors import ConfigError
from uso.images.pixels import TOKEN_SIZE
from uso.training.config import DropoutConfig
from uso.training.losses.seeds import generator

Size = tuple[int, int]
"""(width, height) in pixels."""


def bucket_sizes(side: int, aspects: Sequence[str]) -> list[Size]:
    """A size for every aspect ("4:3" is width to height): about side x side pixels, multiples of 16.

    Raises:
        ConfigError: an aspect that is none, or too long for this side.
    """
    sizes = []
    for aspect in aspects:
        try:
            across, down = (float(part) for part in aspect.split(":"))
            ratio = across / down
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"data.aspects: '{aspect}' is no shape. Write width:height, for example 4:3.") from error
        if not (math.isfinite(ratio) and ratio > 0):
            raise ConfigError(f"data.aspects: '{aspect}' is no shape. Write width:height, for example 4:3.")
        size = (_tokens(side * math.sqrt(ratio)), _tokens(side / math.sqrt(ratio)))
        if min(size) < TOKEN_SIZE:
            raise ConfigError(f"data.aspects: '{aspect}' is too long at data.resolution {side}.")
        sizes.append(size)
    if not sizes:
        raise ConfigError("data.aspects must name at least one shape, for example 1:1.")
    return sizes


def _tokens(pixels: float) -> int:
    return int(pixels / TOKEN_SIZE + 0.5) * TOKEN_SIZE


def content_sizes(long_side: int, targets: Sequence[Size]) -> list[Size]:
    """For every target size the content reference's of the same shape: its long side is `long_side`, rounded down."""
    long = max(TOKEN_SIZE, long_side // TOKEN_SIZE * TOKEN_SIZE)
    return [
        (long, max(TOKEN_SIZE, _tokens(long * height / width)))
        if width >= height
        else (max(TOKEN_SIZE, _tokens(long * width / height)), long)
        for width, height in targets
    ]


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose shape is nearest, by the ratio of the ratios."""
    shape = math.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - shape))


def crop_size(size: Size, shape: Size) -> Size:
    """The largest size of another's shape that fits into a picture; at least 1 x 1."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    return (
        max(1, min(size[0], round(shape[0] * scale))),
        max(1, min(size[1], round(shape[1] * scale))),
    )


def crop_to_shape(image: Image.Image, shape: Size) -> Image.Image:
    """The centre of a picture in the shape of a size: cropped, not scaled."""
    width, height = crop_size(image.size, shape)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def crop_and_scale(image: Image.Image, size: Size) -> Image.Image:
    """A picture brought to a size: cropped to its shape, then scaled by one factor for both sides (LANCZOS)."""
    return crop_to_shape(image, size).resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Draw:
    """One sample of one epoch, and which conditions it keeps."""

    index: int
    text: bool
    style: bool
    content: bool


@dataclass(frozen=True)
class Shape:
    """What decides a sample's number of tokens while it keeps all conditions."""

    target: Size
    content: Size | None
    styles: int


def epoch_batches(
    shapes: Sequence[Shape], dropout: DropoutConfig, *, micro_batch: int, seed: int, epoch: int
) -> list[list[Draw]]:
    """One epoch's micro-batches, in order: every sample once, all of a batch alike in number of tokens.

    The last batch of a bucket may be smaller than the others.
    """
    draw = generator(seed, "epoch", epoch)
    order = torch.randperm(len(shapes), generator=draw).tolist()
    chances = torch.rand(len(shapes), 2, generator=draw).tolist()
    buckets: dict[Shape, list[Draw]] = {}
    for index in order:
        shape = shapes[index]
        text, loss = chances[index]
        drawn = Draw(
            index,
            text=text >= dropout.text,
            style=shape.styles > 0 and loss >= dropout.style,
            content=shape.content is not None and not dropout.style <= loss < dropout.style + dropout.content,
        )
        kept = Shape(shape.target, shape.content if drawn.content else None, shape.styles if drawn.style else 0)
        buckets.setdefault(kept, []).append(drawn)
    batches = [
        bucket[start : start + micro_batch]
        for bucket in buckets.values()
        for start in range(0, len(bucket), micro_batch)
    ]
    return [batches[index] for index in torch.randperm(len(batches), generator=draw).tolist()]
