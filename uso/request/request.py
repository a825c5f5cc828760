"""What goes in and what comes out: `GenerationRequest`, `Progress`, `GenerationResult`.

Plain data without torch. Page, command line, batch files and Python code all make requests with
`GenerationRequest.create`, which verifies everything once; later code relies on it.
"""

import io
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from uso.config import ModelConfig, Schedule
from uso.errors import ImageError, RequestError, about
from uso.images.pixels import check_reference, keep_input_size
from uso.language import Text
from uso.request.checks import (
    check_guidance,
    check_prompt,
    check_schedule,
    check_side,
    check_style_strengths,
    check_switch,
    check_whole,
    is_number,
    shown,
)
from uso.request.references import ReferenceImage as ReferenceImage
from uso.request.references import SavedStyle, Source

MAX_SEED = 2**32 - 1
RANDOM_SEED = -1
MAX_IMAGES = 64


Images = Source | Iterable[Source] | None


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A verified request; make it with `create`. Sizes are in pixels and multiples of 16."""

    prompt: str
    content_images: tuple[ReferenceImage, ...]
    style_images: tuple[ReferenceImage, ...]
    style_strengths: tuple[float, ...]
    """How much each style image counts, 0 to 2: 0 leaves it out, 2 equals giving it twice."""
    width: int
    height: int
    keep_input_size: bool
    num_inference_steps: int
    guidance_scale: float | None
    """None for a model without guidance."""
    content_size: int
    """Long side to which content references are fitted, in pixels."""
    seed: int
    """The seed of the first picture, 0 to 2^32 - 1; never -1 for random."""
    num_images: int
    schedule: Schedule
    tiled_decode: bool

    @classmethod
    def create(
        cls,
        config: ModelConfig,
        prompt: str = "",
        *,
        content_images: Images = (),
        style_images: Images = (),
        style_strengths: float | Sequence[float] | None = None,
        width: int | None = None,
        height: int | None = None,
        keep_input_size: bool = False,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        content_size: int | None = None,
        seed: int = RANDOM_SEED,
        num_images: int = 1,
        schedule: Schedule | None = None,
        tiled_decode: bool = False,
    ) -> "GenerationRequest":
        """Verify values against a model's limits, and fill in its defaults for omitted ones.

        Args:
            config: the model whose limits and defaults apply.
            prompt: what the picture shows; empty keeps the layout of the content image.
            content_images: who or what is shown: one path, Pillow image or `ReferenceImage`, or any number of them.
            style_images: how it looks, likewise.
            style_strengths: how much each style image counts, from 0 (left out) to 2 (as if given twice), in the same
                order; 1 if omitted.
            width, height: pixels, multiples of 16; with `keep_input_size` the first content image determines them.
            keep_input_size: take the shape of the first content image.
            num_inference_steps: more steps make finer pictures and take longer.
            guidance_scale: how closely the prompt is followed; must be None for a model without guidance.
            content_size: the long side to which content images are fitted, in pixels.
            seed: 0 to 2^32 - 1, or -1 for a random one.
            num_images: how many pictures, with the seeds that follow.
            schedule: the noise levels: `uso`, `flux`, or a number for the shift mu.
            tiled_decode: decode in tiles, which takes less memory.

        Raises:
            RequestError, ImageError: names the value, what is allowed, and what to do.
        """
        limits, defaults = config.limits, config.defaults
        contents, styles = references_of(content_images), references_of(style_images)
        long_side = check_whole(
            "content_size",
            defaults.content_size if content_size is None else content_size,
            limits.min_content_size,
            limits.max_content_size,
        )
        with about("content_images"):
            for reference in contents:
                refuse_style(reference)
                check_reference(*reference.image.size, long_side, reference.name)
        with about("style_images"):
            for reference in styles:
                _ = reference.image  # decoded now, so that an unreadable file is refused here
        if check_switch("keep_input_size", keep_input_size):
            if not contents:
                sentence = Text("Keep input size needs a content image. Add one, or switch it off.")
                raise RequestError(sentence, "keep_input_size")
            with about("keep_input_size"):
                width, height = keep_input_size_of(config, contents[0])
        num_images = check_whole("num_images", num_images, 1, MAX_IMAGES)
        return cls(
            prompt=check_prompt(prompt),
            content_images=contents,
            style_images=styles,
            style_strengths=check_style_strengths(style_strengths, [style.strength for style in styles]),
            width=check_side("width", defaults.width if width is None else width, config, keep_input_size),
            height=check_side("height", defaults.height if height is None else height, config, keep_input_size),
            keep_input_size=keep_input_size,
            num_inference_steps=check_whole(
                "num_inference_steps",
                defaults.num_inference_steps if num_inference_steps is None else num_inference_steps,
                1,
                limits.max_steps,
            ),
            guidance_scale=check_guidance(guidance_scale, config),
            content_size=long_side,
            seed=_check_seed(seed, num_images),
            num_images=num_images,
            schedule=check_schedule(defaults.schedule if schedule is None else schedule),
            tiled_decode=check_switch("tiled_decode", tiled_decode),
        )

    def __repr__(self) -> str:
        given = [f"{len(self.content_images)} content"] if self.content_images else []
        given += [f"{len(self.style_images)} style"] if self.style_images else []
        seeds = f"seed {self.seed}" + (f" to {self.seed + self.num_images - 1}" if self.num_images > 1 else "")
        size, steps = f"{self.width} x {self.height}", f"{self.num_inference_steps} steps"
        return f"GenerationRequest({', '.join([shown(self.prompt), *given, size, steps, seeds])})"

    @property
    def styles(self) -> list[tuple[ReferenceImage, list[float]]]:
        """The styles that the picture depends on, with the strength of each of their images: a saved style may be of
        several. Those of strength 0 are left out."""
        pairs = zip(self.style_images, self.style_strengths, strict=True)
        return [(style, [strength * weight for weight in style.weights]) for style, strength in pairs if strength]

    @property
    def strengths(self) -> list[float]:
        """Of every image in `styles`."""
        return [strength for _, strengths in self.styles for strength in strengths]

    def single(self, index: int) -> "GenerationRequest":
        """The request for picture `index` alone: the same request with seed + index."""
        return replace(self, seed=self.seed + index, num_images=1)


def keep_input_size_of(config: ModelConfig, reference: ReferenceImage) -> tuple[int, int]:
    """(width, height) of a picture of the model `config` that keeps the aspect ratio of `reference`."""
    return keep_input_size(*reference.image.size, config.limits.min_size, config.limits.max_size)


def refuse_style(reference: ReferenceImage | None) -> None:
    """
    Raises:
        ImageError: this content image is a saved style.
    """
    if isinstance(reference, SavedStyle):
        raise ImageError(Text("{} is a saved style. The content must be an image.", reference.name), "content_images")


def references_of(given: Any) -> tuple[ReferenceImage, ...]:
    """A single image or any number of them as a tuple; None means none."""
    if given is None:
        return ()
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    return tuple(ReferenceImage.of(image) for image in (given if several else (given,)))


def _check_seed(seed: Any, num_images: int) -> int:
    last = MAX_SEED - (num_images - 1)
    if is_number(seed) and seed == RANDOM_SEED:
        return secrets.randbelow(last + 1)
    if not is_number(seed) or seed != int(seed) or not 0 <= seed <= last:
        if num_images == 1:
            sentence = Text("Seed is {}; 0 to {} is allowed, or -1 for a random one.", shown(seed), last)
        else:
            sentence = Text(
                "Seed is {}; 0 to {} is allowed for {} images, which use the seeds that follow, or -1 for a random "
                "one.",
                shown(seed),
                last,
                num_images,
            )
        raise RequestError(sentence, "seed")
    return int(seed)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a running request, yielded by `USOPipeline.stream` after every step."""

    stage: str
    """`condition`, `denoise` or `decode`."""
    step: int
    """Steps done in this stage."""
    num_steps: int
    image_index: int
    num_images: int
    seconds: float
    """Time since the request began."""
    height: int = 0
    width: int = 0
    """Size of the picture, in pixels."""
    latents: Any = field(default=None, repr=False)
    """In `denoise`: the packed latents after the step, [1, tokens, 64], float32 on the device."""
    denoised: Any = field(default=None, repr=False)
    """In `denoise`: the clean latents that this step predicts, same form. On a GPU, where this step still runs, those
    of the step before: None at the first one."""


@dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """One finished picture, and everything needed to repeat it."""

    image: Image.Image
    request: GenerationRequest
    """The request of exactly this picture: `num_images` is 1, and the seed is the one that was used."""
    model: dict[str, Any]
    """What made it: model, files and revisions, LoRA scale, dtype, device, plan, program versions."""
    timings: dict[str, float]
    """Seconds by stage: `condition` (0 where shared with an earlier picture), `denoise`, `decode`."""
    peak_memory_gib: float | None
    """Peak device memory for this picture; None if the device does not report it."""
    notes: tuple[str, ...] = ()
    """What people should know of how their request was read, as sentences."""

    def __repr__(self) -> str:
        return f"GenerationResult({self.request!r}, {sum(self.timings.values()):.1f} s)"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()
