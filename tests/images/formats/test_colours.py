"""Profiles become sRGB; without one, or with sRGB's own, no pixel moves."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.image_files import (
    P3,
    SRGB,
    cmyk_profile,
    difference,
    encode,
    grey_profile,
    in_srgb,
    photo,
    rgb_profile,
)
from uso.images.pixels import open_image
from uso.request.request import ReferenceImage

ADOBE = ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457))
PROPHOTO = ((0.79767, 0.13519, 0.03135), (0.28804, 0.71188, 0.00009), (0.0, 0.0, 0.82491))
PRIMARIES = {"Display P3": P3, "Adobe RGB": ADOBE, "ProPhoto": PROPHOTO}
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}


@pytest.mark.parametrize("space", PRIMARIES)
def test_colours_of_other_spaces_come_out_right(space: str) -> None:
    """Catches a picture 8 to 18 levels off because its profile was not read."""
    picture, profile = photo(), rgb_profile(PRIMARIES[space], 2.2)
    expected = in_srgb(picture, PRIMARIES[space], 2.2)
    assert difference(picture, expected) > 3
    for form, options in LOSSLESS.items():
        assert difference(open_image(encode(picture, form, icc_profile=profile, **options)), expected) < 1, form
    assert difference(open_image(encode(picture, "JPEG", quality=98, subsampling=0, icc_profile=profile)), expected) < 2
    options = {"quality": 98, "subsampling": "4:4:4"}
    assert difference(open_image(encode(picture, "AVIF", icc_profile=profile, **options)), expected) < 2


def test_a_jpeg_2000_has_its_profile_in_a_box() -> None:
    profile, data = rgb_profile(P3, 2.2), encode(photo(), "JPEG2000")
    at = data.index(b"colr") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    box = (11 + len(profile)).to_bytes(4, "big") + b"colr\2\0\0" + profile
    header = data.index(b"jp2h") - 4
    size = int.from_bytes(data[header : header + 4], "big") + len(box) - length
    mended = data[:header] + size.to_bytes(4, "big") + data[header + 4 : at] + box + data[at + length :]
    assert difference(open_image(mended), in_srgb(photo(), P3, 2.2)) < 1


# Named, because a profile holds the time at which it was made: workers of a run would not agree on the names of tests.
@pytest.mark.parametrize(
    "profile", [None, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()], ids=["none", "srgb"]
)
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "1"])
def test_srgb_stays_bit_for_bit(profile: bytes | None, mode: str) -> None:
    picture = photo().convert(mode)
    data = encode(picture, icc_profile=profile) if profile else encode(picture)
    assert open_image(data).tobytes() == open_image(encode(picture)).tobytes()
    if mode in ("L", "RGB", "1"):
        assert open_image(data).tobytes() == picture.convert("RGB").tobytes()


def test_transparency_is_kept_by_conversion() -> None:
    picture, alpha = photo(), Image.linear_gradient("L").resize((160, 120))
    layered = picture.copy()
    layered.putalpha(alpha)
    share = np.asarray(alpha, np.float64)[..., None] / 255
    expected = np.asarray(in_srgb(picture, P3, 2.2)) * share + 255 * (1 - share)
    opened = np.asarray(open_image(encode(layered, icc_profile=rgb_profile(P3, 2.2))), np.float64)
    assert np.abs(opened - expected).mean() < 1


def test_a_palette_is_converted() -> None:
    picture = photo().quantize(64)
    opened = open_image(encode(picture, icc_profile=rgb_profile(P3, 2.2)))
    assert difference(opened, in_srgb(picture.convert("RGB"), P3, 2.2)) < 1


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_is_converted(mode: str) -> None:
    """A grey of light itself (gamma 1) is far brighter in sRGB."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values)
    data = encode(picture.convert(mode) if mode == "LA" else picture, icc_profile=grey_profile(1.0))
    expected = in_srgb(Image.fromarray(np.stack([values] * 3, axis=-1)), SRGB, 1.0)
    assert difference(open_image(data), expected) < 1


def test_inks_are_converted() -> None:
    """A printer's black of L 40: without its profile it is 0."""
    picture = Image.new("CMYK", (32, 32), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 16, 32))
    profile = cmyk_profile((round(2.55 * 40), 128, 128))
    for form in ("JPEG", "TIFF"):
        opened = np.asarray(open_image(encode(picture, form, icc_profile=profile)), np.float64)
        plain = np.asarray(open_image(encode(picture, form)), np.float64)
        assert plain[16, 4].tolist() == [255] * 3 and plain[16, 28].max() <= 2
        assert opened[16, 4].min() >= 253
        assert opened[16, 28].std() < 2


@pytest.mark.parametrize(
    "profile",
    [
        b"x" * 3000,
        rgb_profile(P3, 2.2)[:200],
        grey_profile(1.0),
        cmyk_profile(),
        rgb_profile(P3, 2.2).replace(b"mntr", b"link"),
    ],
    ids=["nonsense", "cut off", "of grey", "of inks", "of no device"],
)
def test_a_profile_that_does_not_fit_is_ignored(profile: bytes) -> None:
    for form, options in LOSSLESS.items():
        assert open_image(encode(photo(), form, icc_profile=profile, **options)).tobytes() == photo().tobytes()


def test_a_profile_of_colours_fits_grey_but_no_inks() -> None:
    profile = rgb_profile(P3, 2.2)
    grey = open_image(encode(photo().convert("L"), icc_profile=profile))
    assert np.ptp(np.asarray(grey), axis=2).max() == 0
    inks = photo().convert("CMYK")
    assert open_image(encode(inks, "TIFF", icc_profile=profile)).tobytes() == inks.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_pillow_image_is_shown_as_its_file_would_be(mode: str) -> None:
    """Catches a profile that is lost on the way into the reference, or applied twice."""
    data = encode(photo().convert(mode), icc_profile=rgb_profile(P3, 2.2))
    with Image.open(io.BytesIO(data)) as image:
        given = ReferenceImage.from_pil(image).image
    assert given.tobytes() == open_image(data).tobytes()
    assert ReferenceImage.from_pil(given).image.tobytes() == given.tobytes()


def test_inks_of_a_pillow_image_are_converted_once() -> None:
    data = encode(photo().convert("CMYK"), "TIFF", icc_profile=cmyk_profile((100, 128, 128)))
    with Image.open(io.BytesIO(data)) as image:
        assert ReferenceImage.from_pil(image).image.tobytes() == open_image(data).tobytes()
