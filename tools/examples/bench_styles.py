"""Draw the style references of the benchmarks, `assets/bench/`: one picture of every style of the drawn world, as WebP.

Each shows another subject. No model takes part; the emoji font of the miniature data must be installed.

    python -m tools.examples.bench_styles [FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from tools.demo.world.scenes import compose, draw_look
from tools.demo.world.styles import STYLES, draw_styled
from tools.demo.world.subjects import SUBJECTS
from uso.config import ROOT

FOLDER = ROOT / "assets" / "bench"
SIDE = 512
SEED = 5_000_000
"""Of no training picture and no task of the demo model's own evaluation."""


def drawn(number: int) -> Image.Image:
    """The reference of style `number`, `SIDE` x `SIDE`.

    Raises:
        ConfigError: the emoji font is not installed.
    """
    random = np.random.default_rng((SEED, number))
    scene = compose(draw_look(SUBJECTS[int(random.integers(len(SUBJECTS)))], random), random)
    style = STYLES[number]
    return Image.fromarray(draw_styled(scene, style, style.draw(random), SIDE, random))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the style references of the benchmarks.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, style in enumerate(STYLES):
        path = folder / f"{style.name.replace(' ', '-')}.webp"
        drawn(number).save(path, quality=80, method=6)
        print(path)


if __name__ == "__main__":
    main()
