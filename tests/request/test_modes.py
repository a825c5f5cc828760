"""What a request will make, in words."""

import pytest

from uso.request.modes import NOTHING, mode_of
from uso.web.page.texts import EXAMPLES, Example


@pytest.mark.parametrize(
    "example", [one for examples in EXAMPLES.values() for one in examples], ids=lambda one: one.mode
)
def test_every_example_is_of_the_mode_that_it_shows(example: Example) -> None:
    """Catches a plan that says something else than the card that was clicked."""
    styles = [style for style in (example.style, example.extra_style) if style]
    assert mode_of(example.prompt, bool(example.content), len(styles)).name == example.mode


@pytest.mark.parametrize(
    ("prompt", "contents", "styles", "words"),
    [
        ("A fox", 0, 0, "the prompt alone"),
        ("A fox", 0, 1, "in the style of the style image"),
        ("A fox", 0, 2, "mixture of both styles"),
        ("", 0, 1, "a prompt says what"),
        ("The fox runs.", 1, 0, "new scene"),
        ("The fox runs.", 2, 0, "subjects of the 2 content images"),
        ("turn it into the style of a woodcut", 1, 0, "Layout kept, restyled"),
        ("The fox turns. His style is good.", 1, 0, "new scene"),
        ("", 1, 0, "a prompt or a style image changes it"),
        (" \n", 1, 1, "Layout kept, in the style of the style image."),
        ("Turn the style into a woodcut", 1, 1, "new scene, in the style of the style image"),
    ],
)
def test_the_plan_says_what_is_made(prompt: str, contents: int, styles: int, words: str) -> None:
    """Catches a plan that promises a kept layout where a prompt moves things, or forgets what was given."""
    assert words in mode_of(prompt, contents, styles).plan


def test_nothing_is_nothing() -> None:
    """Catches spaces that pass for a prompt."""
    assert mode_of(" \n", 0, 0) is NOTHING and mode_of("a", 0, 0) is not NOTHING
