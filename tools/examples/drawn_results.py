"""Write what the demo model makes of the page's examples, with their seeds: the pictures on the examples' cards.

The seeds are chosen by eye, so the cards show what each mode means, not how often it succeeds. `--seeds N` writes a
sheet of the first N seeds of every example to choose from.

    python -m tools.examples.drawn_results [FOLDER] [--seeds N]
"""

import argparse
from pathlib import Path

from PIL import Image

from uso import USOPipeline, load_pipeline
from uso.web.page.texts import EXAMPLES, EXAMPLES_FOLDER, Example


def draw(pipeline: USOPipeline, example: Example, seed: int) -> Image.Image:
    """The demo model's picture of an example."""
    styles = [path for path in (example.path(example.style), example.path(example.extra_style)) if path]
    output = pipeline(
        str(example.prompt),
        content_images=example.path(example.content),
        style_images=styles or None,
        keep_input_size=example.keep_input_size,
        seed=seed,
    )
    return output.images[0]


def sheet(pipeline: USOPipeline, seeds: int) -> Image.Image:
    """A row for every example: its first `seeds` seeds."""
    rows = [[draw(pipeline, example, seed) for seed in range(seeds)] for example in EXAMPLES["drawn"]]
    side = rows[0][0].width
    image = Image.new("RGB", (seeds * side, len(rows) * side), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            image.paste(picture, (column * side, row * side))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo model's pictures of the page's examples.")
    parser.add_argument("folder", nargs="?", type=Path, default=EXAMPLES_FOLDER)
    parser.add_argument("--seeds", type=int, metavar="N", help="write a sheet of N seeds of every example instead")
    args = parser.parse_args()
    pipeline = load_pipeline("demo", device="cpu")
    if args.seeds:
        file = args.folder / "seeds.png"
        sheet(pipeline, args.seeds).save(file)
        print(file)
        return
    for example in EXAMPLES["drawn"]:
        if example.result and example.seed is not None:
            draw(pipeline, example, example.seed).save(args.folder / example.result, quality=90, method=6)
            print(args.folder / example.result)


if __name__ == "__main__":
    main()
