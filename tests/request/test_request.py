"""The door: every value of a request is verified once, and refused in a sentence with what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from uso.config import ModelConfig, load_model_config
from uso.errors import ImageError, RequestError
from uso.request.checks import check_schedule
from uso.request.request import MAX_IMAGES, MAX_SEED, GenerationRequest, ReferenceImage

DEV = load_model_config("flux-dev")
SCHNELL = load_model_config("flux-schnell")
DEMO = load_model_config("demo")


def create(config: ModelConfig = DEV, **values: Any) -> GenerationRequest:
    return GenerationRequest.create(config, **values)


@pytest.mark.parametrize("config", [DEV, SCHNELL, DEMO], ids=lambda config: config.name)
def test_what_is_left_out_has_the_models_defaults(config: ModelConfig) -> None:
    request, defaults = create(config), config.defaults
    assert (request.width, request.height) == (defaults.width, defaults.height)
    assert request.num_inference_steps == defaults.num_inference_steps
    assert request.guidance_scale == (defaults.guidance_scale if config.guidance else None)
    assert (request.content_size, request.schedule) == (defaults.content_size, defaults.schedule)
    assert (request.prompt, request.num_images, request.tiled_decode) == ("", 1, False)


BIG = 10**400
"""Larger than any float: JSON may hold it."""

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"width": 1000}, r"Width is 1000; it must be a multiple of 16 from 512 to 1536\."),
    ({"height": 1000}, r"Height is 1000; it must be a multiple of 16 from 512 to 1536\."),
    ({"width": 496}, r"Width is 496; a whole number from 512 to 1536 is allowed\."),
    ({"height": 1552}, r"Height is 1552; a whole number from 512 to 1536 is allowed\."),
    ({"width": 1024.5}, r"Width is 1024\.5; a whole number"),
    ({"width": "1024"}, r"Width is '1024'; a whole number"),
    ({"width": True}, r"Width is True; a whole number"),
    ({"width": float("nan")}, r"Width is nan; a whole number"),
    ({"width": BIG}, r"Width is 1000.*; a whole number"),
    ({"num_inference_steps": 0}, r"Number of steps is 0; a whole number from 1 to 50 is allowed\."),
    ({"num_inference_steps": 51}, r"Number of steps is 51; a whole number from 1 to 50 is allowed\."),
    ({"guidance_scale": 0.9}, r"Guidance is 0\.9; a number from 1 to 5 is allowed\."),
    ({"guidance_scale": 5.1}, r"Guidance is 5\.1; a number from 1 to 5 is allowed\."),
    ({"guidance_scale": float("inf")}, r"Guidance is inf; a number from 1 to 5 is allowed\."),
    ({"guidance_scale": "high"}, r"Guidance is 'high'; a number from 1 to 5 is allowed\."),
    ({"content_size": 255}, r"Content reference size is 255; a whole number from 256 to 1024 is allowed\."),
    ({"content_size": 1025}, r"Content reference size is 1025; a whole number from 256 to 1024 is allowed\."),
    ({"seed": -2}, r"Seed is -2; 0 to 4294967295 is allowed, or -1 for a random one\."),
    ({"seed": 2**32}, r"Seed is 4294967296; 0 to 4294967295 is allowed, or -1 for a random one\."),
    ({"seed": 1.5}, r"Seed is 1\.5; 0 to 4294967295 is allowed"),
    ({"seed": "7"}, r"Seed is '7'; 0 to 4294967295 is allowed"),
    ({"seed": None}, r"Seed is None; 0 to 4294967295 is allowed"),
    ({"seed": BIG}, r"Seed is 1000.*; 0 to 4294967295 is allowed"),
    (
        {"seed": MAX_SEED - 1, "num_images": 3},
        r"Seed is 4294967294; 0 to 4294967293 is allowed for 3 images, which use the seeds that follow, or -1",
    ),
    ({"num_images": 0}, r"Number of images is 0; a whole number from 1 to 64 is allowed\."),
    ({"num_images": MAX_IMAGES + 1}, r"Number of images is 65; a whole number from 1 to 64 is allowed\."),
    (
        {"schedule": "karras"},
        r"Schedule is 'karras'; 'uso', 'flux' or a number for mu from -10 to 10 is allowed\.",
    ),
    ({"schedule": 10.5}, r"Schedule is 10\.5; 'uso', 'flux' or a number for mu from -10 to 10 is allowed\."),
    ({"schedule": float("nan")}, r"Schedule is nan; 'uso', 'flux' or a number"),
    ({"prompt": None}, r"The prompt must be text, not NoneType\. An empty one is allowed\."),
    ({"prompt": "x" * 10_001}, r"The prompt has 10001 characters; at most 10000 are read\. Shorten it\."),
    ({"prompt": "half \ud83d of it"}, r"The prompt holds half of a character \(a lone surrogate\)\. Type it again\."),
    ({"prompt": "a\x00b"}, r"The prompt holds a NUL character\. Remove it\."),
    ({"keep_input_size": True}, r"Keep input size needs a content image\. Add one, or switch it off\."),
    ({"keep_input_size": "false"}, r"Keep input size is 'false'; true or false is allowed\."),
    ({"tiled_decode": 1}, r"Tiled decode is 1; true or false is allowed\."),
    (
        {"content_images": ["/nowhere/a.png"]},
        r"The image /nowhere/a\.png could not be read \(No such file or directory\)\.",
    ),
    (
        {"style_strengths": 2.1},
        r"Style strength is 2\.1; a number from 0 \(left out\) to 2 \(as if it were given twice\)",
    ),
    ({"style_strengths": [float("nan")]}, r"Style strength is nan; a number from 0"),
    ({"style_strengths": [True]}, r"Style strength is True; a number from 0"),
    ({"style_strengths": "1"}, r"Style strength is '1'; a number from 0"),
    (
        {"style_strengths": [1, 0.5]},
        r"Style strengths and style images: 2 and 0\. Give one strength for each image, in the same order, or none\.",
    ),
    ({"style_images": ["a\0b.png"]}, r"The image a\x00b\.png could not be read \(.*null byte"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=lambda value: str(value)[:40])
def test_refusals(values: dict[str, Any], sentence: str) -> None:
    """Clamped, rounded or ignored in silence, each of these would make another picture than was asked for."""
    with pytest.raises(RequestError, match=f"^{sentence}"):
        create(**values)


def test_schnell_refuses_a_guidance_scale() -> None:
    with pytest.raises(RequestError, match=r"FLUX\.1-schnell takes no guidance scale\. Leave it out\."):
        create(SCHNELL, guidance_scale=4.0)


def test_limits_are_the_models_own() -> None:
    with pytest.raises(RequestError, match=r"Width is 512; a whole number from 128 to 256 is allowed\."):
        create(DEMO, width=512)


def test_bounds_themselves_are_allowed() -> None:
    """An off-by-one would refuse what the page offers."""
    low = create(width=512, height=512, num_inference_steps=1, guidance_scale=1, content_size=256, seed=0, num_images=1)
    high = create(width=1536, height=1536, num_inference_steps=50, guidance_scale=5, content_size=1024, seed=MAX_SEED)
    assert (low.guidance_scale, high.seed) == (1.0, MAX_SEED)
    assert create(seed=MAX_SEED - 63, num_images=64).single(63).seed == MAX_SEED


def test_whole_floats_become_ints() -> None:
    """The page's sliders give floats; 1024.0 in a record would repeat as another type."""
    request = create(width=1024.0, seed=7.0, num_images=2.0, num_inference_steps=4.0, content_size=512.0)
    whole = (request.width, request.seed, request.num_images, request.num_inference_steps, request.content_size)
    assert whole == (1024, 7, 2, 4, 512) and all(type(value) is int for value in whole)


def test_numbers_of_numpy_become_plain_ones() -> None:
    """Catches a seed of `rng.integers(...)` that is refused, and one that a record cannot hold."""
    request = create(seed=np.int64(5), width=np.uint16(1024), guidance_scale=np.float32(2.5), schedule=np.float64(0.5))
    numbers = request.seed, request.width, request.guidance_scale, request.schedule
    assert numbers == (5, 1024, 2.5, 0.5) and [type(number) for number in numbers] == [int, int, float, float]
    assert 0 <= create(seed=np.int64(-1)).seed <= MAX_SEED
    for value in (np.bool_(True), np.float32("nan"), np.float64("inf")):
        with pytest.raises(RequestError, match="^Width is .*; a whole number"):
            create(width=value)


def test_random_seed_is_settled_and_leaves_room_for_all_images() -> None:
    """-1 in a record could not be repeated."""
    seeds = {create(num_images=64).seed for _ in range(20)}
    assert len(seeds) > 1
    assert all(0 <= seed <= MAX_SEED - 63 for seed in seeds)


def test_schedules() -> None:
    assert [check_schedule(value) for value in ("uso", "flux", 1, -0.5)] == ["uso", "flux", 1.0, -0.5]


def test_prompts_of_any_language_pass_unchanged() -> None:
    for prompt in ("", "  ", "一只狐狸", "emoji 🦊", "عربي", "two\nlines"):
        assert create(prompt=prompt).prompt == prompt


def test_single_gives_the_request_of_one_picture() -> None:
    request = create(seed=10, num_images=3, prompt="fox")
    assert request.single(2) == create(seed=12, num_images=1, prompt="fox")


# Images.


def test_keep_input_size_takes_the_first_content_images_shape(picture: Callable[..., Image.Image]) -> None:
    request = create(content_images=[picture(1000, 600), picture(512, 512)], keep_input_size=True, width=512)
    assert (request.width, request.height, request.keep_input_size) == (1008, 608, True)


def test_keep_input_size_may_go_to_half_the_minimum(picture: Callable[..., Image.Image]) -> None:
    """The ordinary check of a side would refuse what keep-input-size allows for long shapes."""
    request = create(content_images=[picture(900, 150)], keep_input_size=True)
    assert (request.width, request.height) == (1536, 256)
    with pytest.raises(RequestError, match=r"Keep input size cannot keep 910 x 150: at most 1536:256 \(6 to 1\)"):
        create(content_images=[picture(910, 150)], keep_input_size=True)


def test_too_thin_content_is_refused_by_name(picture_file: Callable[..., Path]) -> None:
    path = picture_file("pole.png", 37, 900)
    with pytest.raises(ImageError, match=r"pole\.png is too long and thin: 37 x 900 becomes 10 x 256"):
        create(content_images=[path], content_size=256)
    assert create(content_images=[path], content_size=512).content_images[0].name == "pole.png"
    assert create(style_images=[path], content_size=256).style_images  # styles are squashed to a square: any shape


@pytest.mark.parametrize("kind", ["content_images", "style_images"])
def test_files_that_are_no_picture_are_refused(tmp_path: Path, kind: str) -> None:
    """Styles too: decoded only when the model runs, they would cost a wait and then fail."""
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(ImageError, match=r"notes\.txt is not a picture this program can read"):
        create(DEV, **{kind: [tmp_path / "notes.txt"]})


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"could not be read \(Is a directory\)"):
        create(content_images=[tmp_path])


def test_any_number_of_images_in_any_form(
    picture: Callable[..., Image.Image], picture_file: Callable[..., Path]
) -> None:
    path = picture_file("a.png")
    request = create(
        content_images=[path, str(path), picture(64, 64)],
        style_images=[ReferenceImage.from_path(path), picture(30, 20), path],
    )
    assert [len(request.content_images), len(request.style_images)] == [3, 3]
    assert request.content_images[0].sha256 == request.style_images[0].sha256


@pytest.mark.parametrize("kind", ["content_images", "style_images"])
def test_one_image_needs_no_list(
    kind: str, picture: Callable[..., Image.Image], picture_file: Callable[..., Path]
) -> None:
    """Catches a path taken letter by letter: "The image c could not be read"."""
    path, image = picture_file("cat.png"), picture(64, 64)
    for given in (path, str(path), image, ReferenceImage.of(image)):
        assert getattr(create(DEV, **{kind: given}), kind) == (ReferenceImage.of(given),)
    assert getattr(create(DEV, **{kind: None}), kind) == ()


@pytest.mark.parametrize(
    ("given", "name"),
    [(np.zeros((8, 8, 3), np.uint8), "ndarray"), ([np.zeros((8, 8, 3), np.uint8)], "ndarray"), (b"cat.png", "bytes"),
     (5, "int"), ([None], "NoneType")],
)  # fmt: skip
def test_what_is_no_image_is_refused(given: Any, name: str) -> None:
    """Catches a TypeError from the depths of a library."""
    sentence = f"^An image is a path, a Pillow image or a ReferenceImage, not {name}. PIL.Image.fromarray makes one of"
    with pytest.raises(ImageError, match=sentence):
        create(content_images=given)


def test_pillow_images_are_kept_losslessly(picture: Callable[..., Image.Image]) -> None:
    """Kept as JPEG, the repetition from the record would not be the same picture."""
    image = picture(50, 40)
    assert ReferenceImage.of(image).image.tobytes() == image.tobytes()


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "TIFF"), ("LAB", "TIFF"), ("RGBA", "PNG")],
)
def test_a_pillow_image_shows_what_its_file_shows(
    tmp_path: Path, picture: Callable[..., Image.Image], mode: str, form: str, orientation: int
) -> None:
    """Catches a photograph on its side, and modes that PNG does not have, where a path works."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a"
    given = picture(60, 40).convert("RGB" if mode == "LAB" else mode)
    (to_lab(given) if mode == "LAB" else given).save(path, form, exif=exif)
    with Image.open(path) as opened:
        kept = ReferenceImage.from_pil(opened).image
    assert kept.size == ((40, 60) if orientation == 6 else (60, 40))
    assert kept.tobytes() == ReferenceImage.from_path(path).image.tobytes()


def to_lab(image: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    made = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert made is not None
    return made


@pytest.mark.parametrize("mode", ["1", "P", "PA", "HSV", "YCbCr", "RGBX", "RGBa", "La", "I;16", "I;16B", "I;16L", "I"])
def test_pillow_images_of_every_mode_are_kept(mode: str) -> None:
    """Catches an error of Pillow's for a mode that PNG does not have, and deep grey that is cut off: white stays white.

    Pillow itself makes the white of all but deep grey, some of them by way of another mode.
    """
    ways = {"PA": ("P", "PA"), "HSV": ("RGB", "HSV"), "RGBa": ("RGBA", "RGBa"), "La": ("LA", "La")}
    image = Image.new("L", (16, 16), 255)
    for step in () if mode.startswith("I") else ways.get(mode, (mode,)):
        image = image.convert(step)
    if mode.startswith("I"):
        image = Image.new(mode, (16, 16), 65535)
    assert image.mode == mode
    assert ReferenceImage.from_pil(image).image.getextrema() == ((255, 255),) * 3


def test_pillow_images_that_have_no_defined_pixels_are_refused(picture_file: Callable[..., Path]) -> None:
    with pytest.raises(ImageError, match=r"image\.png holds floating-point pixels without a defined white"):
        create(style_images=[Image.new("F", (16, 16))])
    path = picture_file("half.png")
    path.write_bytes(path.read_bytes()[:500])
    with Image.open(path) as opened, pytest.raises(ImageError, match=r"image\.png is damaged or incomplete"):
        create(style_images=[opened])


def test_a_request_and_its_images_do_not_show_their_bytes() -> None:
    """A logged request must not fill the log with megabytes."""
    assert len(repr(ReferenceImage(b"x" * 10_000, "a.png"))) < 100


def test_pixels_can_be_let_go_and_come_back(picture: Callable[..., Image.Image]) -> None:
    """Catches decoded pictures that stay in memory as long as a request waits, and one that is lost with them."""
    reference = ReferenceImage.of(picture(64, 48))
    first = reference.image
    assert reference.image is first
    reference.let_pixels_go()
    assert reference.image is not first and reference.image.tobytes() == first.tobytes()


@pytest.mark.parametrize(
    "value", [10**400, 10**5000, "9" * 5000, [["deep"] * 50] * 50], ids=["number", "longer", "text", "list"]
)
def test_refusals_do_not_repeat_what_is_long(demo_config: ModelConfig, value: Any) -> None:
    """Catches a megabyte that comes back in a sentence, and a number too long to be written out."""
    with pytest.raises(RequestError) as caught:
        GenerationRequest.create(demo_config, seed=value)
    assert len(str(caught.value)) < 200
