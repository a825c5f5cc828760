"""Write the examples that suit the demo model, `assets/examples/drawn/`, from the miniature training data, as PNG.

Content images show a subject in its plain look, style images another subject in a style. No model takes part; the
emoji font of the miniature data must be installed.

    python -m tools.drawn_examples [FOLDER]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from tools.demo.world.triplets import Labels, Miniature, SplitName
from uso.config import ROOT

FOLDER = ROOT / "assets" / "examples" / "drawn"

FIRST = 4_000_000
"""Triplets from this number on are neither learned from nor measured on: evaluation begins at three million."""

SIZE = 128
"""Side of the pictures in pixels: what the demo model is trained at."""


@dataclass(frozen=True)
class Origin:
    """A picture's place in the miniature data: `number` counts from `FIRST`."""

    part: Literal["content", "style"]
    split: SplitName
    number: int


PICTURES = {
    "owl.png": Origin("content", "new-subjects", 137),
    "robot.png": Origin("content", "new-subjects", 300),
    "castle.png": Origin("content", "new-subjects", 200),
    "fox.png": Origin("content", "seen", 2840),
    "snowman.png": Origin("content", "seen", 2643),
    "watercolour.png": Origin("style", "seen", 1169),
    "pixel-art.png": Origin("style", "seen", 853),
    "woodcut.png": Origin("style", "seen", 146),
    "stained-glass.png": Origin("style", "seen", 1308),
}
"""Chosen by eye: large in the picture, by day, alone. The first three subjects are held out from training."""


def drawn(origin: Origin) -> tuple[Image.Image, Labels]:
    """The picture, `SIZE` x `SIZE`, and what its triplet shows.

    Raises:
        ConfigError: the emoji font is not installed.
    """
    triplet = Miniature(size=SIZE, split=origin.split).triplet(FIRST + origin.number)
    return Image.fromarray(triplet.content if origin.part == "content" else triplet.style), triplet.labels


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the examples that suit the demo model.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, origin in PICTURES.items():
        drawn(origin)[0].save(folder / name, optimize=True)
        print(folder / name)


if __name__ == "__main__":
    main()
