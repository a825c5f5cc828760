"""What a request refers to: images, and saved styles in the place of style images. Plain data without torch.

A saved style is a safetensors file: the style tokens of one or several images, a thumbnail, and as metadata its name,
its strength, the weight of each image, and the fingerprint of the projector that made the tokens. It may come from a
stranger, so everything in it is checked.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from uso.errors import ImageError, RequestError
from uso.images.pixels import as_png, open_image, upright_size
from uso.language import Text
from uso.request.checks import MAX_STYLE_STRENGTH, is_number

STYLE_SUFFIX = ".safetensors"
STYLE_FORMAT = "uso-style/1"

MAX_STYLE_IMAGES = 8
MAX_STYLE_NAME = 60
"""Characters."""
MAX_HEADER = 64 * 1024
MAX_THUMBNAIL = 96 * 1024
"""Bytes; a WebP of 256 x 256 pixels takes a tenth of it, and lists show many."""
THUMBNAIL_PIXELS = 256
MAX_STYLE_BYTES = 32 * 2**20
"""8 images of FLUX's 192 tokens in float32 take 19 MB."""

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""By the name of a dtype in safetensors files."""


@dataclass(frozen=True)
class ReferenceImage:
    """The bytes of an image file that a user gave, identified by their SHA-256."""

    data: bytes = field(repr=False)
    name: str = "image"

    @classmethod
    def from_path(cls, path: str | Path) -> "ReferenceImage":
        """Read a file: an image or a saved style.

        Raises:
            ImageError: there is no such file, or it cannot be read.
        """
        try:
            return read_reference(Path(path).read_bytes(), Path(path).name)
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            if isinstance(error, ImageError):
                raise
            raise ImageError(
                Text("The image {} could not be read ({}).", path, getattr(error, "strerror", None) or error)
            ) from error

    @classmethod
    def from_pil(cls, image: Image.Image, name: str = "image.png") -> "ReferenceImage":
        """A Pillow image, stored upright and losslessly as PNG.

        Raises:
            ImageError: its file is damaged, or its pixels have no defined range.
        """
        return cls(as_png(image, name), name)

    @classmethod
    def of(cls, source: "Source") -> "ReferenceImage":
        """From a `ReferenceImage`, a Pillow image, or a path.

        Raises:
            ImageError: it is something else, or an image that cannot be used.
        """
        if isinstance(source, ReferenceImage):
            return source
        if isinstance(source, Image.Image):
            return cls.from_pil(source)
        if not isinstance(source, str | Path):
            raise ImageError(
                Text(
                    "An image is a path, a Pillow image or a ReferenceImage, not {}. "
                    "PIL.Image.fromarray makes one of an array.",
                    type(source).__name__,
                )
            )
        return cls.from_path(source)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def image(self) -> Image.Image:
        """The decoded image: upright, on white, 8-bit RGB; of a saved style the thumbnail.

        Raises:
            ImageError: the bytes are not a usable image.
        """
        return open_image(self.data, self.name)

    @property
    def strength(self) -> float:
        """The style strength, where none is given."""
        return 1.0

    @property
    def weights(self) -> tuple[float, ...]:
        """As a style: what each of its images counts, at strength 1."""
        return (1.0,)

    def let_pixels_go(self) -> None:
        """Drop the decoded image while the request is queued; it may be a hundred times as large as the file."""
        self.__dict__.pop("image", None)


@dataclass(frozen=True)
class StyleHead:
    """What a saved style's file says before the tokens; verified."""

    title: str
    strength: float
    weights: tuple[float, ...]
    projector: str
    """Fingerprint of the projector that made the tokens, 64 hexadecimal digits."""
    dtype: str
    shape: tuple[int, int, int]
    """Of the tokens: images, tokens of each, width of the transformer."""
    start: int
    """Where the thumbnail begins in the file; the tokens follow it to the end."""
    thumbnail_bytes: int


class SavedStyle(ReferenceImage):
    """A style in the place of a style image. Make it with `USOPipeline.save_style`, or from its file."""

    @classmethod
    def build(
        cls,
        tokens: bytes,
        dtype: str,
        shape: tuple[int, int, int],
        *,
        title: str,
        thumbnail: bytes,
        strength: float,
        weights: Sequence[float],
        projector: str,
    ) -> "SavedStyle":
        """A new one; the fields are those of `StyleHead`."""
        end = len(thumbnail) + len(tokens)
        header = {
            "__metadata__": {
                "format": STYLE_FORMAT,
                "title": check_style_name(title),
                "strength": repr(float(strength)),
                "weights": json.dumps([float(weight) for weight in weights]),
                "projector": projector,
            },
            "thumbnail": {"dtype": "U8", "shape": [len(thumbnail)], "data_offsets": [0, len(thumbnail)]},
            "tokens": {"dtype": dtype, "shape": list(shape), "data_offsets": [len(thumbnail), end]},
        }
        return cls(_with_header(header) + thumbnail + tokens, f"{title}{STYLE_SUFFIX}")

    def check_projector(self, projector: str) -> None:
        """
        Args:
            projector: fingerprint of the projector that is there.

        Raises:
            RequestError: another one made the tokens.
        """
        if self.head.projector != projector:
            sentence = Text(
                "The style “{}” was saved with another style projector than this model's. Save it again here.",
                self.head.title,
            )
            raise RequestError(sentence, "style_images")

    def renamed(self, title: str, strength: float | None = None) -> "SavedStyle":
        """The same under another name, and with another strength if one is given."""
        header = json.loads(self.data[8 : self.head.start])
        header["__metadata__"]["title"] = check_style_name(title)
        if strength is not None:
            header["__metadata__"]["strength"] = repr(float(strength))
        return SavedStyle(_with_header(header) + self.data[self.head.start :], f"{title}{STYLE_SUFFIX}")

    @cached_property
    def head(self) -> StyleHead:
        """
        Raises:
            ImageError: the file is none of this format.
        """
        return read_head(self.data, len(self.data), self.name)

    @property
    def thumbnail(self) -> bytes:
        """A small image file."""
        return self.data[self.head.start :][: self.head.thumbnail_bytes]

    @property
    def tokens(self) -> bytes:
        """The numbers of the tokens, in the order, dtype and shape that `head` says."""
        return self.data[self.head.start + self.head.thumbnail_bytes :]

    @cached_property
    def image(self) -> Image.Image:
        """The thumbnail. Reading it checks the whole file.

        Raises:
            ImageError: the file cannot be used.
        """
        if not _finite(self.tokens, self.head.dtype):
            raise _unusable(self.name, Text("its tokens hold numbers that are not finite"))
        if max(upright_size(self.thumbnail, self.name)) > THUMBNAIL_PIXELS:
            raise _unusable(self.name, Text("its thumbnail is larger than {} pixels", THUMBNAIL_PIXELS))
        return open_image(self.thumbnail, self.name)

    @property
    def strength(self) -> float:
        return self.head.strength

    @property
    def weights(self) -> tuple[float, ...]:
        return self.head.weights


Source = ReferenceImage | Image.Image | str | Path
"""What can be given as an image."""


def read_reference(data: bytes, name: str) -> ReferenceImage:
    """The image or saved style in a file's bytes, by what they begin with. A style is called by its own name.

    Raises:
        ImageError: they begin like a saved style, and are none.
    """
    if not begins_like_a_style(data):
        return ReferenceImage(data, name)
    return SavedStyle(data, f"{SavedStyle(data, name).head.title}{STYLE_SUFFIX}")


def begins_like_a_style(data: bytes) -> bool:
    """Whether these may be the first bytes of a safetensors file. No image begins like that."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= MAX_HEADER


def check_style_name(title: Any) -> str:
    """
    Raises:
        RequestError: no text, too long, or with characters that cannot be seen.
    """
    if not isinstance(title, str) or not title.strip() or not title.isprintable() or len(title) > MAX_STYLE_NAME:
        raise RequestError(Text("A style needs a name of 1 to {} visible characters.", MAX_STYLE_NAME), "style_name")
    return title.strip()


def read_head(data: bytes, size: int, name: str) -> StyleHead:
    """What a saved style's file says before the tokens.

    Args:
        data: the file's first bytes, the header at least.
        size: of the whole file.
        name: how messages call it.

    Raises:
        ImageError: it is no saved style.
    """
    if size > MAX_STYLE_BYTES:
        raise _unusable(name, Text("it has more than {} MB", MAX_STYLE_BYTES >> 20))
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        about = header["__metadata__"]
        if about["format"] != STYLE_FORMAT:
            raise ValueError("another format")
        return _verified(header, about, 8 + length, size)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unusable(name, Text("it is no saved style, or damaged")) from error


def _verified(header: dict[str, Any], about: dict[str, str], start: int, size: int) -> StyleHead:
    """
    Raises:
        ValueError, KeyError, TypeError: something in it is wrong.
    """
    thumbnail, tokens = header["thumbnail"], header["tokens"]
    shape, dtype = tuple(tokens["shape"]), tokens["dtype"]
    weights = json.loads(about["weights"])
    strength = float(about["strength"])
    end = thumbnail["data_offsets"][1]
    right = (
        set(header) == {"__metadata__", "thumbnail", "tokens"},
        thumbnail == {"dtype": "U8", "shape": [end], "data_offsets": [0, end]} and 0 < end <= MAX_THUMBNAIL,
        len(shape) == 3 and all(type(length) is int and length > 0 for length in shape),
        tokens["data_offsets"] == [end, size - start],
        end + math.prod(shape) * ITEM_BYTES[dtype] == size - start,
        0 < len(weights) == shape[0] <= MAX_STYLE_IMAGES,
        all(is_number(weight) and 0 < weight <= MAX_STYLE_STRENGTH for weight in weights),
        0 <= strength <= MAX_STYLE_STRENGTH,
        len(about["projector"]) == 64 and set(about["projector"]) <= set("0123456789abcdef"),
    )
    if not all(right):
        raise ValueError("not as it should be")
    title = check_style_name(about["title"])
    return StyleHead(title, strength, tuple(weights), about["projector"], dtype, shape, start, end)


def _with_header(header: dict[str, Any]) -> bytes:
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _finite(numbers: bytes, dtype: str) -> bool:
    import numpy as np

    if dtype == "BF16":  # not known to NumPy: exponents of ones alone are infinities and NaN
        return bool(((np.frombuffer(numbers, np.uint16) & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(np.frombuffer(numbers, np.float32 if dtype == "F32" else np.float16)).all())


def _unusable(name: str, why: str) -> ImageError:
    sentence = Text("{} cannot be used as a style: {}. Choose an image, or a style that this program saved.", name, why)
    return ImageError(sentence)
