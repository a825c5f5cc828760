"""What a request makes of what it is given: one mode for each combination of prompt, content images and style images.

Nobody chooses a mode: the network reads whatever is there. These are its names and what people can expect of it.
"""

import re
from typing import NamedTuple

_INSTRUCTION = re.compile(r"\s*(transform|change|turn|convert)\b[^.]*\bstyle\b", re.IGNORECASE)
"""How a prompt begins that says how the content image should look, and not what happens in it."""


class Mode(NamedTuple):
    """What is made."""

    name: str
    """A few words, as over an example."""
    plan: str
    """A sentence, with what is missing if something is."""


NOTHING = Mode("Nothing", "Nothing to draw yet: write a prompt or add an image.")


def mode_of(prompt: str, contents: int, styles: int) -> Mode:
    """The mode of a request.

    Args:
        contents, styles: how many content and style images there are.
    """
    written = bool(prompt.strip())
    if not (written or contents or styles):
        return NOTHING
    subject = "The subject of the content image" if contents == 1 else f"The subjects of the {contents} content images"
    style = {0: "", 1: "in the style of the style image"}.get(styles, f"in a mixture of the {styles} styles")
    if not contents:
        if not styles:
            return Mode("Text only", "A picture from the prompt alone.")
        name = "One style" if styles == 1 else "Two styles" if styles == 2 else "Several styles"
        made = f"A picture of what the prompt says, {style}."
        return Mode(name, made if written else f"Something {style}: a prompt says what.")
    if not written:
        if styles:
            return Mode("Layout kept, style changed", f"Layout kept, {style}.")
        return Mode("Content alone", "The content image again, layout kept: a prompt or a style image changes it.")
    if styles:
        name = "Subject, style and a scene" if styles == 1 else "Subject and two styles"
        return Mode(name, f"{subject} in a new scene, {style}.")
    if _INSTRUCTION.match(prompt):
        return Mode("Restyled by words", "Layout kept, restyled as the prompt says.")
    return Mode("Subject in a new scene", f"{subject} in a new scene, as the prompt says.")
