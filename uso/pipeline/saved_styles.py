"""Saved styles and the pipeline: from images to a style's file, and from the file to tokens."""

import hashlib
import io
from collections.abc import Callable, Sequence

import torch
from PIL import Image

from uso.errors import RequestError
from uso.language import Text
from uso.request.checks import MAX_STYLE_STRENGTH, check_style_strength, is_number, shown
from uso.request.references import MAX_STYLE_IMAGES, THUMBNAIL_PIXELS, SavedStyle, check_style_name
from uso.request.request import Images, references_of
from uso.transformer.context_embedder import STYLE_LAYERS, ContextEmbedder

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""By their names in safetensors files."""


def projector_fingerprint(embedder: ContextEmbedder) -> str:
    """SHA-256 of the style projector's weights, in bfloat16 so that it does not depend on the dtype they are loaded in:
    64 hexadecimal digits."""
    found = hashlib.sha256()
    for name, weights in sorted(embedder.levels.state_dict().items()):
        found.update(f"{name} {list(weights.shape)}".encode())
        found.update(weights.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def saved_tokens(style: SavedStyle, embedder: ContextEmbedder) -> tuple[torch.Tensor, ...]:
    """The tokens of each of a saved style's images: [1, 3 * style_tokens, hidden].

    Raises:
        RequestError: another projector made them.
    """
    head, sizes = style.head, embedder.config
    style.check_projector(projector_fingerprint(embedder))
    if head.shape[1:] != (len(STYLE_LAYERS) * sizes.style_tokens, sizes.hidden_size):
        raise RequestError(Text("{} has tokens of another size than this model's.", style.name), "style_images")
    tokens = torch.frombuffer(bytearray(style.tokens), dtype=DTYPES[head.dtype]).reshape(head.shape)
    return tuple(tokens.split(1))


def make_style(
    encode: Callable[[Image.Image], torch.Tensor],
    embedder: ContextEmbedder,
    images: Images,
    title: str,
    strength: float,
    weights: Sequence[float] | None,
) -> SavedStyle:
    """See `USOPipeline.save_style`."""
    title, strength = check_style_name(title), check_style_strength("style_strength", strength)
    references = references_of(images)
    if not 1 <= len(references) <= MAX_STYLE_IMAGES:
        raise RequestError(Text("A style is saved from 1 to {} images, not {}.", MAX_STYLE_IMAGES, len(references)))
    for reference in references:
        if isinstance(reference, SavedStyle):
            raise RequestError(Text("{} is a saved style already. Save a style from images.", reference.name))
    weights = [1 / len(references)] * len(references) if weights is None else weights
    if len(weights) != len(references):
        raise RequestError(f"Weights and images: {len(weights)} and {len(references)}. Give one weight for each image.")
    for weight in weights:
        if not is_number(weight) or not 0 < weight <= MAX_STYLE_STRENGTH:
            raise RequestError(f"Weight is {shown(weight)}; a number above 0, to {MAX_STYLE_STRENGTH:g}, is allowed.")
    tokens = torch.cat([encode(reference.image) for reference in references]).cpu()
    return SavedStyle.build(
        tokens.contiguous().view(torch.uint8).numpy().tobytes(),
        {dtype: name for name, dtype in DTYPES.items()}[tokens.dtype],
        (tokens.shape[0], tokens.shape[1], tokens.shape[2]),
        title=title,
        thumbnail=_thumbnail([reference.image for reference in references]),
        strength=strength,
        weights=weights,
        projector=projector_fingerprint(embedder),
    )


def _thumbnail(images: Sequence[Image.Image]) -> bytes:
    """The images as squares side by side, in rows: a WebP file."""
    columns = 1 if len(images) == 1 else 2 if len(images) <= 4 else 3
    side = THUMBNAIL_PIXELS // columns
    sheet = Image.new("RGB", (columns * side, -(-len(images) // columns) * side), "white")
    for number, image in enumerate(images):
        small = image.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (number % columns * side, number // columns * side))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
