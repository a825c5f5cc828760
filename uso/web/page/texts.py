"""The page's fixed texts: the tips, and the examples (their pictures are in `assets/examples/`)."""

from dataclasses import dataclass
from pathlib import Path

from uso.config import ROOT, ExampleSet
from uso.language import Text

EXAMPLES_FOLDER = ROOT / "assets" / "examples"

PROMPT_PLACEHOLDER = Text("Describe the picture in a sentence. Leave it empty to keep the layout of the content image.")

RESTORE = Text(
    "Drop a PNG made with USO here to fill in its settings. Its reference images come back if they are yours."
)

PASTE = Text("Ctrl+V (⌘V on a Mac) pastes an image, and a file may be dropped anywhere on the page.")

REFERENCE_HINTS = {
    "content": Text("Who or what to show"),
    "style": Text("How it should look"),
    "extra-style": Text("A second style"),
}
"""What an empty image field says, by its id."""

SCRIPT_WORDS = {
    "rounded": Text("{typed} became {value}: a multiple of {step} from {min} to {max}."),
    "filled": Text("Filled in: {filled}."),
    "emptied": Text("Emptied: {emptied}."),
    "filled-and-emptied": Text("Filled in: {filled}. Emptied: {emptied}."),
    "unchanged": Text("The fields hold all of this already."),
    "full": Text("All three references are filled. Empty one first, or click the one to replace."),
    "offer": Text("{name} was made with USO."),
    "last-seed": Text("The picture shown has the seed {seed}."),
    "before": Text("Content image"),
    "after": Text("Picture"),
    "end-selecting": Text("Done"),
    "delete-this": Text("Delete this picture for good?"),
    "delete-one": Text("Delete the picture “{name}” for good?"),
    "delete-many": Text("Delete {count} pictures for good?"),
    "delete-all": Text("Delete all your pictures for good, those that are not listed here too?"),
    "with-pictures": Text(
        "The files are removed from the server, with the reference images that no other picture needs. "
        "This cannot be undone."
    ),
    "delete-style": Text("Delete the style “{name}” for good?"),
    "with-style": Text("Style fields that hold it become empty. Pictures made with it stay. This cannot be undone."),
    "delete-preset": Text("Delete the preset “{name}” for good?"),
    "with-preset": Text("The fields stay as they are. This cannot be undone."),
    "hint-reuse-all": Text("Fills in everything, with the same seed: Generate then makes the same picture."),
    "hint-remix": Text("Fills in everything, with a random seed: Generate then makes another picture."),
    "hint-reuse-seed": Text("Fills in the seed of this picture and nothing else."),
    "lost": Text(
        "The connection to the server is lost. This page comes back by itself when the server does. "
        "What was typed and every finished picture are kept."
    ),
}
"""What scripts in the browser say, with names for what they fill in."""

DROP_ZONES = {
    "content": Text("Content: who or what to show"),
    "style": Text("Style: how it should look"),
    "extra-style": Text("Extra style: a second style"),
    "settings": Text("Bring back the settings of a picture made with USO"),
}
"""By where a dropped image goes."""

DROP_ANYWHERE = Text("Anywhere else: into the first of these fields that is free.")

Tip = tuple[str, str]
"""Heading and text."""

_LAYOUT: Tip = (
    Text("The same layout in another style"),
    Text(
        "Give a content image and a style image and leave the prompt empty. "
        "Keep input size gives the picture the shape of the content image."
    ),
)
_ONE_OR_TWO: Tip = (
    Text("One style, or a mixture of two"),
    Text("With a style image alone, the prompt describes what is shown. An extra style image mixes in a second style."),
)

STRENGTHS = Text("0 leaves a style out, 2 counts it twice. Two styles mix by their strengths: 1.4 and 0.6 is 70:30.")

TIPS: dict[ExampleSet, tuple[Tip, ...]] = {
    "photographs": (
        (
            Text("A subject in a new scene"),
            Text(
                "Give a content image and describe the scene in a natural sentence: "
                "“The cat sits on a window sill, rain outside.”"
            ),
        ),
        (
            Text("The same picture, restyled by words"),
            Text("Give a content image and an instruction: “Transform the style into watercolour.”"),
        ),
        _LAYOUT,
        _ONE_OR_TWO,
        (
            Text("People: choose the framing"),
            Text(
                "For a half-body prompt give a half-body close-up. If pose or framing change, give a full-body image."
            ),
        ),
    ),
    "drawn": (
        (
            Text("A subject in a new scene"),
            Text(
                "Give a content image and say what it shows and where it is: “The owl stands in the snow at night.” "
                "A subject that the model has not seen comes out less accurately."
            ),
        ),
        (
            Text("The same picture, restyled by words"),
            Text("Give a content image and an instruction: “Transform the style into a woodcut.”"),
        ),
        _LAYOUT,
        _ONE_OR_TWO,
        (
            Text("What this model knows"),
            Text(
                "One animal, plant, vehicle or thing such as a fox, a rose, a rocket or a teapot, in a place such as a "
                "forest, a beach, a city or under water, by day, at sunset, at night or in fog. Photographs and people "
                "need FLUX.1-dev."
            ),
        ),
    ),
}
"""By the `examples` of a model's config."""


@dataclass(frozen=True)
class Example:
    """Inputs that show one mode. The others keep the model's defaults. Pictures are names in `EXAMPLES_FOLDER`."""

    mode: str
    prompt: str = ""
    content: str | None = None
    style: str | None = None
    extra_style: str | None = None
    keep_input_size: bool = False
    seed: int | None = None
    """One with which the model of these examples succeeds; None for a new one each time."""
    result: str | None = None
    """The picture that these inputs and this seed give, for the card."""

    def path(self, name: str | None) -> Path | None:
        return None if name is None else EXAMPLES_FOLDER / name


_PHOTOGRAPHS = (
    Example(Text("Text only"), "A lighthouse on a cliff at dusk, waves below, warm light in its windows."),
    Example(
        Text("Subject in a new scene"),
        "The astronaut drinks coffee at a small table in a sunny garden, half-body portrait.",
        content="astronaut.jpg",
    ),
    Example(
        Text("Restyled by words"),
        "Transform the style into watercolour.",
        content="coffee.jpg",
        keep_input_size=True,
    ),
    Example(Text("One style"), "A harbour with small boats in the morning.", style="woodcut.jpg"),
    Example(Text("Two styles"), "A tree on a hill in the wind.", style="oil.jpg", extra_style="poster.png"),
    Example(
        Text("Subject, style and a scene"),
        "The cat sits on a window sill, rain outside.",
        content="cat.jpg",
        style="watercolour.jpg",
    ),
    Example(Text("Layout kept, style changed"), content="rocket.jpg", style="oil.jpg", keep_input_size=True),
    Example(
        Text("Subject and two styles"),
        "The photographer stands at the edge of the sea.",
        content="photographer.jpg",
        style="mosaic.jpg",
        extra_style="woodcut.jpg",
    ),
)

# Sentences like those the demo model was trained on, with words and scenes that occur in them. They begin with "The",
# except one that names a style, which is no sentence and begins in lower case.
_DRAWN = (
    Example(Text("Text only"), "a watercolour of a cactus in a desert", seed=5, result="drawn/result-cactus.webp"),
    Example(
        Text("Subject in a new scene"),
        "The owl stands in the snow at night.",
        content="drawn/owl.png",
        seed=5,
        result="drawn/result-owl.webp",
    ),
    Example(
        Text("Restyled by words"),
        "Transform the style into a woodcut.",
        content="drawn/snowman.png",
        keep_input_size=True,
        seed=1,
        result="drawn/result-snowman.webp",
    ),
    Example(
        Text("One style"),
        "The mushroom grows in a forest.",
        style="drawn/stained-glass.png",
        seed=3,
        result="drawn/result-mushroom.webp",
    ),
    Example(
        Text("Two styles"),
        "The tulip grows in a meadow at sunset.",
        style="drawn/watercolour.png",
        extra_style="drawn/woodcut.png",
        seed=9,
        result="drawn/result-tulip.webp",
    ),
    Example(
        Text("Subject, style and a scene"),
        "The robot stands in a forest.",
        content="drawn/robot.png",
        style="drawn/watercolour.png",
        seed=3,
        result="drawn/result-robot.webp",
    ),
    Example(
        Text("Layout kept, style changed"),
        content="drawn/castle.png",
        style="drawn/stained-glass.png",
        keep_input_size=True,
        seed=1,
        result="drawn/result-castle.webp",
    ),
    Example(
        Text("Subject and two styles"),
        "The fox stands on a road at night.",
        content="drawn/fox.png",
        style="drawn/woodcut.png",
        extra_style="drawn/pixel-art.png",
        seed=1,
        result="drawn/result-fox.webp",
    ),
)

PROMPTS: dict[ExampleSet, tuple[str, ...]] = {
    "photographs": (),
    "drawn": (
        "a watercolour of a fox in a forest",
        "an embroidery of a rose in a meadow",
        "a linocut of a sailing boat on the sea",
        "pixel art of a rocket in space",
        "The snail stands on a road at sunset.",
        "The whale swims on the sea at night.",
    ),
}
"""Sentences that a model of few words understands, by the `examples` of its config."""

EXAMPLES: dict[ExampleSet, tuple[Example, ...]] = {"photographs": _PHOTOGRAPHS, "drawn": _DRAWN}
"""By the `examples` of a model's config: one for each mode."""
