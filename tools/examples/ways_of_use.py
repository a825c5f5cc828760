"""Draw the README's strip, `assets/ways-of-use.webp`: six ways of use, each with its inputs and one picture.

The demo model makes the pictures on the CPU, 128 x 128, with its defaults. Inputs and seeds are chosen by eye: the
strip shows what each way means, not how often it succeeds.

    python -m tools.examples.ways_of_use [FILE]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from uso import USOPipeline, load_pipeline
from uso.config import ROOT

FILE = ROOT / "assets" / "ways-of-use.webp"
DRAWN = ROOT / "assets" / "examples" / "drawn"

COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 400, 344
INPUT_SIDE, RESULT_SIDE = 96, 240
MARGIN, GAP = 12, 8
TITLE_SIZE, TEXT_SIZE = 19, 16
"""All in pixels."""

INK, SOFT = "#292524", "#78716c"


@dataclass(frozen=True)
class Way:
    """One way of use: what is given, and the seed of the picture."""

    title: str
    seed: int
    prompt: str = ""
    content: str | None = None
    style: str | None = None


WAYS = (
    Way("Text", 5, "a watercolour of a cactus in a desert"),
    Way("Subject in a new scene", 5, "The owl stands in the snow at night.", content="owl.png"),
    Way("Style", 3, "The mushroom grows in a forest.", style="stained-glass.png"),
    Way("Subject and style", 4, "The fox stands in a forest.", content="fox.png", style="watercolour.png"),
    Way("Layout kept, style changed", 1, content="castle.png", style="stained-glass.png"),
    Way("Restyled by words", 0, "Transform the style into a woodcut.", content="snowman.png"),
)


def draw(pipeline: USOPipeline, way: Way) -> Image.Image:
    """The demo model's picture."""
    output = pipeline(
        way.prompt,
        content_images=DRAWN / way.content if way.content else None,
        style_images=DRAWN / way.style if way.style else None,
        seed=way.seed,
    )
    return output.images[0]


def panel(way: Way, result: Image.Image) -> Image.Image:
    """Title, inputs on the left, an arrow, the result, and the prompt below."""
    image = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT), "white")
    canvas = ImageDraw.Draw(image)
    text = ImageFont.load_default(TEXT_SIZE)
    canvas.text((MARGIN, 6), way.title, INK, ImageFont.load_default(TITLE_SIZE))
    top = 40
    middle = top + RESULT_SIDE // 2
    inputs = [(label, name) for label, name in (("content", way.content), ("style", way.style)) if name]
    label_height = TEXT_SIZE + 4
    y = middle - (len(inputs) * (INPUT_SIDE + label_height) + (len(inputs) - 1) * GAP) // 2
    for label, name in inputs:
        with Image.open(DRAWN / name, formats=["PNG", "WEBP", "JPEG"]) as picture:
            image.paste(_resized(picture.convert("RGB"), INPUT_SIDE), (MARGIN, y))
        canvas.text((MARGIN, y + INPUT_SIDE), label, SOFT, text)
        y += INPUT_SIDE + label_height + GAP
    left = PANEL_WIDTH - MARGIN - RESULT_SIDE
    _arrow(canvas, MARGIN + INPUT_SIDE + 7, left - 7, middle)
    image.paste(_resized(result, RESULT_SIDE), (left, top))
    prompt = f"“{way.prompt}”" if way.prompt else "(empty prompt)"
    if inputs:
        canvas.text((PANEL_WIDTH - MARGIN, top + RESULT_SIDE + 8), prompt, SOFT, text, anchor="ra")
    else:  # the prompt is the input
        canvas.multiline_text((MARGIN, middle), "\n".join(wrap(prompt, 13)), SOFT, text, anchor="lm", spacing=6)
    return image


def _resized(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _arrow(canvas: ImageDraw.ImageDraw, start: int, end: int, y: int) -> None:
    canvas.line([(start, y), (end, y)], INK, width=2)
    canvas.line([(end - 7, y - 6), (end, y), (end - 7, y + 6)], INK, width=2, joint="curve")


def strip() -> Image.Image:
    """All panels, in rows of `COLUMNS`."""
    pipeline = load_pipeline("demo", device="cpu")
    rows = -(-len(WAYS) // COLUMNS)
    image = Image.new("RGB", (COLUMNS * PANEL_WIDTH, rows * PANEL_HEIGHT), "white")
    for number, way in enumerate(WAYS):
        row, column = divmod(number, COLUMNS)
        image.paste(panel(way, draw(pipeline, way)), (column * PANEL_WIDTH, row * PANEL_HEIGHT))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the README's strip of the six ways of use.")
    parser.add_argument("file", type=Path, nargs="?", default=FILE, metavar="FILE")
    file: Path = parser.parse_args().file
    strip().save(file, quality=90, method=6)
    print(file)


if __name__ == "__main__":
    main()
