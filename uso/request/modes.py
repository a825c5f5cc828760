"""What a request makes of what it is given: one mode for each combination of prompt, content images and style images.

Nobody chooses a mode: the network reads whatever is there. These are its names and what people can expect of it.
"""

import re
from typing import NamedTuple

from uso.language import Text

_INSTRUCTION = re.compile(r"\s*(transform|change|turn|convert)\b[^.]*\bstyle\b", re.IGNORECASE)
"""How a prompt begins that says how the content image should look, and not what happens in it."""


class Mode(NamedTuple):
    """What is made."""

    name: str
    """A few words, as over an example."""
    plan: str
    """A sentence, with what is missing if something is."""


NOTHING = Mode(Text("Nothing"), Text("Nothing to draw yet: write a prompt or add an image."))


def mode_of(prompt: str, contents: int, styles: int) -> Mode:
    """The mode of a request.

    Args:
        contents, styles: how many content and style images there are.
    """
    written = bool(prompt.strip())
    if not (written or contents or styles):
        return NOTHING
    subject = (
        Text("The subject of the content image")
        if contents == 1
        else Text("The subjects of the {} content images", contents)
    )
    if styles == 1:
        style = Text("in the style of the style image")
    else:
        style = Text("in a mixture of both styles") if styles == 2 else Text("in a mixture of the {} styles", styles)
    if not contents:
        if not styles:
            return Mode(Text("Text only"), Text("A picture from the prompt alone."))
        name = Text("One style") if styles == 1 else Text("Two styles") if styles == 2 else Text("Several styles")
        made = Text("A picture of what the prompt says, {}.", style)
        return Mode(name, made if written else Text("Something {}: a prompt says what.", style))
    if not written:
        if styles:
            return Mode(Text("Layout kept, style changed"), Text("Layout kept, {}.", style))
        return Mode(
            Text("Content alone"), Text("The content image again, layout kept: a prompt or a style image changes it.")
        )
    if styles:
        name = Text("Subject, style and a scene") if styles == 1 else Text("Subject and two styles")
        return Mode(name, Text("{} in a new scene, {}.", subject, style))
    if _INSTRUCTION.match(prompt):
        return Mode(Text("Restyled by words"), Text("Layout kept, restyled as the prompt says."))
    return Mode(Text("Subject in a new scene"), Text("{} in a new scene, as the prompt says.", subject))
