"""Checks of single request values. Each returns the value, or raises an error that says what is allowed."""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from uso.config import ModelConfig, Schedule
from uso.errors import RequestError
from uso.images.pixels import TOKEN_SIZE
from uso.language import Text

LABELS = {
    "style_strengths": Text("Style strength"),
    "style_strength": Text("Style strength"),
    "extra_style_strength": Text("Extra style strength"),
    "width": Text("Width"),
    "height": Text("Height"),
    "keep_input_size": Text("Keep input size"),
    "num_inference_steps": Text("Number of steps"),
    "content_size": Text("Content reference size"),
    "num_images": Text("Number of images"),
    "tiled_decode": Text("Tiled decode"),
}
"""What messages call the fields of a request."""

MAX_PROMPT_CHARACTERS = 10_000
MAX_SHOWN = 80
"""The most characters of a wrong value that an error message quotes."""
MAX_MU = 10.0
"""Largest absolute schedule shift mu; FLUX's own rule stays between 0.45 and 1.3."""

MAX_STYLE_STRENGTH = 2.0


def shown(value: object) -> str:
    """A value as quoted in an error message, shortened if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print numbers of more than 4300 digits
        return Text("a number too long to write out")
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def is_number(value: object) -> bool:
    """Whether `value` is a finite number, including NumPy's; true and false are not."""
    if isinstance(value, bool):
        return False
    return isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value))


def check_whole(field: str, value: Any, minimum: int, maximum: int) -> int:
    if not is_number(value) or value != int(value) or not minimum <= value <= maximum:
        raise RequestError(
            Text("{} is {}; a whole number from {} to {} is allowed.", LABELS[field], shown(value), minimum, maximum),
            field,
        )
    return int(value)


def check_switch(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(Text("{} is {}; true or false is allowed.", LABELS[field], shown(value)), field)
    return value


def check_side(field: str, value: Any, config: ModelConfig, kept: bool) -> int:
    if kept:  # from keep_input_size, which allows a wider range for long shapes
        return int(value)
    minimum, maximum = config.limits.min_size, config.limits.max_size
    side = check_whole(field, value, minimum, maximum)
    if side % TOKEN_SIZE:
        raise RequestError(
            Text(
                "{} is {}; it must be a multiple of {} from {} to {}.",
                LABELS[field],
                side,
                TOKEN_SIZE,
                minimum,
                maximum,
            ),
            field,
        )
    return side


def check_prompt(prompt: Any) -> str:
    if not isinstance(prompt, str):
        raise RequestError(
            Text("The prompt must be text, not {}. An empty one is allowed.", type(prompt).__name__), "prompt"
        )
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        sentence = Text(
            "The prompt has {} characters; at most {} are read. Shorten it.", len(prompt), MAX_PROMPT_CHARACTERS
        )
        raise RequestError(sentence, "prompt")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        sentence = Text("The prompt holds half of a character (a lone surrogate). Type it again.")
        raise RequestError(sentence, "prompt") from error
    if "\x00" in prompt:
        raise RequestError(Text("The prompt holds a NUL character. Remove it."), "prompt")
    return prompt


def check_tokens(tokens: int, most: int) -> None:
    """Refuse a prompt that is longer than the model reads, rather than cut it in silence."""
    if tokens > most:
        raise RequestError(Text("The prompt has {} tokens; this model reads {}. Shorten it.", tokens, most), "prompt")


def check_guidance(value: Any, config: ModelConfig) -> float | None:
    if not config.guidance:
        if value is not None:
            raise RequestError(Text("{} takes no guidance scale. Leave it out.", config.title), "guidance_scale")
        return None
    if value is None:
        return config.defaults.guidance_scale
    minimum, maximum = config.limits.min_guidance, config.limits.max_guidance
    if not is_number(value) or not minimum <= value <= maximum:
        sentence = Text("Guidance is {}; a number from {:g} to {:g} is allowed.", shown(value), minimum, maximum)
        raise RequestError(sentence, "guidance_scale")
    return float(value)


def check_style_strength(field: str, value: Any) -> float:
    if not is_number(value) or not 0 <= value <= MAX_STYLE_STRENGTH:
        sentence = Text(
            "{} is {}; a number from 0 (left out) to {:g} (as if it were given twice) is allowed.",
            LABELS[field],
            shown(value),
            MAX_STYLE_STRENGTH,
        )
        raise RequestError(sentence, field)
    return float(value)


def check_style_strengths(given: Any, styles: Sequence[float]) -> tuple[float, ...]:
    """One strength for each style.

    Args:
        styles: the strengths where None, or none at all, are given.
    """
    if given is None:
        return tuple(styles)
    values = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else (given,)
    strengths = tuple(check_style_strength("style_strengths", value) for value in values)
    if strengths and len(strengths) != len(styles):
        raise RequestError(
            Text(
                "Style strengths and style images: {} and {}. Give one strength for each image, in "
                "the same order, or none.",
                len(strengths),
                len(styles),
            ),
            "style_strengths",
        )
    return strengths or tuple(styles)


def check_schedule(schedule: Any) -> Schedule:
    """`uso`, `flux`, or a number for mu.

    Raises:
        RequestError: it is none of these.
    """
    if schedule == "uso" or schedule == "flux":
        return "uso" if schedule == "uso" else "flux"
    if is_number(schedule) and abs(schedule) <= MAX_MU:
        return float(schedule)
    raise RequestError(
        Text(
            "Schedule is {}; 'uso', 'flux' or a number for mu from {:g} to {:g} is allowed.",
            shown(schedule),
            -MAX_MU,
            MAX_MU,
        )
    )
