"""Decoded pixels of any mode become 8-bit sRGB on white, as a person would see them."""

import io
from functools import cache

from PIL import Image, ImageCms, ImageMath

from uso.images.formats.contents import Refusal
from uso.language import Text

_FULL_16_BIT = 65535

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode for a profile's colour space."""

_DEVICES = ("mntr", "scnr", "prtr", "spac")
"""Classes of profiles that say what colours a file's numbers are."""

SAME = 2
"""A profile that moves no colour by more than this many levels is sRGB itself; its pixels are left as they are."""

_PROBES = {
    "RGB": Image.frombytes("RGB", (64, 64), bytes(17 * (at >> low & 15) for at in range(4096) for low in (8, 4, 0))),
    "L": Image.frombytes("L", (16, 16), bytes(range(256))),
}
"""Colours all over a mode's range."""


def to_srgb(
    image: Image.Image, profile: bytes | None = None, white: int = _FULL_16_BIT, inverted: bool = False
) -> Image.Image:
    """8-bit sRGB on white. A profile that is invalid, or for other numbers, is ignored.

    Args:
        white: the number of white in 16-bit grey; those pixels are scaled (Pillow's own conversion clips them).
        inverted: whether white is 0 there.

    Raises:
        Refusal: numbers without a defined range.
    """
    if image.mode == "F":
        raise Refusal(Text("holds floating-point pixels without a defined white. Save it with 8 or 16 bits."))
    if image.mode.startswith("I"):
        grey, opaque = _eight_bit(image, white, inverted)
        return _on_white(_converted(grey, profile), opaque) if opaque else _converted(grey, profile)
    if not image.has_transparency_data:
        return _converted(image, profile)
    layered = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")  # no way leads there from La
    alpha = layered.getchannel("A")
    if profile is not None:
        plain = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        layered = _converted(layered.convert(plain), profile)
    return _on_white(layered, alpha)


def _on_white(image: Image.Image, alpha: Image.Image) -> Image.Image:
    image.putalpha(alpha)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _eight_bit(image: Image.Image, white: int, inverted: bool) -> tuple[Image.Image, Image.Image | None]:
    """(8-bit grey, what of it is opaque; None where all is) of 16-bit grey."""
    transparent = image.info.get("transparency")
    image = image.convert("I")  # Pillow knows no extrema of I;16B, the big-endian kind
    extrema: tuple[int, int] = image.getextrema()  # type: ignore[assignment] # one band
    low, high = extrema
    if low < 0 or high > _FULL_16_BIT:
        raise Refusal(Text("holds values from {} to {}; 0 to 65535 is accepted. Save it with 16 bits.", low, high))
    scale, offset = (-255 / white, 255.5) if inverted else (255 / white, 0.5)
    grey = image.convert("F").point(lambda value: value * scale + offset).convert("L")
    if not isinstance(transparent, int):
        return grey, None
    opaque = ImageMath.lambda_eval(lambda of: of["convert"]((of["pixels"] != transparent) * 255, "L"), pixels=image)
    return grey, opaque


def _converted(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB of an image without transparency, in sRGB."""
    if image.mode == "LAB":
        return _applied(_between(_lab(), "LAB"), image)
    found = _transform(profile, image) if profile else None
    rgb = image.convert("RGB") if found is None else _applied(found[0], image.convert(found[1]))
    rgb.info.pop("icc_profile", None)
    return rgb


def _transform(profile: bytes, image: Image.Image) -> tuple[ImageCms.ImageCmsTransform, str] | None:
    """(what converts, the mode that it takes); None where nothing is to convert."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[source.profile.xcolor_space.strip()]
        if source.profile.device_class not in _DEVICES or (mode == "CMYK") != (image.mode == "CMYK"):
            return None
        if mode == "L" and image.mode not in ("1", "L"):
            return None
        transform = _between(source, mode)
        probe = _PROBES.get(mode)
        if probe is not None and _is_same(probe.convert("RGB"), _applied(transform, probe)):
            return None
    except Exception:  # damaged: LittleCMS and Pillow raise several kinds of errors
        return None
    return transform, mode


def _between(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        source,
        _srgb(),
        mode,
        "RGB",
        ImageCms.Intent.PERCEPTUAL,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    found = ImageCms.applyTransform(image, transform)
    assert found is not None  # only a conversion in place gives none
    found.info.clear()
    return found


def _is_same(one: Image.Image, other: Image.Image) -> bool:
    return all(abs(a - b) <= SAME for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@cache
def _lab() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
